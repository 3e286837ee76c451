"""Which object of a run is what, told by its key: the inverse of `archive_schema.layout`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from archive_schema.errors import FormatError
from archive_schema.layout import array_path, declared_steps, run_prefix, stored_key, zarr_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from archive_schema.ledger import Ledger, TileEntry
    from archive_schema.models import FieldSpec, RunManifest


_COMMIT: Final = re.compile(r"runs/[^/]+/commits/([^/]+)/([0-9]{6})/(?:claim|([0-9]{8}))\.json")


@dataclass(frozen=True, slots=True)
class TileName:
    """One tile, whether it is recorded or not."""

    path: str
    """Of its field."""
    step: int
    tile: int


@dataclass(frozen=True, slots=True)
class RecordedTile:
    """A tile that the ledger has, and the key of its object."""

    name: TileName
    key: str
    spec: FieldSpec
    entry: TileEntry


class TileNames:
    """The tiles of a run's fields by the keys of their objects."""

    def __init__(self, manifest: RunManifest, fields: Mapping[str, FieldSpec], zarr: str) -> None:
        self._manifest = manifest
        self._fields = fields
        self._zarr = zarr
        self._root = zarr_key(manifest.id, "", zarr)
        self._aside = f"{run_prefix(manifest.id)}/displaced/"
        self._arrays = {array_path(spec): path for path, spec in fields.items() if not spec.ragged}

    def of(self, key: str) -> TileName | None:
        """Return which tile lies at *key*, at home or aside; None if no tile can lie there."""
        inside = key.removeprefix(self._root)
        if key.startswith(self._aside):
            inside = key.removeprefix(self._aside).partition("/")[2].partition("/")[2]
        elif inside == key:
            return None
        array, _, name = inside.rpartition("/")
        path = self._arrays.get(array)
        found = self._ragged(array) if path is None else self._tile(path, name)
        if found is None:
            return None
        try:
            home = stored_key(
                self._manifest, self._fields[found.path], found.step, found.tile, self._zarr
            )
        except FormatError:
            return None
        return found if home == self._root + inside else None

    def _tile(self, path: str, name: str) -> TileName | None:
        spec = self._fields[path]
        parts = name.split(".")
        if parts[0] != "c" or not all(part.isdecimal() for part in parts[1:]):
            return None
        numbers = [int(part) for part in parts[1:]]
        if len(numbers) != len(spec.dims):
            return None
        step = 0
        if spec.place.stepped:
            at = spec.first + numbers.pop(0) * spec.every
            declared = declared_steps(self._manifest)
            if declared is not None and at >= len(declared):
                return None
            step = at if declared is None else declared[at]
        return TileName(path, step, numbers[0] if spec.tile else 0)

    def _ragged(self, array: str) -> TileName | None:
        root, _, rest = array.partition("/")
        path, _, step = rest.rpartition("/")[0].rpartition("/")
        if root != "ragged" or path not in self._fields or not step.isdecimal():
            return None
        return TileName(path, int(step), 0)


def commit_named(key: str) -> tuple[str, int, int | None] | None:
    """Return writer, epoch and number of the commit at *key*, None for the number of a claim.

    None alone if *key* is neither a commit's nor a claim's.
    """
    found = _COMMIT.fullmatch(key)
    if found is None:
        return None
    writer, epoch, number = found.groups()
    return writer, int(epoch), None if number is None else int(number)


def recorded_tiles(manifest: RunManifest, ledger: Ledger, zarr: str) -> Iterator[RecordedTile]:
    """Yield every tile of the ledger."""
    prefix = run_prefix(manifest.id)
    for path, field in ledger.fields.items():
        for step in field.steps:
            for tile in range(field.tiles):
                entry = field.tile(step, tile)
                if entry is None:
                    continue
                key = (
                    f"{prefix}/{entry.aside}"
                    if entry.aside
                    else stored_key(manifest, field.spec, step, tile, zarr)
                )
                yield RecordedTile(TileName(path, step, tile), key, field.spec, entry)
