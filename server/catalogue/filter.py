"""Which runs a page shows, as SQL: pure text, no database.

Pages are cut by the values of the last row and not by counting, so that runs that are added
or removed meanwhile move nothing from one page to another.
"""

from __future__ import annotations

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import RunStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic import JsonValue

SORTS: Final = ("created", "id", "steps", "samples", "bytes")
LARGEST_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What a list of runs is asked for."""

    system: str | None = None
    status: str | None = None
    tag: str | None = None
    q: str | None = None
    """Text that the id, a tag or the metadata contains, in whatever case."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Values by dotted key: ``{"model.name": "deepstarr"}``."""
    sort: str = "-created"
    limit: int = 50
    cursor: str | None = None

    def __post_init__(self) -> None:
        """Refuse what names no order, no status or no page."""
        if self.sort.removeprefix("-") not in SORTS:
            names = ", ".join(f"{name}, -{name}" for name in SORTS)
            raise _invalid("sort", f"one of {names}", self.sort)
        if self.status is not None and self.status not in set(RunStatus):
            raise _invalid("status", f"one of {', '.join(RunStatus)}", self.status)
        if not 1 <= self.limit <= LARGEST_PAGE:
            raise _invalid("limit", f"an integer from 1 to {LARGEST_PAGE}", str(self.limit))

    @property
    def column(self) -> str:
        """The column that orders the rows."""
        return self.sort.removeprefix("-")

    def labels(self) -> list[tuple[str, str, str]]:
        """Return the labels that a run must have: name, value, and the value as a number."""
        labels = [(f"meta.{key}", text) for key, text in self.metadata.items()]
        if self.tag is not None:
            labels.append(("tag", self.tag))
        return [(name, text, _number(text) or text) for name, text in labels]

    def sql(self, rare: Collection[str] = ()) -> tuple[str, list[object]]:
        """Return the statement for one row more than a page holds, and its parameters.

        Columns: the sort column, id, document.

        Parameters
        ----------
        rare
            Names of labels that few runs have: these runs are looked up first. Other labels
            are checked on the way through the order, which is over when the page is full.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` for a cursor that is none, or one of another order.
        """
        falling = self.sort.startswith("-")
        where, parameters = self._conditions(rare)
        if self.cursor is not None:
            where.append(f"({self.column}, id) {'<' if falling else '>'} (?, ?)")
            parameters += read_cursor(self.cursor, self.sort)
        direction = "desc" if falling else "asc"
        # No text of a client gets into the statement: `column` is one of SORTS.
        statement = (
            f"select {self.column}, id,"  # noqa: S608
            # By itself, so that rows that are passed over are read from a narrow index.
            " (select document from runs as found where found.id = runs.id) from runs"
            f" where {' and '.join(where) or '1'}"
            f" order by {self.column} {direction}, id {direction} limit ?"
        )
        return statement, [*parameters, self.limit + 1]

    def _conditions(self, rare: Collection[str]) -> tuple[list[str], list[object]]:
        where: list[str] = []
        parameters: list[object] = []
        for column, value in (("system", self.system), ("status", self.status)):
            if value is not None:
                # The plus keeps SQLite from finding all these runs first and sorting them.
                where.append(f"{column} = ?" if self.column == "created" else f"+{column} = ?")
                parameters.append(value)
        for label in self.labels():
            where.append(
                "id in (select id from labels where name = ? and value in (?, ?))"
                if label[0] in rare
                else "exists (select 1 from labels"
                " where name = ? and value in (?, ?) and labels.id = runs.id)"
            )
            parameters += label
        if self.q:
            where.append("instr(words, ?)")
            parameters.append(self.q.casefold())
        return where, parameters


def write_cursor(sort: str, value: object, run_id: str) -> str:
    """Return the opaque text that continues after this row."""
    return urlsafe_b64encode(orjson.dumps([sort, value, run_id])).decode().rstrip("=")


def read_cursor(cursor: str, sort: str) -> list[object]:
    """Return sort value and id of the row that *cursor* continues after.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        written_for, value, run_id = orjson.loads(urlsafe_b64decode(padded.encode()))
    except (ValueError, Base64Error, TypeError) as error:
        raise _invalid("cursor", "what a page gave as `next`", cursor) from error
    fits = isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 63)
    if written_for != sort or not isinstance(run_id, str) or not fits:
        raise _invalid("cursor", f"a cursor of a list with sort={sort}", cursor)
    return [value, run_id]


def labels_of(tags: tuple[str, ...], metadata: Mapping[str, JsonValue]) -> set[tuple[str, str]]:
    """Return what a run can be found by, as (name, value).

    Examples
    --------
    >>> sorted(labels_of(("a",), {"model": {"layers": 12, "names": ["x"]}}))
    [('meta.model.layers', '12.0'), ('meta.model.names', 'x'), ('tag', 'a')]
    """
    return {("tag", tag) for tag in tags} | set(_flat("meta", metadata))


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(name, inner)
    elif isinstance(value, str):
        yield name, value
    else:
        text = orjson.dumps(value).decode()
        yield name, _number(text) or text


def _number(text: str) -> str | None:
    """Return *text* in the one spelling in which numbers are compared; None if it is no number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return repr(value) if math.isfinite(value) else None


def _invalid(name: str, expected: str, got: str) -> InvalidInputError:
    message = f"parameter {name!r}: expected {expected}; got {got[:200]!r}"
    return InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
