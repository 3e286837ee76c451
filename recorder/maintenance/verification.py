"""Read a whole run back and hold it against its commits; no damage keeps the rest unchecked.

1. Every document is read; one that is lost or damaged is a finding, and what others say of it
   stands in for it.
2. Every tile that a commit names is read: its length, its CRC32C, the shard index, each block's
   checksum, and the CRC-32 of its values, which alone tells one tile from another.
3. The Zarr documents, coordinates and masks must say what the records of the run say.
4. Whatever else lies in the run is an orphan: harmless, and listed, but where a commit is lost:
   what looks like an orphan then may be what it named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.errors import FormatError, NotFoundError
from archive_schema.layout import (
    field_key,
    heartbeat_key,
    manifest_key,
    run_prefix,
    seal_key,
    sealing_key,
    zarr_key,
)
from recorder.maintenance.findings import Finding, Found, Report
from recorder.maintenance.hierarchy import allowed_paths, check_documents, expected_documents
from recorder.maintenance.names import TileNames, commit_named, recorded_tiles
from recorder.maintenance.reading import mapped, patient, read_twice
from recorder.maintenance.shards import checked_shards, shard_keys
from recorder.maintenance.superseded import is_hierarchy
from recorder.maintenance.survey import Survey
from recorder.maintenance.tiles import check_tile
from recorder.repair_lock import MAINTENANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archive_schema.models import RunManifest
    from archive_schema.store import Store, StoredObject
    from recorder.maintenance.names import RecordedTile


def verify_run(
    store: Store, run_id: str, progress: Callable[[int, int], object] | None = None
) -> Report:
    """Read run *run_id* back and say exactly what is lost, damaged, contradictory or orphaned.

    It may be recorded meanwhile: what its writers have under way is no orphan.

    Parameters
    ----------
    progress : callable of (tiles done, tiles in all), optional

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    FormatError
        ``format-version-unsupported``.
    """
    store = patient(store)
    survey = Survey(store, run_id)
    found = list(survey.found)
    tiles = nbytes = 0
    if survey.manifest is not None:
        total = sum(field.count for field in survey.ledger.fields.values())
        for shard in checked_shards(survey, survey.manifest):
            tiles, nbytes = tiles + shard.tiles, nbytes + shard.nbytes
            found += shard.found
            if progress is not None:
                progress(tiles, total)
        for tile, problem in checked_tiles(survey, survey.manifest):
            tiles, nbytes = tiles + 1, nbytes + tile.entry.nbytes
            if problem is not None:
                found.append(problem)
            if tile.entry.aside:
                detail = f"{tile.name.path}, step {tile.name.step}, tile {tile.name.tile}"
                found.append(Found(Finding.TILE_ASIDE, tile.key, detail, repairable=False))
            if progress is not None:
                progress(tiles, total)
        found += _conflicts(survey)
        if survey.sealed or survey.sealing is None:
            documents = expected_documents(survey, survey.manifest)
            found += check_documents(survey, survey.manifest, documents)
        if survey.index is not None or not survey.broken:
            found += map(_orphan, orphans(survey, survey.manifest)[0])
    return Report(run_id, tiles, nbytes, tuple(found))


def checked_tiles(
    survey: Survey, manifest: RunManifest
) -> Iterator[tuple[RecordedTile, Found | None]]:
    """Read every tile that lies as recorded; yield it with what is wrong with it, if anything."""

    def check(tile: RecordedTile) -> tuple[RecordedTile, Found | None]:
        if not tile.entry.nbytes:
            return tile, None
        try:
            read_twice(survey.store, tile.key, lambda d: check_tile(d, tile.spec, tile.entry))
        except NotFoundError:
            detail = "a commit names it, and it is not there"
            return tile, Found(Finding.TILE_LOST, tile.key, detail)
        except (FormatError, ValueError, RuntimeError) as error:
            return tile, Found(Finding.TILE_DAMAGED, tile.key, str(error))
        return tile, None

    tiles = recorded_tiles(manifest, survey.ledger, survey.zarr)
    alone = (tile for tile in tiles if tile.name.path not in survey.shards)
    yield from mapped(survey.store, check, alone)


def orphans(survey: Survey, manifest: RunManifest) -> tuple[list[StoredObject], Survey]:
    """Return the objects that nothing names and that no live writer has under way, by key.

    Returns
    -------
    objects
    Survey
        What the commits said after the objects were listed.
    """
    allowed = allowed_paths(survey, manifest)
    candidates = list(_unnamed(survey, manifest, allowed))
    if candidates and not survey.sealed:
        survey = Survey(survey.store, survey.run_id)
        allowed |= allowed_paths(survey, manifest)
    names = _Names(survey, manifest, allowed)
    return [
        one for one in candidates if not names.has(one.key) and not _under_way(survey, one)
    ], survey


def _unnamed(survey: Survey, manifest: RunManifest, allowed: set[str]) -> Iterator[StoredObject]:
    names = _Names(survey, manifest, allowed)
    listed = survey.store.objects(survey.prefix)
    yield from sorted((one for one in listed if not names.has(one.key)), key=lambda one: one.key)


def _under_way(survey: Survey, one: StoredObject) -> bool:
    """Return whether a writer that is heard of opened the run before the object was stored."""
    return not survey.sealed and any(
        epoch.claimed_s is None or epoch.claimed_s <= one.modified_s
        for epoch in survey.open_epochs
        if survey.alive(epoch)
    )


def _orphan(one: StoredObject) -> Found:
    detail = f"{one.nbytes} bytes that nothing names"
    return Found(Finding.ORPHAN, one.key, detail, repairable=True)


def _conflicts(survey: Survey) -> Iterator[Found]:
    for text in survey.ledger.conflicts:
        yield Found(Finding.TILE_CONFLICT, run_prefix(survey.run_id), text)


class _Names:
    """Tells which keys of a run mean something."""

    def __init__(self, survey: Survey, manifest: RunManifest, allowed: set[str]) -> None:
        self._survey = survey
        self._prefix = f"{survey.prefix}/"
        self._zarr = zarr_key(survey.run_id, "", survey.zarr)
        self._allowed = allowed
        self._tiles = TileNames(manifest, survey.fields, survey.zarr)
        documents = {manifest_key(survey.run_id), seal_key(survey.run_id)}
        documents |= {sealing_key(survey.run_id), *(one.key for one in survey.found)}
        documents |= {field_key(survey.run_id, path) for path in survey.fields}
        documents |= {heartbeat_key(survey.run_id, writer) for writer in survey.heartbeats}
        if survey.seal is not None:
            documents.add(f"{self._prefix}{survey.seal.index}")
        self._documents = documents | shard_keys(survey, manifest)

    def has(self, key: str) -> bool:
        """Return whether something names the object at *key*, or will once it is repaired."""
        if key.startswith(self._zarr) and key.removeprefix(self._zarr) in self._allowed:
            return True
        inside = key.removeprefix(self._prefix)
        folder = inside.partition("/")[0]
        # Other hierarchies are earlier generations, and later ones that are being written.
        other = is_hierarchy(folder) and folder != self._survey.zarr
        kept = (
            other
            or folder in (MAINTENANCE, "generations")
            or (
                # Of several that were left by who began to seal, one will be named.
                inside.startswith("index-")
                and self._survey.sealing is not None
                and self._survey.seal is None
            )
        )
        return key in self._documents or kept or self._is_commit(key) or self._is_tile(key, inside)

    def _is_commit(self, key: str) -> bool:
        writer, epoch, number = commit_named(key) or ("", 0, None)
        known = self._survey.epochs.get((writer, epoch))
        return known is not None and (number is None or number in known.commits)

    def _is_tile(self, key: str, inside: str) -> bool:
        name = self._tiles.of(key)
        field = None if name is None else self._survey.ledger.fields.get(name.path)
        if name is None or field is None or name.path in self._survey.shards:
            return False
        entry = field.tile(name.step, name.tile)
        return entry is not None and entry.aside == ("" if key.startswith(self._zarr) else inside)
