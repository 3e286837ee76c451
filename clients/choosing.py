"""Steps and samples chosen by their coordinates: `array.sel(timestep=0.5, class_="goldfish")`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archive_schema.errors import ErrorKind, invalid
from archive_schema.matching import Condition, matching
from clients.axis import SAMPLE, STEP
from clients.coordinates import coordinates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from archive_schema.matching import Value, Wanted
    from clients.exchange import Operation
    from clients.options import Options
    from clients.slices import Source
    from clients.slicing import Selection

Choice: TypeAlias = bool | int | float | str | slice | Sequence[Any] | NDArray[Any]
"""What a user may ask of one coordinate: a value, several, or a range of them."""


def chosen_by(
    source: Source, selection: Selection, choices: Mapping[str, Any], options: Options
) -> Operation[Selection]:
    """Return what *choices* take of *selection*: of dimensions, and of coordinates by value.

    The coordinates are fetched; no values are.

    Raises
    ------
    InvalidInputError
        ``unknown-parameter`` for what is neither; ``invalid-parameter`` for a coordinate of steps
        and samples both, or of an axis that is dropped; ``invalid-selection`` for a value that
        the coordinate cannot have. Otherwise as `Selection.select`.
    NotFoundError
        ``nothing-matches``, naming the values there are.
    """
    dims = {name: pick for name, pick in choices.items() if name in selection.dims}
    selection = selection.select(dims)
    declared = {STEP: source.run.step_coordinates, SAMPLE: source.run.sample_coordinates}
    named: dict[str, dict[str, Any]] = {}
    for given, choice in choices.items():
        if given not in dims:
            axis, name = _coordinate(given, selection.dims, declared)
            named.setdefault(axis, {})[name] = choice
    for axis, asked in named.items():
        taken = next(one.taken for one in selection.axes if one.dim == axis)
        if taken is None or isinstance(taken, int):
            message = f"the {axis} axis changes its length; select one step first"
            raise invalid(ErrorKind.INVALID_SELECTION, message)
        columns = yield from coordinates(source.run, axis, list(taken), options)
        conditions = [
            Condition(name, dtype, _values(columns[name]), wanted_of(choice, name, dtype))
            for name, choice in asked.items()
            for dtype in (declared[axis][name],)
        ]
        selection = selection.rows(axis, matching(conditions, axis, len(taken)))
    return selection


def wanted_of(choice: Any, name: str, dtype: str) -> Wanted:
    """Return what a user asks of the coordinate *name*.

    Raises
    ------
    InvalidInputError
        ``invalid-selection`` for anything but values of *dtype*, and ranges of numbers.
    """
    if isinstance(choice, slice):
        if choice.step is None and dtype not in ("str", "bool"):
            ends = (choice.start, choice.stop)
            return slice(*(None if end is None else _value(end, name, dtype) for end in ends))
        raise _unfit(choice, name, dtype)
    if isinstance(choice, list | tuple | np.ndarray) and np.ndim(choice) == 1 and len(choice):
        return tuple(_value(one, name, dtype) for one in choice)
    return (_value(choice, name, dtype),)


def choice_text(choice: Choice) -> str:
    """Write *choice* as a parameter of a request.

    Examples
    --------
    >>> choice_text(slice(0.2, None)), choice_text(["K562", "HepG2"]), choice_text(True)
    ('0.2:', 'K562,HepG2', 'true')

    Raises
    ------
    InvalidInputError
        ``invalid-selection`` for a range with a stride.
    """
    if isinstance(choice, slice):
        if choice.step is not None:
            message = f"a range of values has no stride; got {choice!r}"
            raise invalid(ErrorKind.INVALID_SELECTION, message)
        return ":".join("" if end is None else str(end) for end in (choice.start, choice.stop))
    if isinstance(choice, list | tuple | np.ndarray):
        return ",".join(choice_text(one) for one in choice)
    return str(choice).lower() if isinstance(choice, bool | np.bool_) else str(choice)


def _coordinate(
    given: str, dims: Sequence[str], declared: Mapping[str, Mapping[str, str]]
) -> tuple[str, str]:
    """Return axis and name of a coordinate; a last ``_`` lets words of Python be names."""
    prefix, _, rest = given.partition(".")
    axes = [prefix] if prefix in declared and rest else list(declared)
    for name in (rest if len(axes) == 1 else given, given.removesuffix("_")):
        found = [axis for axis in axes if name in declared[axis]]
        kept = [axis for axis in found if axis in dims]
        if len(kept) == 1:
            return kept[0], name
        if kept:
            message = f"steps and samples both have a coordinate {name!r}"
            expected = f"expected **{{'step.{name}': …}} or **{{'sample.{name}': …}}"
            raise invalid(ErrorKind.INVALID_PARAMETER, f"{message}; {expected}")
        if found:
            message = f"{name!r} is a coordinate of {found[0]}s, and there is no such axis here"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
    known = [*dims, *(name for axis in declared if axis in dims for name in declared[axis])]
    message = f"no dimension or coordinate {given!r} here; expected one of: {', '.join(known)}"
    raise invalid(ErrorKind.UNKNOWN_PARAMETER, message)


def _values(column: NDArray[Any]) -> list[Value | None]:
    # As the table comes, an entry without a value is NaN, or an empty text.
    return [None if value == "" else value for value in column.tolist()]


def _value(value: Any, name: str, dtype: str) -> Value:
    plain = value.item() if isinstance(value, np.generic) else value
    number = isinstance(plain, int | float) and not isinstance(plain, bool)
    if dtype == "str":
        fits = isinstance(plain, str)
    elif dtype == "bool":
        fits = isinstance(plain, bool)
    elif dtype.startswith("float"):
        fits = number and not math.isnan(plain)
    else:
        fits = number and plain == plain // 1
    if not fits:
        raise _unfit(value, name, dtype)
    found: Value = plain
    return found


def _unfit(choice: Any, name: str, dtype: str) -> Exception:
    expected = {"str": "a text or a list of texts", "bool": "True, False or a list"}.get(
        dtype, "a number, a list of numbers or a slice of values"
    )
    message = f"{name}: expected {expected}, because it is {dtype}; got {choice!r:.200}"
    return invalid(ErrorKind.INVALID_SELECTION, message)
