"""Reads a field of a later generation, where many steps lie in one stored object.

The plan is that of `server.query.plan`, with the step axis as one more axis of blocks: a shard
is planned as a tile whose last axis is step. What is fetched and decoded, and how, is the same.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.codecs import BlockDecoder
from archive_schema.dtypes import given
from archive_schema.layout import field_steps, tile_extent, tile_keys
from server.query.fetch import TileRead
from server.query.plan import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from archive_schema.generations import Shard, ShardTable
    from archive_schema.selection import Taken
    from server.query.field import FieldView
    from server.query.plan import TilePart


class ShardedField:
    """The shards of a field, as `BlockReader.blocks` takes them."""

    def __init__(self, field: FieldView, table: ShardTable) -> None:
        self._field = field
        self._table = table
        self.run = field.run
        self.identity = field.identity
        self.spec = field.spec
        self.decoder = BlockDecoder(table.codec, field.spec.stored_dtype)
        declared = self.run.manifest.steps
        self._key = tile_keys(self.run.manifest.id, self.spec, self.run.zarr)
        self._positions = (
            {step: at for at, step in enumerate(field_steps(self.spec, declared))}
            if isinstance(declared, tuple)
            else None
        )
        cut = table.cut
        self._grid = Grid.of(cut.shape, cut.block, sampled=field.spec.sampled)

    def read(self, numbers: Sequence[int], within: tuple[Taken, ...], values: NDArray[Any]) -> None:
        """Read steps *numbers* into *values*.

        Parameters
        ----------
        within
            What is taken along the axes after step.
        values : shape (steps, *axes after step), the field's dtype
            What is in no stored block stays as it is.
        """
        spec, out = self._field.spec, np.moveaxis(values, 0, -1)
        reads: list[TileRead] = []
        places: list[tuple[NDArray[Any], TilePart]] = []
        for shard, start, local in self._split(numbers):
            steps = out[..., start : start + len(local)]
            for part in self._grid.plan((*within, local)).parts:
                reads.append(TileRead(shard, part.tile, part.blocks))
                places.append((steps, part))
        reader = self._field.run.archive.reader
        for at, number, block in reader.blocks(self, self._grid.block, reads):
            steps, part = places[at]
            for source, target in part.cells[number]:
                steps[target] = given(block[source], spec)

    def ends(self, shard: int, tile: int) -> NDArray[np.int64] | None:
        """Return where the blocks of a shard end, or None if there is none."""
        return self._table.ends(shard, tile)

    def nbytes(self, shard: int, tile: int) -> int:
        """Return the length of a shard's object; 0 if there is none."""
        found = self._table.at(shard, tile)
        return 0 if found is None else found.nbytes

    def entry(self, shard: int, tile: int) -> Shard | None:
        """Return what is stored at a place, or None if nothing is."""
        return self._table.at(shard, tile)

    def tile_key(self, shard: int, tile: int) -> str:
        """Return the key of a shard's object."""
        return self._key(shard, tile)

    def tile_name(self, shard: int, tile: int) -> str:
        """Say in words which shard is meant."""
        first = shard * self._table.cut.steps
        at = f", step positions {first}:{first + self._table.cut.steps}"
        if self.spec.sampled:
            start, stop = tile_extent(self.spec, tile, self.run.samples)
            at += f", samples {start}:{stop}"
        return f"field {self._field.path!r} of run {self.run.manifest.id!r}{at}"

    def _split(self, numbers: Sequence[int]) -> Iterator[tuple[int, int, range | tuple[int, ...]]]:
        """Yield each shard that *numbers* lead to, where that begins, and the positions in it."""
        steps = self._table.cut.steps
        positions = map(self._position, numbers)
        start = 0
        for shard, group in groupby(positions, lambda at: at // steps):
            local = _compact([at - shard * steps for at in group])
            yield shard, start, local
            start += len(local)

    def _position(self, step: int) -> int:
        """Return where a recorded step lies on the step axis of the array."""
        if self._positions is None:
            return (step - self.spec.first) // self.spec.every
        return self._positions[step]


def _compact(positions: list[int]) -> range | tuple[int, ...]:
    """Return *positions* as a range where they are one, because plans of ranges are kept."""
    first = positions[0]
    stride = positions[1] - first if len(positions) > 1 else 1
    if stride:
        regular = range(first, first + stride * len(positions), stride)
        if list(regular) == positions:
            return regular
    return tuple(positions)
