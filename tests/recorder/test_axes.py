"""Steps and samples: what a call may name, and how samples fall into tiles."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import FieldSpec
from recorder.axes import MAX_UNDECLARED, SampleAxis, StepAxis


def spec(tile: int) -> FieldSpec:
    return FieldSpec(
        name="x", dims=("step", "sample"), tile=tile, block=(tile,), dtype="float32",
        stored_dtype="float32", source_dtype="float32",
    )  # fmt: skip


SPARSE: Final = (3, 10, 999)


def test_a_step_has_a_number_and_a_position() -> None:
    assert StepAxis(5).position(4) == (4, 4)
    assert StepAxis(None).position(np.int16(7)) == (7, 7)
    assert StepAxis(SPARSE).position(999) == (999, 2)


@pytest.mark.parametrize(
    ("axis", "step", "expected"),
    [
        (StepAxis(0), 0, r"\[0, 0\), got 0"),
        (StepAxis(SPARSE), 4, r"one of the run's 3 steps \(3, 10, 999\), got 4"),
        (StepAxis(tuple(range(9))), 9, r"9 steps \(0, 1, 2, 3, 4, …\), got 9"),
        (StepAxis(None), MAX_UNDECLARED, "sparse steps are declared as a list"),
    ],
)
def test_a_step_off_the_axis_is_refused(axis: StepAxis, step: int, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected) as caught:
        axis.position(step)

    assert caught.value.kind is ErrorKind.SELECTION_OUT_OF_BOUNDS


@given(st.integers(1, 9), st.integers(1, 40), st.data())
def test_tiles_cover_a_batch_without_gap(size: int, samples: int, data: st.DataObject) -> None:
    first = data.draw(st.sampled_from(range(0, samples, size)))
    last = data.draw(st.sampled_from([*range(first + size, samples, size), samples]))

    tiles = SampleAxis(samples).tiles(spec(size), first, last)

    assert [start for _, start, _ in tiles] == list(range(first, last, size))
    assert [stop for _, _, stop in tiles] == [*range(first + size, last, size), last]
    assert all(start == tile * size for tile, start, _ in tiles)


def test_a_short_tile_is_the_last_one_of_the_run() -> None:
    axis = SampleAxis(None)
    assert axis.known == 0
    axis.tiles(spec(10), 0, 10)
    axis.tiles(spec(10), 20, 25)
    assert axis.known == 25
    axis.tiles(spec(10), 10, 20)
    axis.tiles(spec(10), 20, 25)

    for start, stop in ((20, 30), (30, 40), (20, 24), (10, 15)):
        with pytest.raises(InvalidInputError, match="ends at 25") as caught:
            axis.tiles(spec(10), start, stop)
        assert caught.value.kind is ErrorKind.TILE_MISALIGNED


def test_nothing_short_comes_before_what_is_there() -> None:
    axis = SampleAxis(None)
    axis.tiles(spec(10), 20, 30)

    with pytest.raises(InvalidInputError, match=r"got \[0, 5\)"):
        axis.tiles(spec(10), 0, 5)
