"""Read a whole run back and hold it against its commits.

1. Every document is read; one that is lost or no such document is damage.
2. Every tile that a commit names is read: its length, its CRC32C, the shard index, each block's
   checksum, and the CRC-32 of its values, which alone tells one tile from another.
3. Every array must have its Zarr metadata.
4. Whatever else lies in the run is an orphan: harmless, and listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from crc32c import crc32c
from isal.isal_zlib import crc32

from archive_schema.codecs import decode_block, index_nbytes
from archive_schema.dtypes import numpy_dtype, to_given
from archive_schema.errors import ArchiveError, NotFoundError
from archive_schema.layout import (
    array_path,
    blocks_per_axis,
    field_key,
    group_path,
    manifest_key,
    run_prefix,
    seal_key,
    sealing_key,
    stored_key,
    zarr_key,
)
from archive_schema.records import RunRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from archive_schema.ledger import FieldLedger, TileEntry
    from archive_schema.models import FieldSpec
    from archive_schema.store import Store


class Finding(StrEnum):
    """What can be wrong with an object."""

    LOST = "lost"
    DAMAGED = "damaged"
    CONFLICT = "conflict"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was found."""

    finding: Finding
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify_run` found; *orphans* are in *found* and no damage."""

    run: str
    tiles: int
    """Tiles that were read."""
    nbytes: int
    """Stored bytes that were read."""
    found: tuple[Found, ...]

    @property
    def sound(self) -> bool:
        """Whether everything that the commits name is there and undamaged."""
        return all(one.finding is Finding.ORPHAN for one in self.found)


def verify_run(
    store: Store, run_id: str, progress: Callable[[int, int], object] | None = None
) -> Report:
    """Read run *run_id* back and say exactly what is lost, damaged, contradictory or orphaned.

    Parameters
    ----------
    progress : callable of (tiles done, tiles in all), optional

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    FormatError
        If the manifest, a commit, a declaration or the index cannot be read: nothing can be
        said about the tiles then.
    """
    records = RunRecords(store, run_id)
    found = [Found(Finding.CONFLICT, run_prefix(run_id), text) for text in records.ledger.conflicts]
    known = {manifest_key(run_id), seal_key(run_id), sealing_key(run_id)}
    total = sum(field.count for field in records.ledger.fields.values())
    tiles = nbytes = 0
    for path, field in records.ledger.fields.items():
        known.add(field_key(run_id, path))
        found += _absent_documents(store, records, path, field)
        for key, entry in _tiles(records, field):
            known.add(key)
            tiles, nbytes = tiles + 1, nbytes + entry.nbytes
            problem = _problem(store, key, field.spec, entry)
            if problem is not None:
                found.append(problem)
            if progress is not None:
                progress(tiles, total)
    found += _orphans(store, records, known)
    return Report(run_id, tiles, nbytes, tuple(found))


def _tiles(records: RunRecords, field: FieldLedger) -> Iterator[tuple[str, TileEntry]]:
    for step in field.steps:
        for tile in range(field.tiles):
            entry = field.tile(step, tile)
            if entry is None:
                continue
            if entry.aside:
                yield f"{run_prefix(records.run_id)}/{entry.aside}", entry
            else:
                yield stored_key(records.manifest, field.spec, step, tile, _zarr(records)), entry


def _problem(store: Store, key: str, spec: FieldSpec, entry: TileEntry) -> Found | None:
    if not entry.nbytes:
        return None
    try:
        data = store.read(key)
    except NotFoundError:
        return Found(Finding.LOST, key, "a commit names it, and it is not there")
    try:
        _check(data, spec, entry)
    except (ArchiveError, ValueError, RuntimeError) as error:
        return Found(Finding.DAMAGED, key, str(error))
    return None


def _check(data: bytes, spec: FieldSpec, entry: TileEntry) -> None:
    """Raise an error that says what is wrong with a tile's object."""
    if len(data) != entry.nbytes:
        message = f"expected {entry.nbytes} bytes, got {len(data)}"
        raise ValueError(message)
    if crc32c(data) != entry.crc32c:
        raise ValueError("its CRC32C is not the committed one")
    given = np.ascontiguousarray(to_given(_decode(data, spec, entry), spec))
    if crc32(given.reshape(-1).view(np.uint8).data) != entry.crc32:
        raise ValueError("it holds other values than were committed")


def _decode(data: bytes, spec: FieldSpec, entry: TileEntry) -> NDArray[Any]:
    """Decode a whole tile, from its own index as another Zarr reader would."""
    whole = (spec.tile, *spec.tail) if spec.tile else entry.shape
    grid = blocks_per_axis(whole, entry.block)
    if entry.block:
        table = data[len(data) - index_nbytes(len(entry.ends)) : -4]
        offsets = np.frombuffer(table, "<u8").reshape(-1, 2).tolist()
    else:
        offsets = [[0, len(data)]]
    starts = (0, *entry.ends[:-1])
    values = np.empty(whole, numpy_dtype(spec.stored_dtype))
    for at, start, end, (offset, size) in zip(
        product(*map(range, grid)), starts, entry.ends, offsets, strict=True
    ):
        if start == end:
            continue
        if (offset, size) != (start, end - start):
            message = f"its index has a block at {offset}, the commit at {start}"
            raise ValueError(message)
        box = tuple(slice(i * b, (i + 1) * b) for i, b in zip(at, entry.block, strict=True))
        values[box] = decode_block(data[start:end], spec.codec, spec.stored_dtype, entry.block)
    return values[: entry.samples] if spec.tile else values


def _absent_documents(
    store: Store, records: RunRecords, path: str, field: FieldLedger
) -> list[Found]:
    spec, zarr = field.spec, _zarr(records)
    arrays = [array_path(spec, step) for step in field.steps] if spec.ragged else []
    arrays = arrays or [array_path(spec), group_path(spec), ""]
    wanted = {field_key(records.run_id, path)}
    for folder in arrays:
        name = f"{folder}/zarr.json" if folder else "zarr.json"
        wanted.add(zarr_key(records.run_id, name, zarr))
    found = []
    for key in sorted(wanted):
        try:
            store.size(key)
        except NotFoundError:
            found.append(Found(Finding.LOST, key, "the metadata document is not there"))
    return found


def _orphans(store: Store, records: RunRecords, known: set[str]) -> list[Found]:
    prefix = run_prefix(records.run_id)
    documents = (f"{prefix}/commits/", f"{prefix}/heartbeats/", f"{prefix}/fields/")
    index = records.seal and f"{prefix}/{records.seal.index}"
    found = []
    for one in store.objects(prefix):
        name = one.key.rpartition("/")[2]
        if one.key in known or one.key == index or one.key.startswith(documents):
            continue
        if name == "zarr.json" or _is_coordinate(one.key, records):
            continue
        found.append(Found(Finding.ORPHAN, one.key, f"{one.nbytes} bytes that no commit names"))
    return sorted(found, key=lambda one: one.key)


def _is_coordinate(key: str, records: RunRecords) -> bool:
    """Whether the object is a chunk of a coordinate array or a mask, which no commit names."""
    folder = key.rpartition("/")[0]
    arrays = {
        zarr_key(records.run_id, array_path(field.spec), _zarr(records))
        for field in records.ledger.fields.values()
        if not field.spec.ragged
    }
    ragged = zarr_key(records.run_id, "ragged/", _zarr(records))
    inside = key.startswith(zarr_key(records.run_id, "", _zarr(records)))
    return inside and folder not in arrays and not key.startswith(ragged)


def _zarr(records: RunRecords) -> str:
    return "trace.zarr" if records.seal is None else records.seal.zarr
