"""Commits that are lost or damaged, put again at their numbers from what is still there.

A lost commit makes everything after it invisible, because readers stop at the first number that
is not there. What it named is told by the index of a sealed run; of another, by the objects of
tiles that no other commit names: each holds its blocks with their checksums, and an index of
them. Coordinates that only it held are gone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from archive_schema.errors import FormatError, NotFoundError
from archive_schema.hierarchy import shape_of
from archive_schema.layout import array_path, run_prefix, zarr_key
from archive_schema.ledger import TileEntry
from archive_schema.models import Commit, TileColumns
from recorder.maintenance.names import TileName, TileNames
from recorder.maintenance.reading import mapped
from recorder.maintenance.tiles import entry_of, samples_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from archive_schema.models import FieldSpec, RunManifest
    from recorder.maintenance.survey import EpochSurvey, Survey


@dataclass(frozen=True, slots=True)
class FoundTile:
    """A tile that no readable commit names, and what a commit says of it."""

    name: TileName
    spec: FieldSpec
    entry: TileEntry
    epoch: EpochSurvey
    """Whose commit named it, as far as that can be known."""


def rebuilt_commits(survey: Survey, manifest: RunManifest) -> Iterator[Commit]:
    """Yield a commit for each number that is lost, damaged or taken by an end.

    The first of an epoch has all tiles that were found of it; the others are empty.
    """
    broken = [epoch for epoch in survey.epochs.values() if epoch.broken]
    if survey.index is None:
        found = list(_stored_tiles(survey, manifest, broken))
    else:
        found = list(_indexed_tiles(survey, broken))
    for epoch in broken:
        tiles = [tile for tile in found if tile.epoch is epoch]
        for sequence in epoch.broken:
            yield Commit(
                writer=epoch.writer,
                epoch=epoch.epoch,
                sequence=sequence,
                time=datetime.now(UTC),
                tiles=_columns(tiles) if sequence == epoch.broken[0] else (),
            )


def _columns(tiles: Sequence[FoundTile]) -> tuple[TileColumns, ...]:
    by_field: defaultdict[str, list[FoundTile]] = defaultdict(list)
    for tile in tiles:
        by_field[tile.name.path].append(tile)
    return tuple(
        TileColumns(
            field=path,
            step=tuple(one.name.step for one in group),
            tile=tuple(one.name.tile for one in group),
            samples=tuple(one.entry.samples for one in group),
            nbytes=tuple(one.entry.nbytes for one in group),
            aside=tuple(one.entry.aside for one in group),
            crc32c=tuple(one.entry.crc32c for one in group),
            crc32=tuple(one.entry.crc32 for one in group),
            blocks=tuple(tuple(np.diff(one.entry.ends, prepend=0).tolist()) for one in group),
            shape=tuple(one.entry.shape for one in group) if group[0].spec.ragged else None,
            block=tuple(one.entry.block for one in group) if group[0].spec.ragged else None,
        )
        for path, group in by_field.items()
    )


def _indexed_tiles(survey: Survey, broken: Sequence[EpochSurvey]) -> Iterator[FoundTile]:
    """Yield what the index has and no readable commit names."""
    named = {
        (tiles.field, *tile)
        for commit in survey.commits()
        for tiles in commit.tiles
        for tile in zip(tiles.step, tiles.tile, strict=True)
    }
    for path, field in survey.ledger.fields.items():
        for step in field.steps:
            for tile in range(field.tiles):
                entry = field.tile(step, tile)
                if entry is not None and (path, step, tile) not in named and broken:
                    yield FoundTile(TileName(path, step, tile), field.spec, entry, broken[0])


def _stored_tiles(
    survey: Survey, manifest: RunManifest, broken: Sequence[EpochSurvey]
) -> Iterator[FoundTile]:
    """Yield the sound objects that no readable commit names, one a tile."""
    names = TileNames(manifest, survey.fields, survey.zarr)
    candidates: list[tuple[TileName, str, EpochSurvey]] = []
    for one in survey.store.objects(survey.prefix) if broken else ():
        name = names.of(one.key)
        if name is None or _is_named(survey, name):
            continue
        epoch = _epoch_of(survey, one.key, name, broken)
        if epoch is not None:
            candidates.append((name, one.key, epoch))
    # What lies aside was put there because its home was somebody else's leftover.
    candidates.sort(key=lambda one: not _is_aside(survey, one[1]))

    def examine(candidate: tuple[TileName, str, EpochSurvey]) -> FoundTile | None:
        name, key, epoch = candidate
        spec = survey.fields[name.path]
        try:
            entry = _entry(survey, manifest, spec, name, survey.store.read(key))
        except (NotFoundError, FormatError, ValueError, RuntimeError):
            return None
        aside = key.removeprefix(f"{run_prefix(survey.run_id)}/")
        if _is_aside(survey, key):
            entry = replace(entry, aside=aside)
        return FoundTile(name, spec, entry, epoch)

    taken: set[TileName] = set()
    for found in mapped(survey.store, examine, candidates):
        if found is not None and found.name not in taken:
            taken.add(found.name)
            yield found
    yield from _empty_tiles(survey, broken)


def _empty_tiles(survey: Survey, broken: Sequence[EpochSurvey]) -> Iterator[FoundTile]:
    """Yield the tiles of ragged fields that have no values, and so no object but their array."""
    ragged = zarr_key(survey.run_id, "ragged/", survey.zarr)
    for one in survey.store.objects(ragged.removesuffix("/")) if broken else ():
        path, _, end = one.key.removeprefix(ragged).rpartition("/zarr.json")[0].rpartition("/")
        path, _, step = path.rpartition("/")
        spec = survey.fields.get(path)
        if spec is None or not spec.ragged or spec.name != end or not step.isdecimal():
            continue
        name = TileName(path, int(step), 0)
        try:
            shape, block = shape_of(survey.store.read(one.key))
        except (NotFoundError, FormatError):
            continue
        if 0 in shape and not _is_named(survey, name):
            yield FoundTile(name, spec, TileEntry(0, 0, 0, 0, (), shape, block), broken[0])


def _is_named(survey: Survey, name: TileName) -> bool:
    field = survey.ledger.fields.get(name.path)
    return field is not None and field.has(name.step, name.tile)


def _is_aside(survey: Survey, key: str) -> bool:
    return key.startswith(f"{survey.prefix}/displaced/")


def _epoch_of(
    survey: Survey, key: str, name: TileName, broken: Sequence[EpochSurvey]
) -> EpochSurvey | None:
    """Return the epoch of which a lost commit may have named an object."""
    if _is_aside(survey, key):
        writer, epoch = key.removeprefix(f"{survey.prefix}/displaced/").split("/")[:2]
        own = (one for one in broken if (one.writer, f"{one.epoch:06d}") == (writer, epoch))
        return next(own, None)
    start = name.tile * survey.fields[name.path].tile
    for one in broken:
        part = None if one.claim is None else one.claim.samples
        if part is None or part[0] <= start < part[1]:
            return one
    return None


def _entry(
    survey: Survey, manifest: RunManifest, spec: FieldSpec, name: TileName, data: bytes
) -> TileEntry:
    if spec.ragged:
        key = zarr_key(survey.run_id, f"{array_path(spec, name.step)}/zarr.json", survey.zarr)
        shape, block = shape_of(survey.store.read(key))
        return entry_of(data, spec, 0, shape, block)
    samples = 0
    if spec.tile:
        start = name.tile * spec.tile
        declared = manifest.samples is not None
        known = (manifest.samples if declared else survey.ledger.samples) or 0
        samples = min(spec.tile, known - start)
        if not declared and samples < spec.tile:  # it may be the last tile, and short
            samples = samples_in(data, spec, samples)
    return entry_of(data, spec, samples, spec.tile_shape, spec.block)
