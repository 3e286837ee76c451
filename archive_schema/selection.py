"""Python-like selectors of one axis: `5`, `-1`, `0:8`, `::10`, `0,3,17`.

Two kinds of axis are selected differently:

- a *positional* axis (sample, position, channel, …) like NumPy selects it;
- the *step* axis by step number: a slice takes the recorded steps whose numbers
  lie in ``range(start, stop, stride)``, and a negative integer counts back from
  the last recorded step.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeAlias

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Selector: TypeAlias = "int | slice | tuple[int, ...]"
"""What a caller asks of one axis, before the axis' length is known."""

Taken: TypeAlias = "int | range | tuple[int, ...]"
"""What is taken of one axis: an `int` drops the axis, the others keep it."""

ALL: Final = slice(None)

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


def parse_selector(text: str, axis: str) -> Selector:
    """Read the selector *text* of *axis*.

    Raises
    ------
    InvalidInputError
        ``invalid-selection`` for anything but an integer, a slice or a list of integers.
    """
    parts = text.strip().split(":")
    if len(parts) == 1:
        items = [_integer(item, text, axis) for item in text.split(",")]
        return items[0] if len(items) == 1 else tuple(items)
    if len(parts) > 3:  # noqa: PLR2004  start:stop:stride
        raise _unreadable(text, axis)
    start, stop, stride = (
        _integer(part, text, axis) if part.strip() else None for part in (*parts, "", "")[:3]
    )
    if stride == 0:
        message = f"{axis}={text!r} has a stride of zero; a stride is 1 or more, or negative"
        raise InvalidInputError(ErrorKind.INVALID_SELECTION, message)
    return slice(start, stop, stride)


def take(selector: Selector, axis: str, length: int) -> Taken:
    """Resolve *selector* on a positional axis of *length* entries.

    Slice ends are clipped, as in NumPy; integers are not.

    Raises
    ------
    InvalidInputError
        ``selection-out-of-bounds`` for an integer outside ``[-length, length)``.
    """
    if isinstance(selector, slice):
        return range(*selector.indices(length))
    if isinstance(selector, tuple):
        return tuple(_position(item, axis, length) for item in selector)
    return _position(selector, axis, length)


def take_steps(selector: Selector, recorded: Sequence[int]) -> int | tuple[int, ...]:
    """Resolve *selector* on the step axis, where *recorded* are the recorded steps, rising.

    Returns
    -------
    int | tuple[int, ...]
        Step numbers; an `int` drops the axis.

    Raises
    ------
    NotFoundError
        ``step-not-recorded`` for an integer that names no recorded step.
    """
    if isinstance(selector, slice):
        numbers = range(*selector.indices(recorded[-1] + 1 if recorded else 0))
        taken = [step for step in recorded if step in numbers]
        return tuple(reversed(taken) if numbers.step < 0 else taken)
    if isinstance(selector, tuple):
        return tuple(_step(item, recorded) for item in selector)
    return _step(selector, recorded)


def length_of(taken: Taken) -> int | None:
    """Return how many entries *taken* keeps; None where it drops the axis."""
    return None if isinstance(taken, int) else len(taken)


def as_range(numbers: Sequence[int]) -> range | None:
    """Return *numbers* as a range, if they are evenly spaced.

    Examples
    --------
    >>> as_range((0, 10, 20)), as_range((3, 0, 1)), as_range((5,))
    (range(0, 21, 10), None, range(5, 6))
    """
    if not numbers:
        return range(0)
    stride = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    regular = range(numbers[0], numbers[-1] + (1 if stride > 0 else -1), stride or 1)
    return regular if tuple(regular) == tuple(numbers) else None


def selector_text(selector: Selector) -> str:
    """Write *selector* so that `parse_selector` reads it back.

    Examples
    --------
    >>> selector_text(slice(0, 8)), selector_text((0, 3)), selector_text(-1)
    ('0:8', '0,3', '-1')
    """
    if isinstance(selector, slice):
        start, stop = ("" if end is None else str(end) for end in (selector.start, selector.stop))
        return f"{start}:{stop}" + ("" if selector.step is None else f":{selector.step}")
    if isinstance(selector, tuple):
        return ",".join(map(str, selector))
    return str(selector)


def axis_of_parameter(name: str, dims: Sequence[str]) -> str | None:
    """Return the dimension that the query parameter *name* selects: its name or its plural.

    Examples
    --------
    >>> axis_of_parameter("samples", ("step", "sample")), axis_of_parameter("q", ("step",))
    ('sample', None)
    """
    by_parameter: Mapping[str, str] = {alias: dim for dim in dims for alias in (dim, plural(dim))}
    return by_parameter.get(name)


def plural(dim: str) -> str:
    """Return the plural under which a dimension is selected.

    Examples
    --------
    >>> plural("sample"), plural("axis"), plural("batch"), plural("category")
    ('samples', 'axes', 'batches', 'categories')
    """
    if dim.endswith("xis"):
        return dim[:-2] + "es"
    if dim.endswith(("s", "x", "ch", "sh")):
        return dim + "es"
    if dim.endswith("y") and dim[-2:-1] not in set("aeiou"):
        return dim[:-1] + "ies"
    return dim + "s"


def _integer(text: str, whole: str, axis: str) -> int:
    stripped = text.strip()
    # int() would also take "1_000" and digits of other scripts.
    if not _INTEGER.fullmatch(stripped):
        raise _unreadable(whole, axis)
    return int(stripped)


def _unreadable(text: str, axis: str) -> InvalidInputError:
    message = (
        f"{axis}={text!r} is no selector; expected an integer (5, -1), a slice (0:8, ::10)"
        " or a list of integers (0,3,17)"
    )
    return InvalidInputError(ErrorKind.INVALID_SELECTION, message)


def _position(item: int, axis: str, length: int) -> int:
    if not -length <= item < length:
        message = f"{axis} {item} is outside the axis, which has length {length}"
        raise InvalidInputError(ErrorKind.SELECTION_OUT_OF_BOUNDS, message)
    return item % length


def _step(item: int, recorded: Sequence[int]) -> int:
    if item < 0:
        if -item <= len(recorded):
            return recorded[item]
    else:
        at = bisect_left(recorded, item)
        if at < len(recorded) and recorded[at] == item:
            return item
    known = f"{len(recorded)} steps, {recorded[0]} to {recorded[-1]}" if recorded else "no step"
    message = f"step {item} is not recorded; recorded: {known}"
    raise NotFoundError(ErrorKind.STEP_NOT_RECORDED, message)
