"""Overviews and statistics agree with NumPy, however the values come in pieces."""

from __future__ import annotations

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.store import open_store
from server.query import BINS, Archive, downsample, part_edges, statistics
from tests.query.builder import Builder, spec_of
from tests.query.test_reduce import DIMS, NUMBERS, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NUMBERS = count()
SHAPES = st.tuples(*[st.integers(1, 5)] * 3)


class Pieces:
    """A planned slice that comes in pieces of at most so many values."""

    def __init__(self, values: NDArray[Any], most: int) -> None:
        found = recorded(values).select({})
        self.field, self.dims, self.shape = found.field, found.dims, found.shape
        self.dtype, self.recorded = found.dtype, found.recorded
        self._found, self._nbytes = found, most * values.dtype.itemsize

    def boxes(self) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Yield them."""
        return self._found.boxes(self._nbytes)


def mean_of_parts(values: NDArray[Any], axis: int, most: int) -> NDArray[Any]:
    parts = np.array_split(values.astype(np.float64), np.arange(values.shape[axis])[1:], axis)
    edges = part_edges(values.shape[axis], most)
    with np.errstate(all="ignore"):
        means = [
            np.concatenate(parts[a:b], axis).mean(axis, keepdims=True) for a, b in pairwise(edges)
        ]
    return np.concatenate(means, axis)


@given(st.integers(0, 400), st.integers(1, 400))
@settings(max_examples=50)
def test_parts_of_an_axis_are_as_equal_as_can_be(length: int, most: int) -> None:
    edges = part_edges(length, most)

    assert (edges[0], edges[-1], len(edges) - 1) == (0, length, min(length, most))
    lengths = set(np.diff(edges).tolist())
    assert not lengths or max(lengths) - min(lengths) <= 1


@given(
    st.data(),
    st.sampled_from(sorted(NUMBERS)),
    st.dictionaries(st.sampled_from(DIMS), st.integers(1, 4), min_size=1),
    st.integers(1, 40),
)
def test_an_overview_gives_the_means_of_parts(
    data: st.DataObject, dtype: str, most: dict[str, int], piece: int
) -> None:
    values = data.draw(arrays.arrays(dtype, data.draw(SHAPES), elements=NUMBERS[dtype]))
    expected = values
    for dim, parts in most.items():
        expected = mean_of_parts(expected, DIMS.index(dim), parts)

    result = downsample(Pieces(values, piece), most)

    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


@given(
    st.data(),
    st.sampled_from(sorted(NUMBERS)),
    st.lists(st.integers(0, 2), unique=True).map(lambda axes: tuple(sorted(axes))),
    st.integers(1, 40),
)
def test_statistics_are_those_of_the_finite_values(
    data: st.DataObject, dtype: str, axes: tuple[int, ...], piece: int
) -> None:
    values = data.draw(arrays.arrays(dtype, data.draw(SHAPES), elements=NUMBERS[dtype]))
    kept = [n for axis, n in enumerate(values.shape) if axis not in axes]
    # One row for each group, whichever axes it goes over.
    rows = np.moveaxis(values, axes, range(3 - len(axes), 3)).reshape(int(np.prod(kept)), -1)

    found = statistics(Pieces(values, piece), axes)

    assert found.count.shape == tuple(kept)
    assert found.histogram.shape == (*kept, BINS)
    for at, row in enumerate(rows.astype(np.float64)):
        finite = row[np.isfinite(row)]
        one = {
            name: float(getattr(found, name).reshape(-1)[at])
            for name in ("count", "mean", "std", "min", "max", "l2", "zeros", "nonfinite")
        }
        histogram = found.histogram.reshape(-1, BINS)[at]
        assert (one["count"], one["nonfinite"]) == (len(row), len(row) - len(finite))
        assert one["zeros"] == (row == 0).sum()
        assert histogram.sum() == len(finite)
        if not len(finite):
            assert all(np.isnan(one[name]) for name in ("mean", "std", "min", "max", "l2"))
            continue
        # An integer that float64 does not hold is off by its rounding, whose square counts.
        most = 1e-6 * max(1.0, float(np.abs(finite).max()))
        np.testing.assert_allclose(one["mean"], finite.mean(), rtol=1e-9, atol=most)
        np.testing.assert_allclose(one["std"], finite.std(), rtol=1e-9, atol=most)
        np.testing.assert_allclose(
            one["l2"], np.sqrt(np.square(finite).sum()), rtol=1e-9, atol=most
        )
        assert (one["min"], one["max"]) == (finite.min(), finite.max())
        # The extremes lie in the first and the last bin, unless they are the same.
        assert histogram[0]
        assert histogram[-1] or finite.min() == finite.max()


def test_bins_are_those_of_numpy_where_they_are_exact() -> None:
    values = np.array([[np.arange(0, 65) / 4]], np.float32)

    found = statistics(recorded(values).select({}), (0, 1, 2))

    expected, _ = np.histogram(values, BINS)
    np.testing.assert_array_equal(found.histogram, expected)


def test_an_overview_of_many_pieces_is_that_of_one() -> None:
    """Three megabytes are more than one piece."""
    values = np.random.default_rng(0).random((3, 40, 3001))

    result = downsample(recorded(values).select({}), {"sample": 7, "axis0": 256})

    expected = mean_of_parts(mean_of_parts(values, 1, 7), 2, 256)
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_what_has_no_mean_is_refused() -> None:
    run = Builder(open_store(f"memory://overview-{next(_NUMBERS)}"), samples=4)
    numbers = np.ones((2, 3))
    run.declare(spec_of("x", numbers, tile=2), spec_of("name", numbers.astype("U3"), tile=2))
    run.put("trace/x", numbers, 0).put("trace/name", numbers.astype("U3"), 0)
    view = Archive(run.store).run("run")
    half = view.field("x").select({}, missing="mask")
    text = view.field("name").select({"sample": slice(0, 2)})

    for compute in (lambda one: downsample(one, {"axis0": 1}), lambda one: statistics(one, (0,))):
        with pytest.raises(NotFoundError) as absent:
            compute(half)
        assert absent.value.kind is ErrorKind.NOT_RECORDED
        with pytest.raises(InvalidInputError, match="expected numbers"):
            compute(text)
