"""Reads a field of a later generation, where many steps lie in one stored object.

The plan is that of `server.query.plan`, with the step axis as one more axis of blocks: a shard
is planned as a tile whose last axis is step. What is fetched and decoded, and how, is the same.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.dtypes import to_given
from archive_schema.layout import field_steps, tile_extent, tile_key
from server.query.fetch import TileRead
from server.query.plan import Grid, pick

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from archive_schema.generations import Shard, ShardTable
    from archive_schema.selection import Taken
    from server.query.field import FieldView


class ShardedField:
    """The shards of a field, as `BlockReader.read` takes them."""

    def __init__(self, field: FieldView, table: ShardTable) -> None:
        self._field = field
        self._table = table
        self.run = field.run
        self.identity = field.identity
        self.spec = field.spec.model_copy(update={"codec": table.codec})
        declared = self.run.manifest.steps
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
        for shard, start, local in self._split(numbers):
            parts = self._grid.parts((*within, local))
            reads = [TileRead(shard, part.tile, part.blocks) for part in parts]
            rows: tuple[Any, ...] = (..., slice(start, start + len(local)))
            steps = out[rows]
            found = self._field.run.archive.reader.read(self, reads)
            for part, decoded in zip(parts, found, strict=True):
                for cell in part.cells:
                    block = decoded.get(cell.block)
                    if block is not None:
                        steps[cell.target] = to_given(pick(block, cell.source), spec)

    def entry(self, shard: int, tile: int) -> Shard | None:
        """Return what is stored at a place, or None if nothing is."""
        return self._table.at(shard, tile)

    def tile_key(self, shard: int, tile: int) -> str:
        """Return the key of a shard's object."""
        return tile_key(self.run.manifest.id, self.spec, shard, tile, self.run.zarr)

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
