"""Reductions agree with NumPy in float64; the largest values come in a fixed order."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.store import open_store
from server.query import REDUCTIONS, Archive, Reduction, reduce, top
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.query import FieldView

_NUMBERS = count()
DIMS = ("step", "sample", "axis0")


def recorded(values: NDArray[Any]) -> FieldView:
    """Record *values*, of shape (steps, samples, axis0)."""
    run = Builder(open_store(f"memory://reduce-{next(_NUMBERS)}"))
    run.declare(spec_of("x", values[0], tile=values.shape[1]))
    for step, one in enumerate(values):
        run.put("trace/x", one, step)
    return Archive(run.store).run("run").field("x")


def expected_of(op: Reduction, values: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    wide = values.astype(np.float64)
    with np.errstate(all="ignore"):
        if op == "l2":
            return np.asarray(np.sqrt((wide**2).sum(axis=axes)))
        if op == "entropy":
            part = wide / wide.sum(axis=axes, keepdims=True)
            part[np.broadcast_to((wide < 0).any(axis=axes, keepdims=True), part.shape)] = np.nan
            return np.asarray(-np.where(part == 0, 0, part * np.log(part)).sum(axis=axes))
        if op in ("min", "max"):
            return np.asarray(getattr(np, op)(values, axis=axes))
        return np.asarray(getattr(np, op)(wide, axis=axes))


SPECIAL = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 65504.0])
NUMBERS = {
    "float16": st.floats(0, 1000, width=16) | SPECIAL,
    "float64": st.floats(-1e6, 1e6) | SPECIAL,
    "int64": st.integers(0, 2**62),
    "uint8": st.integers(0, 255),
    "bool": st.booleans(),
}


@settings(max_examples=200, deadline=None)
@given(
    st.data(),
    st.sampled_from(REDUCTIONS),
    st.sampled_from(sorted(NUMBERS)),
    st.lists(st.sampled_from(DIMS), min_size=1, unique=True),
)
def test_a_reduction_gives_what_numpy_gives_in_float64(
    data: st.DataObject, op: Reduction, dtype: str, over: list[str]
) -> None:
    """float16 must not overflow, and NaN and infinity are as in NumPy."""
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    values = data.draw(arrays.arrays(dtype, shape, elements=NUMBERS[dtype]))

    dims, result = reduce(recorded(values).select({}), op, tuple(over))

    expected = expected_of(op, values, tuple(DIMS.index(dim) for dim in over))
    assert dims == tuple(dim for dim in DIMS if dim not in over)
    assert result.dtype == (values.dtype if op in ("min", "max") else np.float64)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-6 if op == "std" else 1e-9)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("over", [("step",), ("sample", "axis0"), DIMS, ()])
def test_a_reduction_over_many_pieces_is_that_over_one(
    op: Reduction, over: tuple[str, ...]
) -> None:
    """Three megabytes are more than one piece."""
    values = np.random.default_rng(0).random((3, 40, 3001)).astype(np.float64) + 1e3
    axes = tuple(DIMS.index(dim) for dim in over or DIMS)

    _, result = reduce(recorded(values).select({}), op, over)

    np.testing.assert_allclose(result, expected_of(op, values, axes), rtol=1e-9)


def test_the_entropy_of_what_is_no_distribution_is_nan() -> None:
    """It is normalised over the axes that are reduced; a negative part has no entropy."""
    values = np.array([[[1, 1, 1, 1], [5, 0, 0, 0], [0, 0, 0, 0], [2, -1, 1, 0]]], np.float32)

    dims, result = reduce(recorded(values).select({"step": 0}), "entropy", ("axis0",))

    assert dims == ("sample",)
    np.testing.assert_allclose(result, [np.log(4), 0, np.nan, np.nan], atol=1e-12)


def test_what_cannot_be_reduced_is_refused() -> None:
    """Of what is absent there is no mean, and of nothing no least."""
    run = Builder(open_store("memory://reduce-refused"), samples=4)
    numbers = np.ones((2, 3))
    run.declare(spec_of("x", numbers, tile=2), spec_of("name", numbers.astype("U3"), tile=2))
    run.put("trace/x", numbers, 0).put("trace/name", numbers.astype("U3"), 0)
    view = Archive(run.store).run("run")
    some = view.field("x").select({"sample": slice(0, 2)})

    with pytest.raises(NotFoundError, match="2 of 4 places are not") as absent:
        reduce(view.field("x").select({}, missing="mask"), "mean")
    assert absent.value.kind is ErrorKind.NOT_RECORDED
    with pytest.raises(InvalidInputError, match="over 'head'; the dimensions of the slice are: st"):
        reduce(some, "mean", ("head",))
    with pytest.raises(InvalidInputError, match="expected a reduction of mean, std"):
        reduce(some, "median")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="expected numbers to reduce"):
        reduce(view.field("name").select({"sample": 0}), "min")
    with pytest.raises(InvalidInputError, match="the max of no values is not defined"):
        reduce(view.field("x").select({"sample": slice(0, 0)}), "max", ("sample",))
    assert reduce(view.field("x").select({"sample": slice(0, 0)}), "sum")[1] == 0
    with pytest.raises(InvalidInputError, match="along two dimensions or more"):
        top(view.field("x").select({"step": 0, "sample": 0}), 3)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 12), st.none() | st.integers(-2, 3))
def test_the_largest_values_come_in_order_of_value_then_position(
    data: st.DataObject, k: int, threshold: int | None
) -> None:
    """Attention is drawn from its largest entries; equal ones must not jump about."""
    elements = st.sampled_from([np.nan, np.inf, -1.0, 0.0, 1.0, 2.0])
    values = data.draw(arrays.arrays("float32", (2, 3, 4), elements=elements))
    turned = slice(None, None, -1)

    one = top(recorded(values).select({"step": 1, "sample": turned}), k, threshold)
    several = top(recorded(values).select({"sample": turned}), k, threshold)

    for found, steps in ((one, [1]), (several, [0, 1])):
        entries = [
            (-float(value), step, 2 - row, row, column)
            for step, row, column in np.ndindex(2, 3, 4)
            if step in steps
            and not np.isnan(value := values[step, row, column])
            and (threshold is None or value >= threshold)
        ]
        largest = sorted(entries, key=lambda entry: (*entry[:3], entry[4]))[:k]
        places = [(step, row, column) for _, step, _, row, column in largest]
        assert list(zip(*(axis.tolist() for axis in found.places), strict=True)) == [
            place[3 - len(found.dims) :] for place in places
        ]
        assert found.values.tolist() == [-value for value, *_ in largest]


def test_the_largest_values_of_many_pieces_are_found() -> None:
    """A map of attention over 3,000 residues is more than one piece."""
    values = np.random.default_rng(1).integers(0, 2000, (1, 300, 3001)).astype(np.float32)

    (rows, columns), found = top(recorded(values).select({"step": 0}), 50)[1:]

    order = np.argsort(-values.reshape(-1), kind="stable")[:50]
    assert (rows * 3001 + columns).tolist() == order.tolist()
    assert found.tolist() == values.reshape(-1)[order].tolist()
