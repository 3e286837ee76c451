"""Selections are cut at the borders of blocks, and put together again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.selection import Taken, take
from server.query.plan import Grid, axis_parts, spans
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


@given(st.lists(st.integers(0, 5), max_size=12), st.data(), st.integers(0, 6))
def test_neighbouring_blocks_are_one_range(
    lengths: list[int], data: st.DataObject, gap_bytes: int
) -> None:
    """Each range is a round trip; absent blocks have no bytes."""
    ends = np.cumsum(lengths, dtype=np.int64)
    blocks = sorted(data.draw(st.sets(st.sampled_from(range(len(ends)))))) if lengths else []

    found = spans(blocks, ends, gap_bytes)

    members = [member for span in found for member in span.blocks]
    assert [block for block, _, _ in members] == [block for block in blocks if lengths[block]]
    for block, begin, end in members:
        assert (begin, end) == (ends[block] - lengths[block], ends[block])
    for start, stop, inside in found:
        assert (start, stop) == (inside[0][1], inside[-1][2])
        assert all(one[2] + gap_bytes >= other[1] for one, other in pairwise(inside))
    assert all(one.stop + gap_bytes < other.start for one, other in pairwise(found))


def test_cells_lie_in_tiles_by_sample() -> None:
    """Blocks are numbered through all tiles of a sample axis, and anew in each tile."""
    grid = Grid.of((4, 6), (2, 3), sampled=True)

    plan = grid.plan((range(3, 6), range(2, 4)))

    assert [(part.tile, part.blocks) for part in plan.parts] == [(0, (2, 3)), (1, (0, 1))]
    assert plan.reaches.tolist() == [4, 2]
    assert plan.lengths == (3, 2)
    assert plan.parts[1].cells[0][0].target == (slice(1, 3), slice(0, 1))


def test_several_lists_select_each_its_own_axis() -> None:
    """As in xarray; NumPy alone would pair them up."""
    values = np.arange(24).reshape(2, 3, 4)

    plan = Grid.of((2, 3, 4), (2, 3, 4), sampled=False).plan(((1, 0, 1), range(0, 3, 2), (3, 3)))

    (cell,) = plan.parts[0].cells[0]
    assert values[cell.source].tolist() == values[[1, 0, 1]][:, ::2][:, :, [3, 3]].tolist()


def test_a_selection_of_a_hundred_thousand_blocks_is_planned_without_going_through_them() -> None:
    """So that it can be refused at once where it is too large."""
    plan = Grid.of((1024, 4, 1024, 1024), (1, 1, 32, 1024), sampled=False).plan(
        (range(1024), range(4), range(1024), range(1024))
    )

    assert plan.lengths == (1024, 4, 1024, 1024)
    assert plan.tiles == (0,)
    assert "parts" not in vars(plan)
