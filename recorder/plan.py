"""What recording a run amounts to: bytes and objects a step, and the rate a store must take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive_schema.dtypes import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archive_schema.models import FieldSpec

_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class PlannedField:
    """One field, at a step where it is recorded; all samples of the run together."""

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...] | None
    """Without step; None for a ragged field, whose size nobody knows beforehand."""
    dtype: str
    """As stored."""
    nbytes: int
    """Before compression."""
    objects: int
    every: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the fields that are known so far amount to. ``print(plan)`` shows a table.

    Sizes are before compression: noise does not compress, and much of a trace is noise.
    """

    fields: tuple[PlannedField, ...]
    steps: int | None
    """Steps that the run declares."""
    rate: float | None
    """Bytes a second that the sampler hands over and the store must take, as measured so far
    without the time that the sampler waited for it; None before the second call."""
    max_bytes: int
    waiting: tuple[str, ...] = ()
    """Attached layers that have not run yet: their sizes are not known."""

    @property
    def step_nbytes(self) -> float:
        """Bytes of all samples at an average step."""
        return sum(field.nbytes / field.every for field in self.fields)

    @property
    def step_objects(self) -> float:
        """Objects of all samples at an average step, without commits."""
        return sum(field.objects / field.every for field in self.fields)

    @property
    def run_nbytes(self) -> float | None:
        """Bytes of the whole run; None if it does not declare its steps."""
        return None if self.steps is None else self.steps * self.step_nbytes

    def __str__(self) -> str:
        rows = [("field", "shape", "dtype", "every", "bytes a step", "objects a step")]
        rows += [
            (
                field.path,
                " x ".join(map(str, field.shape)) if field.shape is not None else "ragged",
                field.dtype,
                str(field.every),
                _size(field.nbytes),
                str(field.objects),
            )
            for field in self.fields
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines += [f"layers that have not run yet: {', '.join(self.waiting)}"] * bool(self.waiting)
        lines.append(
            f"an average step: {_size(self.step_nbytes)} in {self.step_objects:.3g} objects,"
            f" before compression"
        )
        if self.run_nbytes is not None:
            lines.append(f"all {self.steps} steps: {_size(self.run_nbytes)}")
        if self.rate is not None:
            lines.append(f"rate needed, as measured so far: {_size(self.rate)}/s")
        lines.append(f"memory for what is under way: {_size(self.max_bytes)}")
        return "\n".join(lines)


def planned_field(path: str, spec: FieldSpec, samples: int) -> PlannedField:
    """Return what one field amounts to in a run of *samples* samples."""
    shape = None if spec.ragged else ((samples,) if spec.tile else ()) + spec.tail
    nbytes = 0 if shape is None else math.prod(shape) * numpy_dtype(spec.stored_dtype).itemsize
    return PlannedField(
        path=path,
        dims=spec.dims[1:],
        shape=shape,
        dtype=spec.stored_dtype,
        nbytes=nbytes,
        objects=-(-samples // spec.tile) if spec.tile else 1,
        every=spec.every,
    )


def planned_fields(known: Iterable[tuple[str, FieldSpec]], samples: int) -> list[PlannedField]:
    """Return what the trace and layer fields amount to, by path."""
    stepped = ((path, spec) for path, spec in known if spec.place.stepped)
    return [planned_field(path, spec, samples) for path, spec in sorted(stepped)]


def _size(nbytes: float) -> str:
    """Write a number of bytes with three digits.

    Examples
    --------
    >>> _size(999), _size(423_000), _size(2 * 1000**4)
    ('999 B', '423 kB', '2 TB')
    """
    scale = min(int(math.log10(nbytes) // 3), len(_UNITS) - 1) if nbytes >= 1 else 0
    return f"{nbytes / 1000**scale:.3g} {_UNITS[scale]}"
