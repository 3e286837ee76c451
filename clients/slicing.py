"""Which part of a field is meant: NumPy-like keys, resolved against what the client knows.

Everything is resolved here, to numbers that mean the same whenever the server reads them:
``-1`` is the last step of the run as the client saw it, not as it is when the request
arrives. So the shape of an answer is known before it is asked for.

Lists select each their own axis, as `numpy.ix_` does, and never point by point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Final, TypeAlias

from archive_schema.errors import ErrorKind, invalid
from archive_schema.selection import ALL
from clients.axis import STEP, AxisSelection, Pick, selector_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Key: TypeAlias = Pick | EllipsisType | tuple[Pick | EllipsisType, ...]
"""What a user may write between brackets."""

MOST_LISTED: Final = 500
"""Entries of a list in one request, because servers and proxies limit the length of a URL."""


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
                AxisSelection.whole(dim, length, steps)
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

    def rows(self, dim: str, rows: Sequence[int]) -> Selection:
        """Return the entries at *rows* of the kept dimension *dim*."""
        return Selection(tuple(axis.rows(rows) if axis.dim == dim else axis for axis in self.axes))

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
            if axis.listed and (axis.length or 0) > MOST_LISTED:
                return at, MOST_LISTED
        size = self.size
        if size is None or size <= most:
            return None
        for at, axis in enumerate(self.kept):
            length = axis.length or 0
            if length > 1:
                return at, max(1, most * length // size)
        return None
