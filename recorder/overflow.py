"""Where tiles go that the store does not take: to the spool, until it does.

The store is *away* once a call ran out of patience (`recorder.patience`). Then tiles and
coordinates go to the spool at once, in order, and are taken back from it when the store is back.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive_schema.errors import (
    AccessError,
    ArchiveError,
    ErrorKind,
    StorageError,
)
from archive_schema.layout import field_path, stored_key
from archive_schema.ledger import ABSENT
from recorder.committer import tile_columns
from recorder.encoder import StoredTile
from recorder.recorded import FieldCoverage
from recorder.spool import Spooled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from archive_schema.models import RunManifest, SampleColumn, StepColumn
    from recorder.coordinates import Coordinates
    from recorder.patience import PatientStore
    from recorder.spool import Entry, Spool

NOT_TAKEN = (StorageError, AccessError)
"""What a store answers, or does not, that has nothing to do with the tile."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a file of the spool holds."""

    entry: Entry
    tile: StoredTile | None
    data: bytes
    steps: tuple[StepColumn, ...]
    samples: tuple[SampleColumn, ...]


class Overflow:
    """The spool of one opening of a run, and the store that it spares.

    Any number of threads may use it.
    """

    def __init__(
        self, spool: Spool, store: PatientStore, manifest: RunManifest, coordinates: Coordinates
    ) -> None:
        self.spool = spool
        self._store = store
        self._manifest = manifest
        self._coordinates = coordinates
        self._tiles: dict[str, StoredTile] = {}
        """What the spool keeps, by key."""

    @property
    def away(self) -> bool:
        """Whether the store is away."""
        return self._store.away

    @property
    def pause_s(self) -> float:
        """Seconds until the store should be asked again; 0 if it is there."""
        return self._store.pause_s

    def probe(self) -> AbstractContextManager[None]:
        """Ask the store again in a block, after which it is back."""
        return self._store.probe()

    def tiles(self) -> list[StoredTile]:
        """Return the tiles that the spool keeps."""
        return list(self._tiles.values())

    def keep(self, tile: StoredTile, data: bytes) -> Entry:
        """Keep a tile, as if taken; errors as `Spool.keep`.

        With it goes what is known of its step and its samples: a tile that is recorded is not
        recorded again, and so neither is what came with it.
        """
        (columns,) = tile_columns([tile])
        start = tile.tile * tile.spec.tile
        steps, samples = self._coordinates.around(
            tile.step if tile.spec.place.stepped else None, range(start, start + tile.samples)
        )
        spooled = Spooled(field=tile.spec, tile=columns, steps=steps, samples=samples)
        entry = self.spool.keep(spooled, data)
        self._tiles[tile.key] = tile
        return entry

    def keep_coordinates(
        self, steps: Sequence[StepColumn], samples: Sequence[SampleColumn]
    ) -> Entry:
        """Keep coordinates, as if taken; errors as `Spool.keep`."""
        return self.spool.keep(Spooled(steps=tuple(steps), samples=tuple(samples)))

    def load(self, entry: Entry) -> Found:
        """Return what a file holds.

        Raises
        ------
        FormatError, NotFoundError
            If it is damaged or lost.
        """
        spooled, data = self.spool.read(entry)
        return Found(entry, self.tile_of(spooled), data, spooled.steps, spooled.samples)

    def forget(self, tile: StoredTile) -> None:
        """Take note that a tile does not wait here any more."""
        self._tiles.pop(tile.key, None)

    def committed(self, entry: Entry, tile: StoredTile | None) -> None:
        """Remove a file whose tile and coordinates the archive has."""
        if tile is not None:
            self.forget(tile)
        self.spool.remove(entry)

    def refuse(self, entry: Entry, tile: StoredTile | None, error: ArchiveError) -> None:
        """Set aside what the archive will never take."""
        if tile is not None:
            self.forget(tile)
        self.spool.refuse(entry, error)

    def adopt(self, entry: Entry, tile: StoredTile) -> None:
        """Let a tile of an earlier process wait for the store, first of all."""
        self._tiles[tile.key] = tile
        self.spool.give_back(entry)

    def added_to(self, fields: dict[str, FieldCoverage]) -> dict[str, FieldCoverage]:
        """Return what is recorded, with the tiles that are kept here."""
        kept: defaultdict[str, list[StoredTile]] = defaultdict(list)
        for tile in self.tiles():
            kept[tile.path].append(tile)
        added = dict(fields)
        for path, tiles in kept.items():
            known = fields.get(path)
            counts = {} if known is None else dict(known.counts)
            for tile in tiles:
                row = list(counts.get(tile.step, ()))
                row += [ABSENT] * (tile.tile + 1 - len(row))
                row[tile.tile] = tile.samples
                counts[tile.step] = tuple(row)
            added[path] = FieldCoverage(tiles[0].spec if known is None else known.spec, counts)
        return added

    def remark(self) -> str:
        """Return what a failure leaves here, as the end of its message."""
        said = ""
        if self.spool.tiles:
            said += f"; {self.where()}"
        if self.spool.refused:
            said += (
                f"; {len(self.spool.refused)} files are set aside in {self.spool.folder}/refused"
            )
        return said

    def where(self) -> str:
        """Return what is kept, for a message, and how it gets into the archive."""
        spool = self.spool
        return (
            f"{spool.tiles} tiles ({spool.nbytes} of {spool.max_bytes} bytes) are kept in the spool"
            f" {spool.folder}; `trace-archive drain {spool.place}` stores them once"
            f" {self._store.url} is there"
        )

    def spooled(self) -> StorageError:
        """Return the error for what is safe here and not in the archive."""
        return StorageError(
            ErrorKind.SPOOLED, f"not everything is in the archive yet: {self.where()}"
        )

    def tile_of(self, spooled: Spooled) -> StoredTile | None:
        """Return the tile that a file describes, or None if it holds coordinates."""
        spec, columns = spooled.field, spooled.tile
        if spec is None or columns is None:
            return None
        step, tile = columns.step[0], columns.tile[0]
        return StoredTile(
            spec=spec,
            path=field_path(*spec.address),
            key=stored_key(self._manifest, spec, step, tile),
            step=step,
            tile=tile,
            samples=columns.samples[0],
            nbytes=columns.nbytes[0],
            crc32c=columns.crc32c[0],
            crc32=columns.crc32[0],
            blocks=columns.blocks[0],
            shape=columns.shape[0] if columns.shape else None,
            block=columns.block[0] if columns.block else None,
        )
