"""Which blocks hold a selection, and where their values go: pure arithmetic on numbers.

1. Along each axis the selection is cut where it enters another block: a `Part`.
2. The product of the axes' parts are the `Cell`s: from one block into one box of the result.
3. Cells are grouped by block, and blocks by tile: a `Plan`. It is the same at every step, and for
   whoever asks for the same samples of another step, so what was planned lately is kept.

On the sample axis blocks are numbered through all tiles; that works because a block
divides a tile evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from archive_schema.layout import blocks_per_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    """What one block gives to a result: ``result[target] = block[source]``."""

    source: tuple[Source, ...]
    target: tuple[slice, ...]
    """Where the values go, along the axes after step."""


class TilePart(NamedTuple):
    """What a selection takes from one tile."""

    tile: int
    blocks: tuple[int, ...]
    """Blocks of the tile that are touched, in C order and by rising number."""
    cells: Mapping[int, Sequence[Cell]]
    """By number of the block."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How a selection along the axes after step is read; shared, and never written to."""

    taken: tuple[Taken, ...]
    """Along each axis after step."""
    lengths: tuple[int, ...]
    """How many entries that are; 1 of an axis that is dropped."""
    tiles: tuple[int, ...]
    """Number of each tile that is touched."""
    reaches: NDArray[np.int64]
    """How many samples each of these tiles must have; 0 without a sample axis."""
    grid: Grid
    axes: tuple[Sequence[Part], ...]
    """How *taken* is cut, axis by axis."""

    @cached_property
    def parts(self) -> tuple[TilePart, ...]:
        """What is taken from each of *tiles*.

        Made when something is read, because there are as many cells as blocks: what is too large
        to be answered is refused for less.
        """
        grid = self.grid
        tiles: dict[int, dict[int, list[Cell]]] = {tile: {} for tile in self.tiles}
        for parts in product(*self.axes):
            number = tile = 0
            for part, stride in zip(parts, grid.strides, strict=True):
                number += part.block * stride
            if grid.blocks_in_tile:
                tile, number = divmod(number, grid.blocks_in_tile * grid.strides[0])
            source = _index([part.source for part in parts], grid.block)
            target = tuple([slice(part.start, part.stop) for part in parts])
            tiles[tile].setdefault(number, []).append(Cell(source, target))
        return tuple([TilePart(tile, tuple(sorted(cells)), cells) for tile, cells in tiles.items()])


@dataclass(frozen=True, eq=False, slots=True)
class Grid:
    """How a tile is cut into blocks."""

    block: tuple[int, ...]
    strides: tuple[int, ...]
    """By how much the number of a block rises along each axis."""
    blocks_in_tile: int
    """Blocks along the sample axis of one tile; 0 without a sample axis."""

    @staticmethod
    @lru_cache(maxsize=512)
    def of(tile_shape: tuple[int, ...], block: tuple[int, ...], *, sampled: bool) -> Grid:
        """Return the grid of tiles of *tile_shape*, whose first axis may be sample."""
        counts = blocks_per_axis(tile_shape, block)
        strides = tuple(math.prod(counts[axis + 1 :]) for axis in range(len(counts)))
        return Grid(block, strides, counts[0] if sampled else 0)

    def plan(self, taken: tuple[Taken, ...]) -> Plan:
        """Return how a selection along the axes after step is read."""
        for one in taken:
            if isinstance(one, tuple):  # a list may be long: it is not kept
                return _plan(self, taken)
        return _kept_plan(self, taken)


def _plan(grid: Grid, taken: tuple[Taken, ...]) -> Plan:
    axes = tuple([axis_parts(one, extent) for one, extent in zip(taken, grid.block, strict=True)])
    reach: dict[int, int] = {}
    if grid.blocks_in_tile:
        for part in axes[0]:
            tile, block = divmod(part.block, grid.blocks_in_tile)
            reach[tile] = max(reach.get(tile, 0), block * grid.block[0] + part.reach)
    else:
        reach[0] = 0
    lengths = tuple([1 if isinstance(one, int) else len(one) for one in taken])
    return Plan(taken, lengths, tuple(reach), np.array(list(reach.values()), np.int64), grid, axes)


_kept_plan = lru_cache(maxsize=512)(_plan)


def _index(source: Sequence[Source], block: Sequence[int]) -> tuple[Source, ...]:
    """Return the index of a block that takes each of *source* along its own axis."""
    if sum(not isinstance(one, slice) for one in source) < 2:  # noqa: PLR2004  NumPy would pair two
        return tuple(source)
    positions = (np.arange(extent)[one] for one, extent in zip(source, block, strict=True))
    return np.ix_(*positions)


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


class Span(NamedTuple):
    """Bytes ``[start, stop)`` of an object, and the blocks in them."""

    start: int
    stop: int
    blocks: list[tuple[int, int, int]]
    """Number of each, and where it begins and ends."""


def spans(blocks: Sequence[int], ends: NDArray[np.int64], gap_bytes: int = 0) -> list[Span]:
    """Return the bytes of rising *blocks*, neighbours in one range.

    Parameters
    ----------
    ends
        Offset at which each block of the tile ends. Blocks that are absent, which end where
        they begin, are left out.
    gap_bytes
        So far apart two blocks may lie and be neighbours.
    """
    if not blocks:
        return []
    # A tile may have thousands of blocks, of which few are touched.
    first = max(blocks[0] - 1, 0)
    known = ends[first : blocks[-1] + 1].tolist()
    found: list[Span] = []
    for block in blocks:
        begin, end = known[block - first - 1] if block else 0, known[block - first]
        if begin == end:
            continue
        if found and begin - found[-1].stop <= gap_bytes:
            start, _, members = found.pop()
            members.append((block, begin, end))
            found.append(Span(start, end, members))
        else:
            found.append(Span(begin, end, [(block, begin, end)]))
    return found


def _list_parts(positions: NDArray[np.intp], extent: int) -> list[Part]:
    if not len(positions):
        return []
    blocks = positions // extent
    cuts = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(positions)]
    return [
        Part(int(blocks[start]), positions[start:stop] % extent, start, stop)
        for start, stop in pairwise(cuts)
    ]
