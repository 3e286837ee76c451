"""Which part of a field is meant: NumPy-like keys, resolved against what the client knows.

The step axis is selected by step number, all other axes by position, as the server does.
Everything is resolved here, to numbers that mean the same whenever the server reads them:
``-1`` is the last step of the run as the client saw it, not as it is when the request
arrives. So the shape of an answer is known before it is asked for.

Lists select each their own axis, as `numpy.ix_` does, and never point by point.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import EllipsisType
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archive_schema.errors import ErrorKind, InvalidInputError, invalid
from archive_schema.selection import (
    ALL,
    Selector,
    Taken,
    length_of,
    selector_text,
    take,
    take_steps,
)

Pick: TypeAlias = int | slice | Sequence[int] | NDArray[Any]
"""What a user may ask of one axis."""

Key: TypeAlias = Pick | EllipsisType | tuple[Pick | EllipsisType, ...]
"""What a user may write between brackets."""

STEP: Final = "step"
SAMPLE: Final = "sample"
MOST_LISTED: Final = 500
"""Entries of a list in one request, because servers and proxies limit the length of a URL."""


@dataclass(frozen=True, slots=True)
class AxisSelection:
    """What is taken of one axis.

    ``taken`` holds step numbers on the step axis and positions on the others. It is None
    on an axis whose length changes from step to step: there the server resolves *selector*.
    """

    dim: str
    taken: Taken | None
    selector: Selector = field(default_factory=lambda: ALL)

    @property
    def kept(self) -> bool:
        """Whether the axis is in the result."""
        return not isinstance(self.selector if self.taken is None else self.taken, int)

    @property
    def length(self) -> int | None:
        """Entries in the result; None where it is not known or the axis is dropped."""
        return None if self.taken is None else length_of(self.taken)

    @property
    def text(self) -> str:
        """The selector as a request carries it."""
        return selector_text(self.selector) if self.taken is None else taken_text(self.taken)

    def narrow(self, selector: Selector) -> AxisSelection:
        """Return what *selector* takes of what this takes.

        Raises
        ------
        InvalidInputError
            ``selection-out-of-bounds``, or ``invalid-selection`` where that cannot be told.
        NotFoundError
            ``step-not-recorded``.
        """
        if self.taken is None:
            if self.selector != ALL:
                message = f"{self.dim} is already selected, and its length changes between steps"
                raise invalid(ErrorKind.INVALID_SELECTION, message)
            if isinstance(selector, tuple) and len(selector) == 1:
                # As text a list of one is an integer, which would drop the axis.
                (only,) = selector
                selector = slice(only, only + 1 or None)
            return replace(self, selector=selector)
        if isinstance(self.taken, int):
            raise invalid(ErrorKind.INVALID_SELECTION, f"{self.dim} is already one entry")
        if self.dim == STEP:
            return replace(self, taken=take_steps(selector, sorted(set(self.taken))))
        return replace(self, taken=_among(self.taken, take(selector, self.dim, len(self.taken))))

    def part(self, start: int, stop: int) -> AxisSelection:
        """Return the entries ``[start, stop)`` of a kept axis of known length."""
        if self.taken is None or isinstance(self.taken, int):
            raise TypeError(f"{self.dim} cannot be cut")
        return replace(self, taken=self.taken[start:stop])


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken of a field, axis by axis."""

    axes: tuple[AxisSelection, ...]

    @classmethod
    def whole(
        cls, dims: Sequence[str], shape: Sequence[int | None], steps: Sequence[int]
    ) -> Selection:
        """Return all of a field of *shape*, recorded at *steps*."""
        return cls(
            tuple(
                AxisSelection(dim, tuple(steps) if dim == STEP else _all_of(length))
                for dim, length in zip(dims, shape, strict=True)
            )
        )

    @property
    def kept(self) -> tuple[AxisSelection, ...]:
        """The axes of the result."""
        return tuple(axis for axis in self.axes if axis.kept)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes of the result."""
        return tuple(axis.dim for axis in self.kept)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Lengths of the axes of the result; None where only the server can tell."""
        return tuple(axis.length for axis in self.kept)

    @property
    def size(self) -> int | None:
        """Number of values; None where only the server can tell."""
        lengths = [length for length in self.shape if length is not None]
        return math.prod(lengths) if len(lengths) == len(self.shape) else None

    @property
    def params(self) -> tuple[tuple[str, str], ...]:
        """The selection as parameters of a request."""
        return tuple((axis.dim, axis.text) for axis in self.axes)

    def steps(self) -> tuple[int, ...]:
        """Return the step numbers taken; none for a field without a step axis."""
        for axis in self.axes:
            if axis.dim == STEP and axis.taken is not None:
                return (axis.taken,) if isinstance(axis.taken, int) else tuple(axis.taken)
        return ()

    def select(self, picks: Mapping[str, Pick]) -> Selection:
        """Return what *picks*, by name of a kept dimension, take of this.

        Raises
        ------
        InvalidInputError
            ``unknown-parameter`` for a dimension that the result has not; otherwise as
            `AxisSelection.narrow`.
        """
        for dim in picks:
            if dim not in self.dims:
                known = ", ".join(self.dims) or "none"
                message = f"no dimension {dim!r} here; expected one of: {known}"
                raise invalid(ErrorKind.UNKNOWN_PARAMETER, message)
        return Selection(
            tuple(
                axis.narrow(selector_of(picks[axis.dim], axis.dim)) if axis.dim in picks else axis
                for axis in self.axes
            )
        )

    def index(self, key: Key) -> Selection:
        """Return what *key*, as written between brackets, takes of this; errors as `select`."""
        keys = key if isinstance(key, tuple) else (key,)
        # Not `in` or `count`: comparing an array with ... compares each of its elements.
        ellipses = [at for at, one in enumerate(keys) if isinstance(one, EllipsisType)]
        if len(ellipses) > 1 or len(keys) - len(ellipses) > len(self.dims):
            message = (
                f"expected at most {len(self.dims)} selectors, for ({', '.join(self.dims)}),"
                f" and one ellipsis; got {len(keys)} entries: {key!r}"
            )
            raise invalid(ErrorKind.INVALID_SELECTION, message)
        before = ellipses[0] if ellipses else len(keys)
        after = keys[before + 1 :]
        named = [
            *zip(self.dims, keys[:before], strict=False),
            *zip(self.dims[len(self.dims) - len(after) :], after, strict=True),
        ]
        return self.select({dim: pick for dim, pick in named if not isinstance(pick, EllipsisType)})

    def parts(self, most: int) -> Iterator[tuple[Selection, tuple[slice, ...]]]:
        """Cut this into selections of at most *most* values, in C order; none if it is empty.

        Yields
        ------
        Selection, tuple[slice, ...]
            A part, and where it lies in the result.
        """
        if self.size == 0:
            return
        whole = (ALL,) * len(self.dims)
        at = self._cut(most)
        if at is None:
            yield self, whole
            return
        axis, extent = at
        length, kept = self.kept[axis].length or 0, self.dims[axis]
        for start in range(0, length, extent):
            stop = min(start + extent, length)
            narrowed = Selection(
                tuple(one.part(start, stop) if one.dim == kept else one for one in self.axes)
            )
            for part, place in narrowed.parts(most):
                inner = range(start, stop)[place[axis]]
                yield part, (*place[:axis], slice(inner.start, inner.stop), *place[axis + 1 :])

    def _cut(self, most: int) -> tuple[int, int] | None:
        """Return the axis to cut and into how many entries, or None if this is one request."""
        for at, axis in enumerate(self.kept):
            listed = isinstance(axis.taken, tuple) and _as_range(axis.taken) is None
            if listed and (axis.length or 0) > MOST_LISTED:
                return at, MOST_LISTED
        size = self.size
        if size is None or size <= most:
            return None
        for at, axis in enumerate(self.kept):
            length = axis.length or 0
            if length > 1:
                return at, max(1, most * length // size)
        return None


def selector_of(pick: Pick, dim: str) -> Selector:
    """Return what a user wrote for the axis *dim* as a plain selector.

    Raises
    ------
    InvalidInputError
        ``invalid-selection`` for anything but an integer, a slice or a list of integers.
    """
    if isinstance(pick, slice):
        ends = (_end(pick.start, dim), _end(pick.stop, dim), _end(pick.step, dim))
        if ends[2] == 0:
            raise invalid(ErrorKind.INVALID_SELECTION, f"{dim}: a stride is not 0, got {pick!r}")
        return slice(*ends)
    if isinstance(pick, list | tuple | range | np.ndarray) and np.ndim(pick) == 1:
        return tuple(_integer(one, pick, dim) for one in pick)
    return _integer(pick, pick, dim)


def taken_text(taken: Taken) -> str:
    """Write *taken* as a selector that means exactly these entries.

    Examples
    --------
    >>> taken_text(range(8)), taken_text(range(6, -1, -3)), taken_text(7)
    ('0:8', '6::-3', '7')
    >>> taken_text((0, 10, 20)), taken_text((5,)), taken_text((3, 0, 1))
    ('0:21:10', '5:6', '3,0,1')
    """
    if isinstance(taken, int):
        return str(taken)
    regular = taken if isinstance(taken, range) else _as_range(taken)
    if regular is None:
        return ",".join(map(str, taken))
    if not regular:
        return "0:0"  # an empty range may begin at -1, which would be the last entry
    # A stop of -1 would count from the end of the axis instead of passing its start.
    stop = regular.stop if regular.stop >= 0 else None
    return selector_text(slice(regular.start, stop, None if regular.step == 1 else regular.step))


def _all_of(length: int | None) -> range | None:
    return None if length is None else range(length)


def _as_range(numbers: tuple[int, ...]) -> range | None:
    """Return *numbers* as a range, if they are evenly spaced."""
    if not numbers:
        return range(0)
    stride = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    regular = range(numbers[0], numbers[-1] + (1 if stride > 0 else -1), stride or 1)
    return regular if tuple(regular) == numbers else None


def _among(taken: range | tuple[int, ...], positions: Taken) -> Taken:
    if isinstance(positions, int):
        return taken[positions]
    if isinstance(positions, range) and isinstance(taken, range):
        first = taken.start + positions.start * taken.step
        last = taken.start + positions.stop * taken.step
        return range(first, last, taken.step * positions.step)
    return tuple(taken[at] for at in positions)


def _end(value: Any, dim: str) -> int | None:
    return None if value is None else _integer(value, value, dim)


def _integer(value: Any, whole: Any, dim: str) -> int:
    # True is an integer to Python, and a mask to NumPy; neither is meant by it here.
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            pass
    message = (
        f"{dim}: expected an integer, a slice or a list of integers; got {whole!r}"
        " (for a mask, give numpy.flatnonzero(mask))"
    )
    raise InvalidInputError(ErrorKind.INVALID_SELECTION, message)
