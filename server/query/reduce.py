"""Reductions of a slice over some of its axes, and its largest values.

Values are read piece by piece; only the result is held. Sums are accumulated in float64,
whatever the field's dtype, so that float16 does not overflow. Not-a-number and infinite
values do what they do in NumPy: a NaN makes every result that it enters NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from server.query.field import FieldView
    from server.query.layers import Planned

Reduction: TypeAlias = Literal["mean", "std", "min", "max", "sum", "l2", "entropy"]
REDUCTIONS: Final[tuple[Reduction, ...]] = get_args(Reduction)

_MATRIX: Final = 2


class Reducible(Protocol):
    """What is read in boxes: a planned slice, slices of several layers, or what came of one."""

    @property
    def field(self) -> FieldView:
        """What it is of."""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each of *dims*."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    def boxes(self) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Yield each piece with its place."""

    def recorded(self) -> NDArray[np.bool_]:
        """Return which of it is recorded."""


class Held:
    """What came of a slice, in memory, to be reduced again."""

    def __init__(self, field: FieldView, dims: tuple[str, ...], array: NDArray[Any]) -> None:
        self.field = field
        self.dims = dims
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype

    def boxes(self) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Yield all of it, unless it is empty."""
        if self.array.size:
            yield tuple(slice(0, length) for length in self.shape), self.array

    def recorded(self) -> NDArray[np.bool_]:
        """Return that all of it is."""
        return np.ones(1, bool)


def reduce(
    values: Reducible, op: Reduction, over: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Reduce *values* over the dims *over*; over all its dims if none is named.

    Parameters
    ----------
    op : {"mean", "std", "min", "max", "sum", "l2", "entropy"}
        ``std`` divides by the count; ``l2`` is the root of the sum of squares. ``entropy``
        is that of the values normalised to the sum 1 over *over*, in nats; it is NaN where
        a value is negative or all are zero.

    Returns
    -------
    dims : tuple of str
        Those that are left.
    NDArray
        float64; for ``min`` and ``max`` the field's dtype, because they are exact.

    Raises
    ------
    InvalidInputError
        ``unknown-parameter`` for a dim that the slice has not, ``invalid-parameter`` for
        another operation, for text, and for the least or greatest of nothing.
    NotFoundError
        ``not-recorded`` if part of the slice is not recorded.
    """
    axes = _axes(values, op, over)
    dims = tuple(dim for axis, dim in enumerate(values.dims) if axis not in axes)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(values.shape))
    # Invalid and overflowing operations have a result, inf or NaN, which says enough.
    with np.errstate(all="ignore"):
        if op in ("min", "max"):
            result = _extreme(values, op, axes, shape)
        elif op == "std":
            result = _deviation(values, axes, shape)
        else:
            result = _summed(values, op, axes, shape)
    return dims, result.reshape([n for axis, n in enumerate(shape) if axis not in axes])


class Largest(NamedTuple):
    """The largest values of a slice, largest first."""

    dims: tuple[str, ...]
    """Of the slice; the last two are rows and columns."""
    places: tuple[NDArray[Any], ...]
    """Along each of *dims*: layers by name, step numbers, positions in the field."""
    values: NDArray[Any]
    """Of the field's dtype."""


def top(values: Planned, k: int, threshold: float | None = None) -> Largest:
    """Return the *k* largest values of a matrix, or of several, largest first.

    Of equal values those that come earlier in C order come first. NaN is left out, and so is
    everything below *threshold*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` unless the slice keeps two dims at least and *k* is 1 or more.
    NotFoundError
        ``not-recorded`` if part of the slice is not recorded.
    """
    if len(values.dims) < _MATRIX or k < 1 or values.dtype.kind not in "biuf":
        message = (
            "expected numbers along two dimensions or more and a count of 1 or more;"
            f" got {values.dtype} along {values.dims}, and {k}"
        )
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    check_recorded(values)
    at, best = np.empty(0, np.int64), np.empty(0, values.dtype)
    for place, piece in values.boxes():
        flat = piece.reshape(-1)
        keep = np.ones(len(flat), bool) if threshold is None else flat >= threshold
        chosen = np.flatnonzero(keep & (flat == flat))  # noqa: PLR0124  NaN differs from itself
        # A piece is consecutive values in C order, so where it begins says where each lies.
        first = int(np.ravel_multi_index([one.start for one in place], values.shape))
        at = np.concatenate([at, chosen + first])
        best = np.concatenate([best, flat[chosen]])
        if len(best) > k:
            least = np.partition(best, len(best) - k)[len(best) - k]
            at, best = at[best >= least], best[best >= least]
            # Equal values stay in order of position, which a stable sort of ranks keeps.
            order = _descending(best)[:k]
            order.sort()
            at, best = at[order], best[order]
    order = _descending(best)
    coordinates = values.coordinates()
    indices = np.unravel_index(at[order], values.shape) if len(at) else (at,) * len(values.dims)
    places = tuple(coordinates[dim][i] for dim, i in zip(values.dims, indices, strict=True))
    return Largest(values.dims, places, best[order])


