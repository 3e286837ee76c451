"""What is taken of one axis: a user's selector, resolved to numbers.

The step axis is selected by step number, every other axis by position, as the server does.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archive_schema.errors import ErrorKind, InvalidInputError, invalid
from archive_schema.selection import (
    ALL,
    Selector,
    Taken,
    as_range,
    length_of,
    selector_text,
    take,
    take_steps,
)

Pick: TypeAlias = int | slice | Sequence[int] | NDArray[Any]
"""What a user may ask of one axis."""

STEP: Final = "step"
SAMPLE: Final = "sample"


@dataclass(frozen=True, slots=True)
class AxisSelection:
    """What is taken of one axis.

    ``taken`` holds step numbers on the step axis and positions on the others. It is None
    on an axis whose length changes from step to step: there the server resolves *selector*.
    """

    dim: str
    taken: Taken | None
    selector: Selector = field(default_factory=lambda: ALL)

    @classmethod
    def whole(cls, dim: str, length: int | None, steps: Sequence[int]) -> AxisSelection:
        """Return all of an axis; *steps* are the recorded steps, for the step axis."""
        if dim == STEP:
            return cls(dim, tuple(steps))
        return cls(dim, None if length is None else range(length))

    @property
    def kept(self) -> bool:
        """Whether the axis is in the result."""
        return not isinstance(self.selector if self.taken is None else self.taken, int)

    @property
    def length(self) -> int | None:
        """Entries in the result; None where it is not known or the axis is dropped."""
        return None if self.taken is None else length_of(self.taken)

    @property
    def listed(self) -> bool:
        """Whether the entries are so irregular that a request has to list them."""
        return isinstance(self.taken, tuple) and as_range(self.taken) is None

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

    def rows(self, rows: Sequence[int]) -> AxisSelection:
        """Return the entries at *rows* of a kept axis of known length."""
        if self.taken is None or isinstance(self.taken, int):
            raise TypeError(f"{self.dim} has no rows")
        return replace(self, taken=tuple(self.taken[row] for row in rows))

    def part(self, start: int, stop: int) -> AxisSelection:
        """Return the entries ``[start, stop)`` of a kept axis of known length."""
        if self.taken is None or isinstance(self.taken, int):
            raise TypeError(f"{self.dim} cannot be cut")
        return replace(self, taken=self.taken[start:stop])


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
    regular = taken if isinstance(taken, range) else as_range(taken)
    if regular is None:
        return ",".join(map(str, taken))
    if not regular:
        return "0:0"  # an empty range may begin at -1, which would be the last entry
    # A stop of -1 would count from the end of the axis instead of passing its start.
    stop = regular.stop if regular.stop >= 0 else None
    return selector_text(slice(regular.start, stop, None if regular.step == 1 else regular.step))


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
