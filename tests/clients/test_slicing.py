"""What a key means, against NumPy: no server is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import ArchiveError, ErrorKind, InvalidInputError, NotFoundError
from archive_schema.selection import parse_selector, take, take_steps
from clients.slicing import MOST_LISTED, Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMS = ("step", "sample", "position")


def keys(length: int) -> st.SearchStrategy[Any]:
    """Return what a user may write for an axis of *length* entries."""
    ends = st.none() | st.integers(-length - 2, length + 2)
    strides = st.none() | st.integers(-3, 3).filter(bool)
    slices = st.builds(slice, ends, ends, strides)
    if not length:
        return slices | st.just([])
    within = st.integers(-length, length - 1)
    return st.one_of(within, slices, st.lists(within, max_size=5))


@st.composite
def keyed_arrays(draw: st.DrawFn) -> tuple[NDArray[np.int64], Any, NDArray[np.int64]]:
    """Return an array, a key for it, and what NumPy says of that."""
    shape = tuple(draw(st.integers(0, 6)) for _ in DIMS)
    array = np.arange(np.prod(shape)).reshape(shape)
    key = [draw(keys(length)) for length in shape]
    expected = array
    for axis in reversed(range(3)):  # from behind, because an integer drops its axis
        expected = expected[(slice(None),) * axis + (_numpy(key[axis]),)]
    kept = draw(st.integers(0, 3))
    if all(part == slice(None) for part in key[kept:]):
        return array, tuple(key[:kept]), expected
    return array, tuple(key), expected


def _numpy(pick: Any) -> Any:
    return np.array(pick, int) if isinstance(pick, list) else pick


def answer(selection: Selection, array: NDArray[Any], steps: list[int]) -> NDArray[Any]:
    """Return what a server gives for the parameters of *selection*."""
    for axis in reversed(range(array.ndim)):
        dim, text = selection.params[axis]
        selector = parse_selector(text, dim)
        if dim == "step":
            numbers = take_steps(selector, steps)
            taken: Any = (
                steps.index(numbers)
                if isinstance(numbers, int)
                else [steps.index(number) for number in numbers]
            )
        else:
            taken = take(selector, dim, array.shape[axis])
        where = taken if isinstance(taken, int) else np.array(list(taken), int)
        array = array[(slice(None),) * axis + (where,)]
    return array


@given(keyed_arrays())
def test_on_steps_from_zero_a_key_means_what_numpy_says(
    case: tuple[NDArray[np.int64], Any, NDArray[np.int64]],
) -> None:
    array, key, expected = case
    whole = Selection.whole(DIMS, array.shape, range(array.shape[0]))

    selection = whole.index(key)

    assert selection.shape == expected.shape
    assert np.array_equal(answer(selection, array, list(range(len(array)))), expected)


@given(keyed_arrays(), st.data())
def test_a_selection_of_a_selection_is_one_selection(
    case: tuple[NDArray[np.int64], Any, NDArray[np.int64]], data: st.DataObject
) -> None:
    array, _, _ = case
    first = data.draw(keys(array.shape[1]).filter(lambda key: not isinstance(key, int)))
    once = array[:, _numpy(first)]
    second = data.draw(keys(once.shape[1]))

    selection = Selection.whole(DIMS, array.shape, range(array.shape[0]))
    selection = selection.select({"sample": first}).select({"sample": second})

    expected = once[:, _numpy(second)]
    assert selection.shape == expected.shape
    assert np.array_equal(answer(selection, array, list(range(len(array)))), expected)


@given(st.sets(st.integers(0, 60), min_size=1).map(sorted), keys(70))
def test_steps_are_selected_by_number(steps: list[int], key: Any) -> None:
    """A sparse axis: what a key takes is what the server takes for the same text."""
    whole = Selection.whole(("step",), (len(steps),), steps)
    selector = tuple(key) if isinstance(key, list) else key
    try:
        expected = take_steps(selector, steps)
    except NotFoundError:
        with pytest.raises(NotFoundError):
            whole.index(key)
        return

    selection = whole.index(key)

    assert selection.steps() == ((expected,) if isinstance(expected, int) else expected)
    assert np.array_equal(answer(selection, np.array(steps), steps), np.array(expected, dtype=int))


@given(keyed_arrays(), st.integers(1, 40))
def test_parts_are_small_enough_and_make_up_the_whole(
    case: tuple[NDArray[np.int64], Any, NDArray[np.int64]], most: int
) -> None:
    array, key, expected = case
    selection = Selection.whole(DIMS, array.shape, range(array.shape[0])).index(key)
    found = np.full(expected.shape, -1)

    for part, place in selection.parts(most):
        size = part.size
        assert size is not None
        assert 0 < size <= most
        found[place] = answer(part, array, list(range(len(array))))

    assert np.array_equal(found, expected)


def test_a_long_list_is_cut_before_a_url_is_too_long() -> None:
    steps = [number**2 for number in range(1200)]
    selection = Selection.whole(("step", "sample"), (1200, 3), steps)

    parts = [part for part, _ in selection.parts(10**9)]

    assert [len(part.steps()) for part in parts] == [MOST_LISTED, MOST_LISTED, 200]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (4, "step 4 is not recorded; recorded: 2 steps, 0 to 10"),
        ((0, 9), "sample 9 is outside the axis, which has length 3"),
        ((0, 0, 0), "expected at most 2 selectors, for (step, sample), and one ellipsis; got 3"),
        ((..., 0, ...), "one ellipsis"),
        ("0:8", "step: expected an integer, a slice or a list of integers; got '0:8'"),
        (True, "step: expected an integer"),
        ((0, [True, False, True]), "numpy.flatnonzero(mask)"),
        ((0, slice(None, None, 0)), "sample: a stride is not 0"),
        ((0, 1.5), "sample: expected an integer"),
        ((0, None), "sample: expected an integer"),
        ((0, [[0]]), "sample: expected an integer"),
    ],
)
def test_a_key_that_means_nothing_is_refused(key: Any, said: str) -> None:
    whole = Selection.whole(("step", "sample"), (2, 3), (0, 10))

    with pytest.raises(ArchiveError) as caught:
        whole.index(key)

    assert said in str(caught.value)


def test_a_dimension_that_is_not_there_is_refused() -> None:
    whole = Selection.whole(("step", "sample"), (2, 3), (0, 10))

    with pytest.raises(InvalidInputError, match="no dimension 'samples' here") as caught:
        whole.select({"samples": 1})
    assert caught.value.kind is ErrorKind.UNKNOWN_PARAMETER

    with pytest.raises(InvalidInputError, match="expected one of: step"):
        whole.select({"sample": 1}).select({"sample": 1})


def test_the_server_resolves_axes_that_change_from_step_to_step() -> None:
    ragged = Selection.whole(("step", "plate"), (2, None), (0, 1))

    one = ragged.select({"step": 1, "plate": slice(-2, None)})

    assert one.params == (("step", "1"), ("plate", "-2:"))
    assert one.shape == (None,)
    assert one.size is None
    assert ragged.select({"step": 0, "plate": 3}).shape == ()
    assert ragged.select({"step": 0, "plate": [-1]}).params[1] == ("plate", "-1:")
    with pytest.raises(InvalidInputError, match="plate is already selected"):
        one.select({"plate": 0})
