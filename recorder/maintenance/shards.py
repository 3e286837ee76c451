"""Shards of a compacted run, read back and held against what was committed of their values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from fastcrc.crc32 import iscsi as crc32c
from isal.isal_zlib import crc32

from archive_schema.dtypes import to_given
from archive_schema.errors import FormatError, NotFoundError
from archive_schema.generations import decode_shard, index_of_blocks
from archive_schema.layout import step_position, tile_key
from recorder.maintenance.findings import Finding, Found
from recorder.maintenance.reading import mapped, read_twice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.generations import ShardTable
    from archive_schema.ledger import FieldLedger
    from archive_schema.models import RunManifest
    from recorder.maintenance.survey import Survey


@dataclass(slots=True)
class CheckedShard:
    """One shard that was read, or some tiles for which there is none."""

    nbytes: int
    tiles: int = 0
    """Recorded tiles whose values it holds."""
    found: list[Found] = field(default_factory=list)


class _Place(NamedTuple):
    path: str
    shard: int
    tile: int
    steps: dict[int, int]
    """The recorded steps whose values it holds, by their positions in it."""


def shard_keys(survey: Survey, manifest: RunManifest) -> set[str]:
    """Return the keys of all shards of a run."""
    return {
        tile_key(manifest.id, survey.ledger.fields[path].spec, shard, tile, survey.zarr)
        for path, table in survey.shards.items()
        for shard, tile in table.places
    }


def checked_shards(survey: Survey, manifest: RunManifest) -> Iterator[CheckedShard]:
    """Read every shard of a compacted run: its bytes, its index, its blocks, and its values."""

    def check(place: _Place) -> CheckedShard:
        ledger, table = survey.ledger.fields[place.path], survey.shards[place.path]
        stored = table.at(place.shard, place.tile)
        key = tile_key(manifest.id, ledger.spec, place.shard, place.tile, survey.zarr)
        checked = CheckedShard(0 if stored is None else stored.nbytes, len(place.steps))
        try:
            read_twice(survey.store, key, lambda data: _check(data, ledger, table, place))
        except NotFoundError:
            detail = f"the generation names it, with {len(place.steps)} tiles; it is not there"
            checked.found.append(Found(Finding.TILE_LOST, key, detail))
        except (FormatError, ValueError, RuntimeError) as error:
            checked.found.append(Found(Finding.TILE_DAMAGED, key, str(error)))
        return checked

    yield from mapped(survey.store, check, _places(survey, manifest))


def _places(survey: Survey, manifest: RunManifest) -> Iterator[_Place]:
    for path, table in survey.shards.items():
        ledger = survey.ledger.fields[path]
        places: dict[tuple[int, int], dict[int, int]] = {}
        for step in ledger.steps:
            position = step_position(manifest, ledger.spec, step)
            if position is None:
                continue
            shard, at = divmod(position, table.cut.steps)
            for tile in range(ledger.tiles):
                if ledger.has(step, tile):
                    places.setdefault((shard, tile), {})[at] = step
        for (shard, tile), steps in places.items():
            yield _Place(path, shard, tile, steps)


def _check(data: bytes, ledger: FieldLedger, table: ShardTable, place: _Place) -> None:
    stored = table.at(place.shard, place.tile)
    if stored is None:
        raise ValueError("the generation has no shard for tiles that are recorded")
    if len(data) != stored.nbytes or crc32c(data) != stored.crc32c:
        message = f"expected {stored.nbytes} bytes with the generation's CRC32C, got {len(data)}"
        raise ValueError(message)
    spec = ledger.spec
    blocks = np.diff(stored.ends, prepend=0).tolist()
    if not data.endswith(index_of_blocks(blocks, table.cut)):
        raise ValueError("its index has its blocks elsewhere than the generation")
    values = decode_shard(data, spec, table.cut, table.codec, blocks)
    for at, step in place.steps.items():
        entry = ledger.tile(step, place.tile)
        part = values[at, : entry.samples] if entry and spec.sampled else values[at]
        given = np.ascontiguousarray(to_given(part, spec))
        if entry is None or crc32(given.reshape(-1).view(np.uint8).data) != entry.crc32:
            message = f"it holds other values at step {step} than were committed"
            raise ValueError(message)
