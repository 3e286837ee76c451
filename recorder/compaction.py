"""Rewrite a sealed run with many steps in one object: smaller, and quick to read through all steps.

1. A folder of its own, which nobody else writes and no reader looks into.
2. Every field: the tiles of many steps are read, held against their commits, and packed into
   one shard with the codec that packs a sample of them best. What cannot be packed is copied.
   Each object is read back and decoded before it counts.
3. The Zarr documents, coordinates and masks that such a hierarchy has.
4. `Generation`, created once: from here readers take the new folder. Of two who compact, one
   creates it, and the other takes its own folder away.

Whoever is killed before the last step leaves a folder that nobody reads, and the run as it was.
What commits say stays as it is, so lengths, checksums and ETags do not change.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from fastcrc.crc32 import iscsi as crc32c
from isal.isal_zlib import crc32

from archive_schema.codecs import decode_tile, encode_block
from archive_schema.documents import document_bytes, read_document
from archive_schema.dtypes import fill_value, numpy_dtype, to_given
from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    FormatError,
    NotFoundError,
    invalid,
)
from archive_schema.generations import (
    SHARD_NBYTES,
    Generation,
    ShardColumns,
    choose_cut,
    decode_shard,
    encode_shard,
    storage_order,
)
from archive_schema.layout import (
    field_steps,
    generation_key,
    run_prefix,
    stored_key,
    tile_key,
    zarr_key,
)
from archive_schema.models import Codec
from archive_schema.records import RunRecords, read_manifest, shard_tables
from archive_schema.store import HttpStore
from archive_schema.store.interface import is_remote
from recorder.patience import PatientStore
from recorder.sealing import sealed_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from archive_schema.generations import Cut
    from archive_schema.ledger import FieldLedger
    from archive_schema.store import Store

_PATIENCE_S: Final = 60.0
_REMOTE_THREADS: Final = 16
_MOST_LOCAL_THREADS: Final = 4
_TRIED_BLOCKS: Final = 16
_WORTH_PACKING: Final = 0.95
"""What packs no better is stored raw: it is read faster."""
_BYTES: Final = (Codec(name="zstd", level=9),)
_NUMBERS: Final = (
    Codec(name="blosc", level=5, shuffle="shuffle"),
    Codec(name="blosc", level=5, shuffle="bitshuffle"),
)
_RAW: Final = Codec(name="raw")


@dataclass(frozen=True, slots=True)
class Compacted:
    """A run as it lies after `compact_run`."""

    run: str
    generation: int
    zarr: str
    """Folder of the current hierarchy, below the run."""
    known: bool
    """Whether it was there already, or another process was quicker."""
    packed: tuple[str, ...]
    """Paths of the fields whose steps lie many in an object."""
    copied: tuple[str, ...]
    """Paths of the fields that lie as they were recorded."""
    recorded_nbytes: int
    """Stored bytes of all tiles as they were recorded."""
    nbytes: int
    """Stored bytes of all values now."""


def compact_run(
    store: Store,
    run_id: str,
    *,
    shard_nbytes: int = SHARD_NBYTES,
    progress: Callable[[int, int], object] | None = None,
) -> Compacted:
    """Rewrite a sealed run; nothing happens if it was rewritten already.

    Readers are not disturbed, and what they read before stays where it is until it is swept
    (`recorder.maintenance.sweep_superseded`).

    Parameters
    ----------
    shard_nbytes : int
        Of the values of one object; six times as much memory is used.
    progress : callable of (tiles done, tiles in all), optional

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    ConflictError
        ``run-not-sealed``.
    FormatError
        ``tile-lost`` or ``tile-damaged``: nothing is rewritten of what is not whole.
    InvalidInputError
        ``store-url-invalid`` for a store behind a server, which does not pass this through.
    """
    if isinstance(store, HttpStore):
        message = f"compact where the objects are, not through the server at {store.url}"
        raise invalid(ErrorKind.STORE_URL_INVALID, message)
    patient: Store = PatientStore(store, _PATIENCE_S) if is_remote(store) else store
    records = RunRecords(patient, run_id)
    if records.seal is None:
        message = f"run {run_id!r} is not sealed: more may still be recorded into it"
        raise ConflictError(ErrorKind.RUN_NOT_SEALED, message)
    if records.generation is not None:
        return _outcome(records, known=True)
    threads = _REMOTE_THREADS if is_remote(store) else min(_MOST_LOCAL_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "trace-compaction") as pool:
        compaction = _Compaction(records, pool, shard_nbytes, progress)
        with _taken_back(store, compaction):
            won = compaction.run()
    records.refresh()
    return _outcome(records, known=not won)


def choose_codec(blocks: Sequence[NDArray[Any]]) -> Codec:
    """Return the codec that packs *blocks* best, as they will be stored; the simplest of equals."""
    numbers = blocks[0].dtype.itemsize > 1
    tried = (*_BYTES, *(_NUMBERS if numbers else ()))
    sizes = {one: sum(len(encode_block(block, one)) for block in blocks) for one in tried}
    best = min(tried, key=sizes.__getitem__)
    return best if sizes[best] < _WORTH_PACKING * sum(b.nbytes for b in blocks) else _RAW


class _Compaction:
    """One attempt to write the next generation of a run."""

    def __init__(
        self,
        records: RunRecords,
        pool: ThreadPoolExecutor,
        shard_nbytes: int,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        assert records.seal is not None, "only a sealed run has generations"  # noqa: S101
        self._records = records
        self._seal = records.seal
        self._store = records.store
        self._manifest = records.manifest
        self._pool = pool
        self._shard_nbytes = shard_nbytes
        self._progress = progress
        self._done = 0
        self._number = 1
        self.zarr = f"trace-{self._number:06d}-{secrets.token_hex(4)}.zarr"
        self.folder = f"{run_prefix(records.run_id)}/{self.zarr}"
        self._sizes: dict[str, int] = {}
        """Length of every object that was put, by key."""

    def run(self) -> bool:
        """Write the generation; return whether it became the current one."""
        ledger = self._records.ledger
        shards = []
        nbytes = 0
        for path, field in ledger.fields.items():
            steps = self._positions(field)
            cut = choose_cut(field.spec, sorted(steps.values()), shard_nbytes=self._shard_nbytes)
            if cut is None:
                nbytes += self._copy(field)
            else:
                columns = self._pack(path, field, steps, cut)
                nbytes += sum(columns.nbytes)
                shards.append(columns)
        generation = Generation(
            number=self._number,
            time=datetime.now(UTC),
            zarr=self.zarr,
            uid=self._manifest.uid,
            shards=tuple(shards),
            nbytes=nbytes,
        )
        tables = shard_tables(generation, self._manifest, ledger)
        documents = sealed_documents(self._manifest, ledger, tables)
        list(self._pool.map(lambda item: self._put(*item), documents.items()))
        return self._publish(generation)

    def _positions(self, field: FieldLedger) -> dict[int, int]:
        """Return where the recorded steps of a field lie on its own step axis."""
        spec, declared = field.spec, self._manifest.steps
        if spec.ragged or not spec.place.stepped:
            return {}
        if isinstance(declared, tuple):
            known = {step: at for at, step in enumerate(field_steps(spec, declared))}
            return {step: known[step] for step in field.steps}
        return {step: (step - spec.first) // spec.every for step in field.steps}

    def _pack(self, path: str, field: FieldLedger, steps: dict[int, int], cut: Cut) -> ShardColumns:
        spec, codec = field.spec, None
        rows: list[tuple[int, int, int, int, tuple[int, ...]]] = []
        for shard in sorted({at // cut.steps for at in steps.values()}):
            inside = {s: at % cut.steps for s, at in steps.items() if at // cut.steps == shard}
            for tile in range(field.tiles):
                values, recorded = self._load(field, inside, tile, cut)
                if not (recorded >= 0).any():
                    continue
                if codec is None:
                    codec = choose_codec(_sample(values, recorded, cut))
                encoded = encode_shard(values, recorded, spec, cut, codec, mapped=self._pool.map)
                key = tile_key(self._manifest.id, spec, shard, tile, self.zarr)
                self._create(key, encoded.data)
                # Of what the store gives back: memory and disks err too.
                stored = decode_shard(self._store.read(key), spec, cut, codec, encoded.blocks)
                if _bytes(stored) != _bytes(values):
                    raise _differs(self._store, key)
                rows.append((shard, tile, len(encoded.data), encoded.crc32c, encoded.blocks))
        columns = tuple(zip(*rows, strict=True)) or ((),) * 5
        return ShardColumns(
            field=path,
            steps=cut.steps,
            block=cut.zarr_block,
            codec=codec or spec.codec,
            shard=columns[0],
            tile=columns[1],
            nbytes=columns[2],
            crc32c=columns[3],
            blocks=columns[4],
        )

    def _load(
        self, field: FieldLedger, steps: dict[int, int], tile: int, cut: Cut
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the values of a shard, and how many samples each of its steps has (-1: none)."""
        spec = field.spec
        dtype = numpy_dtype(spec.stored_dtype)
        values = np.full((cut.steps, *cut.shape[:-1]), fill_value(spec.stored_dtype), dtype)
        recorded = np.full(cut.steps, -1, np.int64)
        there = [step for step in steps if field.has(step, tile)]

        def load(step: int) -> None:
            at, (_, part) = steps[step], self._tile(field, step, tile)
            recorded[at] = len(part) if spec.sampled else 0
            target: tuple[Any, ...] = (at, slice(recorded[at])) if spec.sampled else (at,)
            values[target] = part

        for _ in self._pool.map(load, there):
            self._count()
        return values, recorded

    def _copy(self, field: FieldLedger) -> int:
        """Put a field's tiles as they were recorded; return their bytes."""

        def copy(place: tuple[int, int]) -> int:
            step, tile = place
            data, _ = self._tile(field, step, tile)
            if data:
                key = stored_key(self._manifest, field.spec, step, tile, self.zarr)
                self._create(key, data)
                if self._store.read(key) != data:
                    raise _differs(self._store, key)
            return len(data)

        places = [(s, t) for s in field.steps for t in range(field.tiles) if field.has(s, t)]
        total = 0
        for nbytes in self._pool.map(copy, places):
            total += nbytes
            self._count()
        return total

    def _tile(self, field: FieldLedger, step: int, tile: int) -> tuple[bytes, NDArray[Any]]:
        """Return a tile as it is stored and its values, held against its commit."""
        spec, entry = field.spec, field.tile(step, tile)
        assert entry is not None, "only recorded tiles are asked for"  # noqa: S101
        if not entry.nbytes:
            return b"", np.empty(entry.shape, numpy_dtype(spec.stored_dtype))
        key = stored_key(self._manifest, spec, step, tile)
        for _ in range(2 if is_remote(self._store) else 1):
            try:
                data = self._store.read(key)
            except NotFoundError as error:
                message = f"the object of a recorded tile is lost: {self._store.url}/{key}"
                raise FormatError(ErrorKind.TILE_LOST, message) from error
            if len(data) == entry.nbytes and crc32c(data) == entry.crc32c:
                break
        else:
            raise _damaged(self._store, key, f"expected {entry.nbytes} bytes as committed")
        lengths = np.diff(entry.ends, prepend=0).tolist()
        values = decode_tile(data, spec, lengths, entry.shape, entry.block)
        given = np.ascontiguousarray(to_given(values, spec))
        if crc32(given.reshape(-1).view(np.uint8).data) != entry.crc32:
            raise _damaged(self._store, key, "it holds other values than were committed")
        return data, values

    def _put(self, path: str, data: bytes) -> None:
        self._create(zarr_key(self._manifest.id, path, self.zarr), data)

    def _create(self, key: str, data: bytes) -> None:
        self._store.create(key, data)
        self._sizes[key] = len(data)

    def _publish(self, generation: Generation) -> bool:
        """Let readers take the new folder, if everything is there and nobody was quicker."""
        store, run_id = self._store, self._manifest.id
        store.sync(self._sizes)
        found = {one.key: one.nbytes for one in store.objects(self.folder)}
        gone = sorted(key for key, nbytes in self._sizes.items() if found.get(key) != nbytes)
        if gone:
            message = f"{len(gone)} objects that were stored are gone, among them {gone[0]}"
            raise FormatError(ErrorKind.TILE_LOST, message)
        self._check_run()
        key = generation_key(run_id, self._number)
        try:
            store.create(key, document_bytes(generation))
        except ConflictError:
            return read_document(store, key, Generation).zarr == self.zarr
        store.sync([key])
        try:
            self._check_run()
        except NotFoundError:
            store.delete(key)
            raise
        return True

    def _check_run(self) -> None:
        """Raise if the run was removed meanwhile, also if another has its id now."""
        if read_manifest(self._store, self._manifest.id).uid != self._manifest.uid:
            message = f"run {self._manifest.id!r} was removed, and another has its id now"
            raise NotFoundError(ErrorKind.RUN_NOT_FOUND, message)

    def _count(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._seal.tiles)