def _axes(values: Reducible, op: str, over: tuple[str, ...]) -> tuple[int, ...]:
    if op not in REDUCTIONS:
        message = f"expected a reduction of {', '.join(REDUCTIONS)}; got {op!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    check_numbers(values)
    for dim in over:
        if dim not in values.dims:
            known = ", ".join(values.dims) or "none"
            message = f"cannot reduce over {dim!r}; the dimensions of the slice are: {known}"
            raise InvalidInputError(ErrorKind.UNKNOWN_PARAMETER, message)
    check_recorded(values)
    axes = tuple(sorted({values.dims.index(dim) for dim in over or values.dims}))
    kept = [n for axis, n in enumerate(values.shape) if axis not in axes]
    if op in ("min", "max") and 0 in values.shape and 0 not in kept:
        message = f"the {op} of no values is not defined; the slice has shape {values.shape}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return axes


def check_numbers(values: Reducible) -> None:
    """Refuse text.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``.
    """
    if values.dtype.kind not in "biuf":
        message = f"expected numbers to reduce; field {values.field.path!r} is {values.dtype}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)


def check_recorded(values: Reducible) -> None:
    """Refuse what is not recorded as a whole: absent is no value.

    Raises
    ------
    NotFoundError
        ``not-recorded``.
    """
    recorded = values.recorded()
    if not recorded.all():
        message = (
            f"cannot reduce field {values.field.path!r} where it is not recorded:"
            f" {recorded.size - int(recorded.sum())} of {recorded.size} places are not"
        )
        raise NotFoundError(ErrorKind.NOT_RECORDED, message)


def within(place: tuple[slice, ...], axes: tuple[int, ...]) -> tuple[slice, ...]:
    """Return where the reduced piece goes, in a result that keeps the axes with length 1."""
    return tuple(slice(0, 1) if axis in axes else one for axis, one in enumerate(place))


def _extreme(
    values: Reducible, op: str, axes: tuple[int, ...], shape: tuple[int, ...]
) -> NDArray[Any]:
    least = op == "min"
    result = np.empty(shape, values.dtype)
    seen = np.zeros(shape, bool)
    for place, piece in values.boxes():
        at = within(place, axes)
        found = (np.min if least else np.max)(piece, axis=axes, keepdims=True)
        other = np.where(seen[at], result[at], found)
        result[at] = (np.minimum if least else np.maximum)(found, other)
        seen[at] = True
    return result


def _deviation(values: Reducible, axes: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[Any]:
    """Merge each piece's mean and squared deviations into those of the pieces before it."""
    count, mean, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for place, piece in values.boxes():
        at = within(place, axes)
        wide = piece.astype(np.float64)
        size = float(np.prod([piece.shape[axis] for axis in axes]))
        middle = wide.mean(axis=axes, keepdims=True)
        total = count[at] + size
        difference = middle - mean[at]
        inside = np.square(wide - middle).sum(axis=axes, keepdims=True)
        squares[at] += inside + difference**2 * count[at] * size / total
        mean[at] += difference * size / total
        count[at] = total
    return np.asarray(np.sqrt(squares / count))


def _summed(
    values: Reducible, op: str, axes: tuple[int, ...], shape: tuple[int, ...]
) -> NDArray[Any]:
    total, weighted = np.zeros(shape), np.zeros(shape)
    for place, piece in values.boxes():
        at = within(place, axes)
        wide = piece.astype(np.float64)
        if op == "l2":
            wide = np.square(wide)
        if op == "entropy":
            logarithms = np.where(wide == 0, 0.0, wide * np.log(wide))
            weighted[at] += logarithms.sum(axis=axes, keepdims=True)
        total[at] += wide.sum(axis=axes, keepdims=True)
    if op == "mean":
        return np.asarray(total / float(np.prod([values.shape[axis] for axis in axes])))
    if op == "l2":
        return np.sqrt(total)
    return np.asarray(np.log(total) - weighted / total) if op == "entropy" else total


def _descending(values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the order from the largest value, equal values as they come."""
    order = np.argsort(values[::-1], kind="stable")[::-1]
    return np.asarray(len(values) - 1 - order)
