"""Selections are cut at the borders of blocks, and put together again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.selection import Taken, take
from server.query.plan import Grid, adjacent, axis_parts, pick
from tests.query.strategies import selectors


@given(st.data(), st.integers(0, 40), st.integers(1, 12))
def test_parts_put_together_are_the_selection(
    data: st.DataObject, length: int, extent: int
) -> None:
    """Each part lies in one block, and they follow one another without a gap."""
    taken: Taken = take(data.draw(selectors(length)), "sample", length)
    positions = [taken] if isinstance(taken, int) else list(taken)

    parts = axis_parts(taken, extent)

    found: list[int] = []
    for part in parts:
        assert part.start == len(found)
        found += (part.block * extent + np.arange(extent)[part.source]).tolist()
        assert part.stop == len(found)
        assert part.reach == max(at % extent for at in positions[part.start : part.stop]) + 1
    assert found == positions


@given(st.lists(st.integers(0, 5), max_size=12), st.data())
def test_neighbouring_blocks_are_one_range(lengths: list[int], data: st.DataObject) -> None:
    """Each range is a round trip; absent blocks have no bytes."""
    ends = np.cumsum(lengths).tolist() if lengths else []
    blocks = sorted(data.draw(st.sets(st.sampled_from(range(len(ends)))))) if ends else []

    ranges = adjacent(blocks, ends)

    assert [b for *_, members in ranges for b in members] == [b for b in blocks if lengths[b]]
    for start, stop, members in ranges:
        assert stop - start == sum(lengths[block] for block in members)
        assert start == ends[members[0]] - lengths[members[0]]
    assert all(one[1] < other[0] for one, other in pairwise(ranges))


def test_cells_lie_in_tiles_by_sample() -> None:
    """Blocks are numbered through all tiles of a sample axis, and anew in each tile."""
    grid = Grid.of((4, 6), (2, 3), sampled=True)

    parts = grid.parts((range(3, 6), range(2, 4)))

    assert [(part.tile, part.reach, part.blocks) for part in parts] == [
        (0, 4, (2, 3)), (1, 2, (0, 1)),
    ]  # fmt: skip
    assert parts[1].cells[0].target == (slice(1, 3), slice(0, 1))


def test_several_lists_select_each_its_own_axis() -> None:
    """As in xarray; NumPy alone would pair them up."""
    values = np.arange(24).reshape(2, 3, 4)

    picked = pick(values, (np.array([1, 0, 1]), slice(0, 3, 2), np.array([3, 3])))

    assert picked.tolist() == values[[1, 0, 1]][:, ::2][:, :, [3, 3]].tolist()
