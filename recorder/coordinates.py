"""Step and sample coordinates: accepted once, kept until a commit holds them."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ConflictError, ErrorKind, invalid
from archive_schema.ledger import Coordinate, sample_columns
from archive_schema.models import SampleColumn, Scalar, StepColumn, check_name, json_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from archive_schema.ledger import Ledger

_INT64: Final = np.iinfo(np.int64)
_PYTHON: Final[tuple[tuple[type[Scalar], str], ...]] = (
    (float, "float64"),
    (bool, "bool"),
    (int, "int64"),
    (str, "str"),
)


def scalar(value: object) -> tuple[str, Scalar] | None:
    """Return the dtype and the value of a Python or NumPy scalar, or None for anything else.

    Examples
    --------
    >>> scalar(0.5), scalar(True), scalar("a"), scalar(np.float32(2)), scalar([1])
    (('float64', 0.5), ('bool', True), ('str', 'a'), ('float32', 2.0), None)
    """
    if isinstance(value, np.generic) and not isinstance(value, str):
        # A longdouble's item is itself: no JSON number holds it.
        plain = value.item()
        return (value.dtype.name, plain) if type(plain) in (bool, int, float) else None
    # Heirs, such as members of an enumeration, count as what they inherit from.
    for kind, dtype in _PYTHON:
        if isinstance(value, kind):
            return dtype, kind(value)
    return None


def check_column(name: str, values: NDArray[Any], count: int | None) -> None:
    """Refuse what are no values of a sample coordinate, one for each of *count* samples.

    Raises
    ------
    InvalidInputError
        ``shape-mismatch``.
    """
    if values.ndim != 1 or values.dtype.kind not in "biufU" or values.dtype == np.longdouble:
        message = (
            f"sample coordinate {name!r}: expected one number or text for each sample,"
            f" got {values.dtype} of shape {values.shape}"
        )
        raise invalid(ErrorKind.SHAPE_MISMATCH, message)
    if count not in (None, len(values)):
        message = f"sample coordinate {name!r}: expected {count} values, got {len(values)}"
        raise invalid(ErrorKind.SHAPE_MISMATCH, message)


class Coordinates:
    """The coordinates of a run, and which of their values are not committed yet.

    Parameters
    ----------
    ledger
        What was recorded before.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._steps = _copied(ledger.step_coordinates)
        self._samples = _copied(ledger.sample_coordinates)
        self._new_steps: defaultdict[str, dict[int, Scalar]] = defaultdict(dict)
        self._new_samples: list[Coordinate] = []
        self._lock = threading.Lock()

    @property
    def names(self) -> set[str]:
        """Return the names of all coordinates."""
        return {*self._steps, *self._samples}

    @property
    def fresh(self) -> bool:
        """Return whether there are values that no commit holds yet."""
        return bool(self._new_steps or self._new_samples)

    def put_step(self, step: int, name: str, dtype: str, value: Scalar) -> bool:
        """Accept the value of a step coordinate; return whether it is new.

        Raises
        ------
        ConflictError
            ``coordinate-differs`` if another value is there.
        """
        with self._lock:
            known = self._steps.get(name)
            if known is None:
                self._check_new(name, "step")
                known = self._steps[name] = Coordinate(name, dtype)
            elif known.dtype == dtype and known.values.get(step) == value:
                return False
            fresh = step not in known.values
            self._put(known, "step", step, dtype, value)
            if fresh:
                self._new_steps[name][step] = value
            return fresh

    def put_samples(self, start: int, name: str, values: np.ndarray[Any, Any]) -> bool:
        """Accept values of a sample coordinate, for samples ``[start, start + len(values))``.

        Returns
        -------
        bool
            Whether any of them is new.

        Raises
        ------
        ConflictError
            ``coordinate-differs`` if another value is there.
        """
        dtype = "str" if values.dtype.kind == "U" else values.dtype.name
        with self._lock:
            known = self._samples.get(name)
            if known is None:
                self._check_new(name, "sample")
                known = self._samples[name] = Coordinate(name, dtype)
            new = Coordinate(name, dtype)
            for sample, value in enumerate(values.tolist(), start):
                fresh = sample not in known.values
                self._put(known, "sample", sample, dtype, value)
                if fresh:
                    new.values[sample] = value
            if new.values:
                self._new_samples.append(new)
            return bool(new.values)

    def restore(self, steps: Iterable[StepColumn], samples: Iterable[SampleColumn]) -> None:
        """Accept what an earlier process accepted and did not commit; errors as `put_step`."""
        for column in steps:
            for step, value in zip(column.step, column.value, strict=True):
                self.put_step(step, column.name, column.dtype, _parsed(value, column.dtype))
        for part in samples:
            values = np.array([_parsed(value, part.dtype) for value in part.value])
            dtype = np.dtype(np.str_) if part.dtype == "str" else np.dtype(part.dtype)
            self.put_samples(part.start, part.name, values.astype(dtype))

    def around(
        self, step: int | None, samples: range
    ) -> tuple[tuple[StepColumn, ...], tuple[SampleColumn, ...]]:
        """Return what is known of a step and of some samples, committed or not."""
        with self._lock:
            steps = tuple(
                StepColumn(
                    name=known.name,
                    dtype=known.dtype,
                    step=(step,),
                    value=(json_value(known.values[step]),),
                )
                for known in self._steps.values()
                if step is not None and step in known.values
            )
            parts = [
                Coordinate(
                    known.name,
                    known.dtype,
                    {at: known.values[at] for at in samples if at in known.values},
                )
                for known in self._samples.values()
            ]
        return steps, tuple(column for part in parts for column in sample_columns(part))

    def take(self) -> tuple[tuple[StepColumn, ...], tuple[SampleColumn, ...]]:
        """Return the values that no commit holds yet, and take them for committed."""
        with self._lock:
            steps, self._new_steps = self._new_steps, defaultdict(dict)
            samples, self._new_samples = self._new_samples, []
        return (
            tuple(
                StepColumn(
                    name=name,
                    dtype=self._steps[name].dtype,
                    step=tuple(values),
                    value=tuple(json_value(value) for value in values.values()),
                )
                for name, values in steps.items()
            ),
            tuple(column for new in samples for column in sample_columns(new)),
        )

    def _check_new(self, name: str, axis: str) -> None:
        check_name(name)
        other = self._samples if axis == "step" else self._steps
        if name in other:
            taken = "sample" if axis == "step" else "step"
            message = f"{name!r} is a {taken} coordinate already, got a {axis} coordinate"
            raise invalid(ErrorKind.INVALID_NAME, message)

    def _put(self, known: Coordinate, axis: str, at: int, dtype: str, value: Scalar) -> None:
        # An integer that no int64 holds would turn the whole coordinate into floats.
        if dtype == "int64" and not _INT64.min <= value <= _INT64.max:  # type: ignore[operator]
            message = f"coordinate {known.name!r}: expected a 64-bit integer, got {value}"
            raise invalid(ErrorKind.VALUE_OUT_OF_RANGE, message)
        if not known.put(dtype, at, value):
            had = known.values.get(at, f"{known.dtype} values")
            message = (
                f"coordinate {known.name!r} at {axis} {at}: expected {had!r}, as recorded before;"
                f" got {value!r}"
            )
            raise ConflictError(ErrorKind.COORDINATE_DIFFERS, message)


def _parsed(value: Any, dtype: str) -> Scalar:
    """Return a value as it was before it became JSON: non-finite floats come as text."""
    scalar: Scalar = float(value) if dtype.startswith("float") else value
    return scalar


def _copied(coordinates: Mapping[str, Coordinate]) -> dict[str, Coordinate]:
    return {c.name: Coordinate(c.name, c.dtype, dict(c.values)) for c in coordinates.values()}
