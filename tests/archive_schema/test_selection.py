"""Selectors mean what NumPy means, and refuse what it cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.selection import (
    axis_of_parameter,
    length_of,
    parse_selector,
    plural,
    selector_text,
    take,
    take_steps,
)

INTEGERS = st.integers(-30, 30)
SLICES = st.builds(
    slice,
    st.none() | INTEGERS,
    st.none() | INTEGERS,
    st.none() | INTEGERS.filter(lambda stride: stride != 0),
)
SELECTORS = SLICES | INTEGERS | st.lists(INTEGERS, min_size=2, max_size=5).map(tuple)


@given(SELECTORS)
def test_a_selector_survives_being_written_and_read(
    selector: int | slice | tuple[int, ...],
) -> None:
    assert parse_selector(selector_text(selector), "sample") == selector


@given(SELECTORS, st.integers(0, 20))
def test_a_positional_axis_is_taken_as_numpy_takes_it(
    selector: int | slice | tuple[int, ...], length: int
) -> None:
    values = np.arange(length)
    index = list(selector) if isinstance(selector, tuple) else selector
    try:
        expected = values[index]
    except IndexError:
        with pytest.raises(InvalidInputError, match=f"has length {length}") as caught:
            take(selector, "sample", length)
        assert caught.value.kind is ErrorKind.SELECTION_OUT_OF_BOUNDS
        return

    taken = take(selector, "sample", length)

    assert np.array_equal(taken, expected)
    assert length_of(taken) == (None if expected.ndim == 0 else len(expected))


@given(SELECTORS, st.sets(st.integers(0, 25), max_size=8).map(sorted))
def test_steps_are_taken_by_their_number(
    selector: int | slice | tuple[int, ...], recorded: list[int]
) -> None:
    """What a slice takes of the whole axis and is recorded; integers must be recorded."""
    if isinstance(selector, slice):
        axis = range(recorded[-1] + 1 if recorded else 0)[selector]
        assert take_steps(selector, recorded) == tuple(n for n in axis if n in recorded)
        return
    items = selector if isinstance(selector, tuple) else (selector,)
    if all(n in recorded if n >= 0 else -n <= len(recorded) for n in items):
        expected = tuple(n if n >= 0 else recorded[n] for n in items)
        taken = take_steps(selector, recorded)
        assert taken == (expected if isinstance(selector, tuple) else expected[0])
    else:
        with pytest.raises(NotFoundError, match="not recorded"):
            take_steps(selector, recorded)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "1.5", "0x10", "1_000", "٣", "1:2:3:4", ":::", "0:8:0", "1,", ",1", "1,,2",
     "1:a", "--1", "9" * 30, "None", "1;2", "0:8,3", "nan"],
)  # fmt: skip
def test_rubbish_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_selector(text, "sample")

    assert caught.value.kind is ErrorKind.INVALID_SELECTION
    assert "sample" in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("dim", "many"),
    [("sample", "samples"), ("axis", "axes"), ("class", "classes"), ("key", "keys")],
)
def test_a_dimension_is_selected_by_its_name_or_plural(dim: str, many: str) -> None:
    assert plural(dim) == many
    assert axis_of_parameter(dim, ("step", dim)) == dim
    assert axis_of_parameter(many, ("step", dim)) == dim
    assert axis_of_parameter("other", ("step", dim)) is None
