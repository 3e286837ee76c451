"""Which blocks hold a selection, and where their values go: pure arithmetic on numbers.

1. Along each axis the selection is cut where it enters another block: a `Part`.
2. The product of the axes' parts are the `Cell`s: from one block into one box of the result.
3. Cells are grouped by tile. They are the same at every step, and for whoever asks for the same
   samples of another step, so what was planned lately is kept.

On the sample axis blocks are numbered through all tiles; that works because a block
divides a tile evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from archive_schema.layout import blocks_per_axis

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from archive_schema.selection import Taken

Source: TypeAlias = "slice | NDArray[np.intp]"


class Part(NamedTuple):
    """The consecutive entries ``[start, stop)`` of a selection that lie in one block."""

    block: int
    source: Source
    """Their positions within the block."""
    start: int
    stop: int

    @property
    def reach(self) -> int:
        """One more than the last position within the block."""
        if isinstance(self.source, slice):
            count = self.stop - self.start
            first: int = self.source.start
            return max(first, first + (count - 1) * (self.source.step or 1)) + 1
        return int(self.source.max()) + 1


class Cell(NamedTuple):
    """What one block gives to a result."""

    block: int
    """Number of the block in its tile, in C order."""
    source: tuple[Source, ...]
    target: tuple[slice, ...]
    """Where the values go, along the axes after step."""


class TilePart(NamedTuple):
    """What a selection takes from one tile."""

    tile: int
    reach: int
    """How many samples the tile must have for that; 0 without a sample axis."""
    blocks: tuple[int, ...]
    """Blocks of the tile that are touched, by rising number."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """How a tile is cut into blocks."""

    block: tuple[int, ...]
    strides: tuple[int, ...]
    """By how much the number of a block rises along each axis."""
    blocks_in_tile: int
    """Blocks along the sample axis of one tile; 0 without a sample axis."""

    @classmethod
    def of(cls, tile_shape: Sequence[int], block: tuple[int, ...], *, sampled: bool) -> Grid:
        """Return the grid of tiles of *tile_shape*, whose first axis may be sample."""
        counts = blocks_per_axis(tile_shape, block)
        strides = tuple(math.prod(counts[axis + 1 :]) for axis in range(len(counts)))
        return cls(block, strides, counts[0] if sampled else 0)

    def parts(self, taken: tuple[Taken, ...]) -> tuple[TilePart, ...]:
        """Return what a selection along the axes after step takes from each tile it touches."""
        if any(isinstance(one, tuple) for one in taken):  # a list may be long: it is not kept
            return _tile_parts(self, taken)
        return _kept_tile_parts(self, taken)


def _tile_parts(grid: Grid, taken: tuple[Taken, ...]) -> tuple[TilePart, ...]:
    axes = [axis_parts(one, extent) for one, extent in zip(taken, grid.block, strict=True)]
    reach: dict[int, int] = {}
    if grid.blocks_in_tile:
        for part in axes[0]:
            tile, block = divmod(part.block, grid.blocks_in_tile)
            reach[tile] = max(reach.get(tile, 0), block * grid.block[0] + part.reach)
    else:
        reach[0] = 0
    cells: dict[int, list[Cell]] = {tile: [] for tile in reach}
    for parts in product(*axes):
        number = tile = 0
        for part, stride in zip(parts, grid.strides, strict=True):
            number += part.block * stride
        if grid.blocks_in_tile:
            tile, number = divmod(number, grid.blocks_in_tile * grid.strides[0])
        source = tuple([part.source for part in parts])
        target = tuple([slice(part.start, part.stop) for part in parts])
        cells[tile].append(Cell(number, source, target))
    return tuple(
        TilePart(tile, reach[tile], tuple(sorted({cell.block for cell in part})), tuple(part))
        for tile, part in cells.items()
    )


_kept_tile_parts = lru_cache(maxsize=512)(_tile_parts)


def axis_parts(taken: Taken, extent: int) -> list[Part]:
    """Cut the selection of one axis at the borders of blocks of *extent* entries.

    Examples
    --------
    >>> [(p.block, p.source, p.start, p.stop) for p in axis_parts(range(3, 9, 2), 5)]
    [(0, slice(3, 4, 2), 0, 1), (1, slice(0, 3, 2), 1, 3)]
    """
    if isinstance(taken, int):
        block, at = divmod(taken, extent)
        return [Part(block, slice(at, at + 1), 0, 1)]
    if isinstance(taken, tuple):
        return _list_parts(np.array(taken, np.intp), extent)
    parts = []
    start, length, stride = 0, len(taken), taken.step
    while start < length:
        block, at = divmod(taken[start], extent)
        room = extent - 1 - at if stride > 0 else at
        count = min(room // abs(stride) + 1, length - start)
        end = at + (count - 1) * stride + (1 if stride > 0 else -1)
        source = slice(at, end if end >= 0 else None, stride)
        parts.append(Part(block, source, start, start + count))
        start += count
    return parts


def adjacent(
    blocks: Iterable[int], ends: Sequence[int], gap_bytes: int = 0
) -> list[tuple[int, int, list[int]]]:
    """Return byte ranges ``[start, stop)`` of rising *blocks*, neighbours in one range.

    Parameters
    ----------
    ends
        Offset at which each block of the tile ends. Blocks that are absent, which end where
        they begin, are left out.
    gap_bytes
        So far apart two blocks may lie and be neighbours.
    """
    ranges: list[tuple[int, int, list[int]]] = []
    for block in blocks:
        start, stop = ends[block - 1] if block else 0, ends[block]
        if start == stop:
            continue
        if ranges and start - ranges[-1][1] <= gap_bytes:
            first, _, members = ranges.pop()
            ranges.append((first, stop, [*members, block]))
        else:
            ranges.append((start, stop, [block]))
    return ranges


def pick(values: NDArray[Any], source: Sequence[Source]) -> NDArray[Any]:
    """Return ``values[source]``, where index arrays select each its own axis."""
    picked = values[tuple(s if isinstance(s, slice) else slice(None) for s in source)]
    for axis, one in enumerate(source):
        if not isinstance(one, slice):
            picked = picked.take(one, axis=axis)
    return picked


def _list_parts(positions: NDArray[np.intp], extent: int) -> list[Part]:
    if not len(positions):
        return []
    blocks = positions // extent
    cuts = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(positions)]
    return [
        Part(int(blocks[start]), positions[start:stop] % extent, start, stop)
        for start, stop in pairwise(cuts)
    ]
