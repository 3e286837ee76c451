"""Entries of an axis by the values of its coordinates: `K562`, `2,3`, `0.5`, `0.2:0.4`.

Coordinates are matched by what they hold. Text: these texts. Integers and truth values: these,
or a half-open range. Other numbers: the nearest value that is recorded, or a half-open range.
What is NaN or has no value matches nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

Value: TypeAlias = "bool | int | float | str"
Wanted: TypeAlias = "tuple[Value, ...] | slice"
"""One of these values, or what lies in ``[start, stop)``; an end that is None is open."""

_MOST_SHOWN: Final = 20
_MOST_DIGITS: Final = 20
_TRUTH: Final = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}


@dataclass(frozen=True, slots=True)
class Condition:
    """What the value of one coordinate must be."""

    name: str
    dtype: str
    values: Sequence[Value | None]
    """Of the entries that are chosen from; None where an entry has none."""
    wanted: Wanted

    @property
    def nearest(self) -> bool:
        """Whether the nearest values are meant, and not just those."""
        return self.dtype.startswith("float") and not isinstance(self.wanted, slice)

    @property
    def text(self) -> str:
        """The condition as one would write it: ``recycle=2``."""
        if isinstance(self.wanted, slice):
            ends = (
                "" if end is None else str(end) for end in (self.wanted.start, self.wanted.stop)
            )
            return f"{self.name}={':'.join(ends)}"
        return f"{self.name}={','.join(map(str, self.wanted))}"

    def rows(self, among: Sequence[int]) -> list[int]:
        """Return those of the entries *among* that match."""
        wanted = self.wanted
        if isinstance(wanted, slice):
            low, high = wanted.start, wanted.stop
            # What is NaN compares with nothing, also where an end is open.
            return [
                row
                for row in among
                if (value := self.values[row]) is not None
                and value == value  # noqa: PLR0124
                and (low is None or value >= low)
                and (high is None or value < high)
            ]
        if self.nearest:
            there = sorted({v for row in among if (v := self.values[row]) is not None and v == v})  # noqa: PLR0124
            wanted = tuple(_nearest(one, there) for one in wanted) if there else ()
        meant = set(wanted)
        return [row for row in among if self.values[row] in meant]

    def lacking(self) -> Value | None:
        """Return the first value asked for that no entry has; None where each is met."""
        if isinstance(self.wanted, slice) or self.nearest:
            return None
        known = set(self.values)
        return next((one for one in self.wanted if one not in known), None)


def read_wanted(text: str, name: str, dtype: str, values: Sequence[Value | None]) -> Wanted:
    """Read what a text asks of the coordinate *name*.

    A list has commas between its values; names with commas of their own are known by *values*.

    Raises
    ------
    InvalidInputError
        ``invalid-selection``.
    """
    if dtype == "str":
        return _names(text, {value for value in values if isinstance(value, str)})
    if dtype == "bool":
        read: Any = _TRUTH.get
        expected = "true, false or a list of them"
    elif dtype.startswith("float"):
        read = _number
        expected = "a number (0.5), a range of values (0.2:0.4) or a list (0.1,0.5)"
    else:
        read = _integer
        expected = "an integer (2), a range of values (0:8) or a list (0,3)"
    parts = text.split(":")
    if len(parts) == 2 and dtype != "bool":  # noqa: PLR2004  start:stop
        ends = [read(part.strip()) if part.strip() else None for part in parts]
        if all(end is not None or not part.strip() for end, part in zip(ends, parts, strict=True)):
            return slice(*ends)
    found = tuple(read(part.strip()) for part in text.split(","))
    if None in found:
        message = f"{name}={text[:200]!r}: expected {expected}, because {name!r} is {dtype}"
        raise InvalidInputError(ErrorKind.INVALID_SELECTION, message)
    return found


def matching(conditions: Sequence[Condition], axis: str, entries: int) -> list[int]:
    """Return which of the *entries* of an axis meet all *conditions*, rising.

    The nearest value is looked for among the entries that the other conditions leave.

    Raises
    ------
    NotFoundError
        ``nothing-matches``, naming the values there are.
    """
    rows = range(entries)
    left: Sequence[int] = rows
    for condition in conditions:
        lacking = condition.lacking()
        if lacking is not None:
            raise _no_entry(axis, f"{condition.name}={lacking!s}", condition, rows)
        if not condition.nearest:
            here = condition.rows(left)
            if not here:
                raise _no_entry(axis, condition.text, condition, left)
            left = here
    near = [condition for condition in conditions if condition.nearest]
    found = [set(condition.rows(left)) for condition in near]
    result = [row for row in left if all(row in one for one in found)]
    if not result:
        condition = next((one for one, got in zip(near, found, strict=True) if not got), near[-1])
        asked = condition.text if len(near) == 1 else " and ".join(one.text for one in near)
        raise _no_entry(axis, asked, condition, left)
    return result


def _no_entry(axis: str, asked: str, condition: Condition, rows: Sequence[int]) -> NotFoundError:
    some = "" if len(rows) == len(condition.values) else " among those that the rest leaves"
    there = _shown([condition.values[row] for row in rows])
    message = f"no {axis} has {asked[:300]}{some}; values of {condition.name!r} there: {there}"
    return NotFoundError(ErrorKind.NOTHING_MATCHES, message)


def _shown(values: Sequence[Value | None]) -> str:
    known: list[Any] = sorted({v for v in values if v is not None and v == v})  # noqa: PLR0124
    texts = [str(value)[:60] for value in known]
    if not texts:
        return "none"
    if len(texts) <= _MOST_SHOWN:
        return ", ".join(texts)
    half = _MOST_SHOWN // 2
    return f"{', '.join(texts[:half])}, … {', '.join(texts[-half:])} ({len(texts)} values)"


def _nearest(wanted: Any, there: Sequence[Any]) -> Value:
    """Return the value among *there*, which rises, that is nearest; of two the lower."""
    at = bisect_left(there, wanted)
    if at == len(there):
        found: Value = there[-1]
    elif at == 0 or there[at] == wanted or there[at] - wanted < wanted - there[at - 1]:
        found = there[at]
    else:
        found = there[at - 1]
    return found


def _names(text: str, known: set[str]) -> tuple[str, ...]:
    """Cut a text at commas into names, each the longest that is known: names may hold commas."""
    parts = text.split(",")
    longest = 1 + max((name.count(",") for name in known), default=0)
    names: list[str] = []
    at = 0
    while at < len(parts):
        for stop in range(min(at + longest, len(parts)), at, -1):
            name = ",".join(parts[at:stop])
            name = name if name in known else name.strip()
            if name in known or stop == at + 1:
                break
        names.append(name)
        at = stop
    return tuple(names)


def _number(text: str) -> float | None:
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _integer(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    readable = digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS
    return int(text) if readable else None