@contextmanager
def _taken_back(store: Store, compaction: _Compaction) -> Iterator[None]:
    """Remove what was put, unless it became the current generation."""
    try:
        yield
    finally:
        with suppress(ArchiveError):
            run_id = compaction.folder.split("/")[1]
            if not _is_current(store, run_id, compaction.zarr):
                for one in list(store.objects(compaction.folder)):
                    store.delete(one.key)


def _is_current(store: Store, run_id: str, zarr: str) -> bool:
    try:
        return RunRecords(store, run_id).zarr == zarr
    except NotFoundError:
        return False


def _sample(values: NDArray[Any], recorded: NDArray[np.int64], cut: Cut) -> list[NDArray[Any]]:
    """Return some whole blocks of a shard that hold something, as they will be stored."""
    boxes = [box for box in cut.boxes() if (recorded[box[0]] >= 0).any()]
    chosen = boxes[:: max(1, len(boxes) // _TRIED_BLOCKS)]
    return [storage_order(values[box]) for box in chosen]


def _bytes(values: NDArray[Any]) -> memoryview:
    """Return the bytes of *values*, where NaN is NaN, without a copy."""
    return values.reshape(-1).view(np.uint8).data


def _outcome(records: RunRecords, *, known: bool) -> Compacted:
    seal, generation = records.seal, records.generation
    assert seal is not None, "only a sealed run is compacted"  # noqa: S101
    assert generation is not None, "it was compacted just now, or before"  # noqa: S101
    return Compacted(
        run=records.run_id,
        generation=generation.number,
        zarr=generation.zarr,
        known=known,
        packed=tuple(records.shards),
        copied=tuple(path for path in records.ledger.fields if path not in records.shards),
        recorded_nbytes=seal.nbytes,
        nbytes=generation.nbytes,
    )


def _damaged(store: Store, key: str, reason: str) -> FormatError:
    message = f"the object of a recorded tile is damaged: {reason}: {store.url}/{key}"
    return FormatError(ErrorKind.TILE_DAMAGED, message)


def _differs(store: Store, key: str) -> FormatError:
    message = f"the store gives back other bytes than it took: {store.url}/{key}"
    return FormatError(ErrorKind.TILE_DAMAGED, message)
