"""Steps and samples chosen by their coordinates: `recycle=2`, `cell_type=K562`, `timestep=0.5`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.matching import Condition, matching, read_wanted
from archive_schema.selection import ALL, as_range, take, take_steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from archive_schema.ledger import Coordinate
    from archive_schema.selection import Selector
    from server.query.run import RunView

STEP: Final = "step"
SAMPLE: Final = "sample"


def narrowed(
    run: RunView,
    selectors: Mapping[str, Selector],
    named: Mapping[str, str],
    among: Mapping[str, Sequence[int]],
    known: Sequence[str] = (),
) -> dict[str, Selector]:
    """Return *selectors* with those steps and samples left whose coordinates are as *named*.

    Parameters
    ----------
    selectors
        By dimension; what they take is what is chosen from, all where there is none.
    named
        What the values must be, as text, by name of a coordinate: ``recycle``, or
        ``step.recycle`` where samples have one of that name, too.
    among
        Step numbers under ``step``, rising, and samples under ``sample``: of the axes that may
        be chosen from.
    known
        Other names that could have been given, for the message.

    Returns
    -------
    dict of Selector
        An axis that was chosen from is kept, also where one entry is left.

    Raises
    ------
    InvalidInputError
        ``unknown-parameter`` for what is no coordinate of these axes; ``invalid-parameter`` if
        it is one of both, or the axis is dropped by an integer; ``invalid-selection`` for a
        value that the coordinate cannot have.
    NotFoundError
        ``nothing-matches``, naming the values there are.
    """
    coordinates = {STEP: _listed(run, STEP), SAMPLE: _listed(run, SAMPLE)}
    chosen: dict[str, tuple[int, ...]] = {}
    conditions: dict[str, list[Condition]] = {}
    for name, text in named.items():
        axis = _axis_of(run, name, coordinates, among, known)
        if axis not in chosen:
            chosen[axis] = _candidates(selectors.get(axis, ALL), axis, among[axis], name)
        coordinate = coordinates[axis][name.removeprefix(f"{axis}.")]
        values = [coordinate.values.get(at) for at in chosen[axis]]
        wanted = read_wanted(text, name, coordinate.dtype, values)
        conditions.setdefault(axis, []).append(
            Condition(coordinate.name, coordinate.dtype, values, wanted)
        )
    result = dict(selectors)
    for axis, asked in conditions.items():
        rows = matching(asked, axis, len(chosen[axis]))
        numbers = tuple(chosen[axis][row] for row in rows)
        result[axis] = numbers if axis == STEP else _compact(numbers)
    return result


def _listed(run: RunView, axis: str) -> dict[str, Coordinate]:
    # A copy, because another thread may be adding one.
    ledger = run.ledger
    return (ledger.step_coordinates if axis == STEP else ledger.sample_coordinates).copy()


def _axis_of(
    run: RunView,
    name: str,
    coordinates: Mapping[str, Mapping[str, Coordinate]],
    among: Mapping[str, Sequence[int]],
    known: Sequence[str],
) -> str:
    prefix, _, rest = name.partition(".")
    asked = [(prefix, rest)] if prefix in coordinates and rest else [(a, name) for a in coordinates]
    found = [axis for axis, one in asked if one in coordinates[axis]]
    usable = [axis for axis in found if axis in among]
    if len(usable) == 1:
        return usable[0]
    if usable:
        message = (
            f"steps and samples of run {run.manifest.id!r} both have a coordinate {name!r};"
            f" expected step.{name}= or sample.{name}="
        )
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    there = [*known, *(one for axis in among for one in coordinates[axis])]
    why = f", a coordinate of {found[0]}s, which are not chosen from here" if found else ""
    message = f"unknown parameter {name!r}{why}; expected {', '.join(there) or 'none'}"
    raise InvalidInputError(ErrorKind.UNKNOWN_PARAMETER, message)


def _candidates(selector: Selector, axis: str, among: Sequence[int], name: str) -> tuple[int, ...]:
    taken = take_steps(selector, among) if axis == STEP else take(selector, axis, len(among))
    if isinstance(taken, int):
        message = (
            f"{axis}={taken} names one {axis} and drops its axis, so {name}= cannot narrow it;"
            f" expected one of the two, or {axis}s={taken}:{taken + 1}"
        )
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return tuple(taken)


def _compact(numbers: tuple[int, ...]) -> Selector:
    """Return positions as a slice where they are one: a slice is planned and read faster."""
    regular = as_range(numbers)
    if regular is None or regular.step < 0:
        return numbers
    return slice(regular.start, regular.stop, regular.step)
