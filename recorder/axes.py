"""The run's step and sample axes: what a call may name of them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, invalid
from recorder.arguments import integer
from recorder.ownership import check_aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive_schema.models import FieldSpec

MAX_UNDECLARED: Final = 2**24
"""Steps or samples of a run that did not declare their number: an index coordinate that long
still fits in memory. Sparse steps beyond are declared as a list."""


class StepAxis:
    """Step numbers, and where they lie among those of the run.

    Parameters
    ----------
    declared
        What `RunManifest.steps` says.
    """

    def __init__(self, declared: int | tuple[int, ...] | None) -> None:
        self._declared = declared
        self._position: dict[int, int] = {}
        if isinstance(declared, tuple):
            self._position = {step: at for at, step in enumerate(declared)}

    def position(self, step: object) -> tuple[int, int]:
        """Return the step number, and its position on the run's axis.

        Raises
        ------
        InvalidInputError
            ``selection-out-of-bounds`` for a step outside the axis.
        """
        number = integer("the step", step)
        at: int | None
        if isinstance(self._declared, tuple):
            at = self._position.get(number)
        else:
            limit = MAX_UNDECLARED if self._declared is None else self._declared
            at = number if 0 <= number < limit else None
        if at is None:
            raise invalid(ErrorKind.SELECTION_OUT_OF_BOUNDS, f"{self._expected()}, got {number}")
        return number, at

    def _expected(self) -> str:
        if isinstance(self._declared, tuple):
            known = self._declared
            shown = ", ".join(map(str, known[:5])) + (", …" if len(known) > 5 else "")  # noqa: PLR2004
            return f"expected one of the run's {len(known)} steps ({shown})"
        if self._declared is None:
            return (
                f"expected a step in [0, {MAX_UNDECLARED}) of a run that declares no steps"
                " (sparse steps are declared as a list)"
            )
        return f"expected a step in [0, {self._declared})"


class SampleAxis:
    """Sample ranges, and where the last one ends.

    Parameters
    ----------
    declared
        What `RunManifest.samples` says.
    owned
        The samples ``[start, stop)`` that this writer owns; None if it may record any.
    """

    def __init__(self, declared: int | None, owned: tuple[int, int] | None = None) -> None:
        self.declared = declared
        self._owned = owned
        self._end: int | None = declared
        """Where the last, short tile ended, once one was seen."""
        self._seen = 0
        self._lock = threading.Lock()

    @property
    def known(self) -> int:
        """Samples of the run: declared, or else seen so far."""
        return self._seen if self.declared is None else self.declared

    def resume(self, spec: FieldSpec, samples: int) -> None:
        """Take note of a field of which samples ``[0, samples)`` were recorded before.

        Raises
        ------
        InvalidInputError
            ``tile-misaligned`` if this writer owns part of a tile.
        """
        self.check_owned(spec.name, spec.tile)
        if spec.tile and samples > self._seen:
            self._seen = samples
            if samples % spec.tile and self._end is None:
                self._end = samples

    def check_owned(self, name: str, tile: int | None) -> None:
        """Refuse a field with such tiles if this writer owns part of one.

        Raises
        ------
        InvalidInputError
            ``tile-misaligned``.
        """
        if self._owned is not None and self.declared is not None and tile:
            check_aligned(self._owned, tile, self.declared, f"field {name!r}")

    @property
    def mark(self) -> tuple[int | None, int]:
        """What is known now, to go `back` to if what comes next is refused."""
        return self._end, self._seen

    def back(self, mark: tuple[int | None, int]) -> None:
        """Forget what was seen since *mark*."""
        self._end, self._seen = mark

    def bounds(self, samples: object) -> tuple[int, int] | None:
        """Return ``[start, stop)`` as a caller gave it, or None for all samples.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` for what is no range of samples, and
            ``selection-out-of-bounds`` for one that the run does not have.
        """
        if samples is None:
            return None
        if not isinstance(samples, slice | range) or samples.step not in (None, 1):
            message = f"expected samples as slice(start, stop), got {samples!r:.100}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        start = integer("the first sample", samples.start or 0)
        stop = integer("the end of the samples", samples.stop)
        limit = MAX_UNDECLARED if self.declared is None else self.declared
        if not 0 <= start < stop <= limit:
            message = f"expected samples [start, stop) within [0, {limit}), got [{start}, {stop})"
            raise invalid(ErrorKind.SELECTION_OUT_OF_BOUNDS, message)
        return start, stop

    def tiles(self, spec: FieldSpec, start: int, stop: int) -> Sequence[tuple[int, int, int]]:
        """Return ``(tile, start, stop)`` of the tiles that make up samples ``[start, stop)``.

        Raises
        ------
        InvalidInputError
            ``tile-misaligned`` unless they are whole tiles, but for the last of the run, and
            unless this writer owns whole tiles; ``selection-out-of-bounds`` for samples that it
            does not own.
        """
        size = spec.tile
        if self._owned is not None:
            if not self._owned[0] <= start < stop <= self._owned[1]:
                message = (
                    f"field {spec.name!r}: expected samples within [{self._owned[0]},"
                    f" {self._owned[1]}), which this writer owns, got [{start}, {stop})"
                )
                raise invalid(ErrorKind.SELECTION_OUT_OF_BOUNDS, message)
            self.check_owned(spec.name, size)
        with self._lock:
            if start % size or not self._may_end(stop, size):
                end = f" (the last of which ends at {self._end})" if self._end else ""
                message = (
                    f"field {spec.name!r}: expected samples that begin and end on its tiles of"
                    f" {size}{end}, got [{start}, {stop}); record batches of one size, or set"
                    " tile= to a size that divides them"
                )
                raise invalid(ErrorKind.TILE_MISALIGNED, message)
            if stop % size:
                self._end = stop
            self._seen = max(self._seen, stop)
        if stop - start <= size:
            return ((start // size, start, stop),)
        return [(at // size, at, min(at + size, stop)) for at in range(start, stop, size)]

    def _may_end(self, stop: int, size: int) -> bool:
        if self._end is not None and stop >= self._end:
            return stop == self._end
        return stop % size == 0 or (self._end is None and stop >= self._seen)
