"""The values of one field as the bytes of a file: little-endian, C order, read lazily.

A byte range becomes boxes of the array: runs of whole entries of the first axis, and where
it begins or ends within a long entry, the same along the next axis.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from archive_schema.errors import ErrorKind, FormatError
from server.exporters.virtual_file import CHUNK_NBYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from archive_schema.selection import Selector
    from server.query.field import FieldView

_SHORT_NBYTES: Final = 32 << 10
"""An entry up to this is read whole, whatever part of it is wanted: blocks are not shorter."""

Positions: TypeAlias = "range | tuple[int, ...]"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is done to values, one by one, on their way into a file."""

    name: str
    """Tells this conversion from others, for digests."""
    dtype: np.dtype[Any]
    apply: Callable[[NDArray[Any]], NDArray[Any]]
    """Takes an array and returns one of *dtype*, shape ``(*shape, *suffix)``."""
    suffix: tuple[int, ...] = ()


def cast_to(dtype: np.dtype[Any]) -> Conversion:
    """Return the conversion that casts to *dtype*; what overflows becomes infinite."""

    def apply(values: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            return values.astype(dtype)

    return Conversion(f"cast {dtype.str}", dtype, apply)


class Values:
    """A box of one field.

    Parameters
    ----------
    steps : int, tuple of int or None
        Step numbers; an integer drops the axis; None for a field without a step axis.
    samples : range, tuple of int or None
        Sample positions; None takes all, or the field has no sample axis.
    conversion
        Applied to what is recorded.

    Raises
    ------
    NotFoundError
        ``not-recorded`` or ``step-not-recorded``, when *digest* or values are asked for.
    """

    def __init__(
        self,
        field: FieldView,
        steps: int | tuple[int, ...] | None,
        samples: Positions | None = None,
        *,
        conversion: Conversion | None = None,
    ) -> None:
        self.field = field
        self._steps = steps
        self._samples = samples if field.spec.sampled else None
        self._conversion = conversion
        self._whole: Values | None = None
        self.dtype = field.dtype if conversion is None else conversion.dtype
        self._kept = self._kept_axes()
        suffix = () if conversion is None else conversion.suffix
        self.shape: tuple[int, ...] = (*(len(taken) for _, taken in self._kept), *suffix)
        self.nbytes = self.dtype.itemsize * math.prod(self.shape)

    def at(self, step: int) -> Values:
        """Return the values at one of the steps; cheap, because a file holds thousands.

        Their digest follows from that of all steps: it says more than it must.
        """
        if self.field.spec.ragged:
            return Values(self.field, step, self._samples, conversion=self._conversion)
        one = copy(self)
        one._narrow(step, self)  # noqa: SLF001  of this class
        return one

    def _narrow(self, step: int, whole: Values) -> None:
        self._steps, self._whole = step, whole
        self._kept, self.shape = self._kept[1:], self.shape[1:]
        self.nbytes = self.dtype.itemsize * math.prod(self.shape)

    @property
    def digest(self) -> str:
        """A strong digest of the values; no data is read for it."""
        return self._digest if self._whole is None else f"{self._whole.digest} {self._steps}"

    @cached_property
    def _digest(self) -> str:
        how = "as recorded" if self._conversion is None else self._conversion.name
        plan = self.field.select(self._selectors({}))
        return blake2b(f"{plan.digest} {how}".encode(), digest_size=16).hexdigest()

    @property
    def grain(self) -> int:
        """Bytes of the largest entry, along any axis, that is within a chunk."""
        entry = self.nbytes
        for length in self.shape:
            if entry <= CHUNK_NBYTES:
                break
            entry //= length
        return entry

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)`` of the array in C order."""
        if self._kept:
            yield from self._cover(0, {}, start, stop)
        elif start < stop:
            yield self.array().tobytes()[start:stop]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return entries ``[start, stop)`` of the first axis.

        Returns
        -------
        NDArray, shape (stop - start, *shape[1:]), dtype *dtype*
        """
        if start >= stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        dim, taken = self._kept[0]
        return self._box({dim: _selector(taken[start:stop])})

    def array(self) -> NDArray[Any]:
        """Return everything; for small fields."""
        return self._box({})

    def whole_tiles(self) -> list[int] | None:
        """Return the tiles that the samples are made of, or None if they are no whole tiles.

        None also where values are converted: what a commit says of tiles does not hold then.
        """
        if self._conversion is not None or self.field.spec.ragged:
            return None
        spec = self.field.spec
        if not spec.sampled:
            return [0]
        samples, limit = self._sample_positions(), self.field.run.samples
        if not isinstance(samples, range) or samples.step != 1:
            return None
        if samples.start % spec.tile or (samples.stop % spec.tile and samples.stop != limit):
            return None
        return list(range(samples.start // spec.tile, -(-samples.stop // spec.tile)))

    @property
    def step_numbers(self) -> tuple[int, ...]:
        """Steps in the array; ``(0,)`` without a step axis, as the ledger counts them."""
        if self._steps is None:
            return (0,)
        return (self._steps,) if isinstance(self._steps, int) else self._steps

    def _kept_axes(self) -> list[tuple[str, Positions]]:
        field, spec = self.field, self.field.spec
        axes: list[tuple[str, Positions]] = []
        if spec.place.stepped and isinstance(self._steps, tuple):
            axes.append(("step", self._steps))
        if spec.sampled:
            axes.append(("sample", self._sample_positions()))
        tail = spec.tail
        if spec.ragged and isinstance(self._steps, tuple):
            return axes  # a shape for each step, of which `at` asks
        if spec.ragged:
            shape = field.ledger.shape_at(self.step_numbers[0])
            if shape is None:
                message = f"field {field.path!r} has no shape at step {self.step_numbers[0]}"
                raise FormatError(ErrorKind.RECORD_DAMAGED, message)
            tail = shape
        axes += zip(spec.dims[len(spec.dims) - len(tail) :], map(range, tail), strict=True)
        return axes

    def _sample_positions(self) -> Positions:
        return range(self.field.run.samples) if self._samples is None else self._samples

    def _cover(self, axis: int, cut: dict[str, Selector], start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)`` of what *cut* leaves, whose first axis is *axis*.

        Whole entries of the axis are read in runs. A long entry of which only a part is
        wanted, or which is above the chunk, is read along the next axis.
        """
        dim, taken = self._kept[axis]
        entry = self.dtype.itemsize * math.prod(self.shape[axis + 1 :])
        deeper = axis + 1 < len(self._kept) and entry > _SHORT_NBYTES
        while start < stop:
            at, skipped = divmod(start, entry)
            end = min(stop, (at + 1) * entry)
            if deeper and (end - start < entry or entry > CHUNK_NBYTES):
                inner = cut | {dim: taken[at]}
                yield from self._cover(axis + 1, inner, skipped, end - at * entry)
                start = end
                continue
            whole = stop // entry if deeper else -(-stop // entry)
            last = min(whole, at + max(1, CHUNK_NBYTES // entry))
            data = self._box(cut | {dim: _selector(taken[at:last])}).tobytes()
            end = min(stop, last * entry)
            # A value above the chunk was decoded at once, and is cut here.
            for begin in range(skipped, end - at * entry, CHUNK_NBYTES):
                yield data[begin : min(begin + CHUNK_NBYTES, end - at * entry)]
            start = end

    def _box(self, cut: dict[str, Selector]) -> NDArray[Any]:
        # Who downloads a run reads all of it once: kept, it would only drive out what others read.
        return self._convert(self.field.select(self._selectors(cut)).array(keep=False))

    def _selectors(self, cut: dict[str, Selector]) -> dict[str, Selector]:
        """Return the selection of the whole box, narrowed by *cut*."""
        whole: dict[str, Selector] = {}
        if self.field.spec.place.stepped and self._steps is not None:
            whole["step"] = self._steps
        if self.field.spec.sampled:
            whole["sample"] = _selector(self._sample_positions())
        return whole | cut

    def _convert(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._conversion is None else self._conversion.apply(values)


def _selector(taken: Positions) -> Selector:
    if isinstance(taken, tuple):
        return taken
    if not taken:
        return slice(0, 0)
    stop = taken.stop if taken.stop >= 0 else None
    return slice(taken.start, stop, taken.step)
