"""What a benchmark hands to the report: tables of ways, curves, remarks, and promised numbers.

A module ``bench_NAME`` has one function, ``report() -> Findings``::

    found = Findings()
    rows = compare(ways, reference="trace-archive", rounds=7)
    found.table("8 of 100 samples of one step", rows, "trace-archive")
    found.faster("slice.tensorstore", rows, than="TensorStore", limit="pread + decode")
    return found
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.measure import Row


@dataclass(frozen=True, slots=True)
class Table:
    """Several ways to do one thing; the ratios in *rows* are over the way *reference*."""

    title: str
    rows: list[Row]
    reference: str


@dataclass(frozen=True, slots=True)
class Curve:
    """How a cost grows: for each series, points (x, y) with rising x."""

    title: str
    x: str
    """What grows, with its unit."""
    y: str
    """What it costs, with its unit."""
    series: dict[str, list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Beside:
    """How many times as fast (or as small) we are as something else; above 1 is better."""

    name: str
    times: float


@dataclass(frozen=True, slots=True)
class Number:
    """One promised number as it was measured, in the unit of its target."""

    target: str
    """Key in `benchmarks.targets`."""
    value: float
    """The median over rounds, of CPU time where times are compared."""
    low: float
    high: float
    wall: float | None
    """The same by wall time."""
    peer: Beside | None
    """What a user would pick instead."""
    limit: Beside | None
    """What cannot be done faster."""
    remark: str


@dataclass(slots=True)
class Findings:
    """Everything that one benchmark found, in the order in which it is shown."""

    parts: list[str | Table | Curve] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)

    def text(self, markdown: str) -> None:
        """Add a remark or a table that compares no ways."""
        self.parts.append(markdown)

    def table(self, title: str, rows: list[Row], reference: str) -> None:
        """Add ways that `measure.compare` compared."""
        self.parts.append(Table(title, rows, reference))

    def curve(
        self, title: str, x: str, y: str, series: Mapping[str, Sequence[tuple[float, float]]]
    ) -> None:
        """Add how a cost *y* grows with *x*."""
        points = {name: sorted(taken) for name, taken in series.items()}
        self.parts.append(Curve(title, x, y, points))

    def number(
        self,
        target: str,
        value: float | Sequence[float],
        *,
        wall: float | None = None,
        peer: Beside | None = None,
        limit: Beside | None = None,
        remark: str = "",
    ) -> None:
        """Answer a target by one value, or by the values of several rounds.

        Raises
        ------
        ValueError
            For a target that nobody set.
        """
        if target not in TARGETS:
            message = f"expected one of the targets {', '.join(TARGETS)}; got {target!r}"
            raise ValueError(message)
        values = [value] if isinstance(value, (int, float)) else list(value)
        middle = statistics.median(values)
        self.numbers.append(
            Number(target, middle, min(values), max(values), wall, peer, limit, remark)
        )

    def faster(
        self,
        target: str,
        rows: list[Row],
        *,
        than: str,
        way: str | None = None,
        peer: str | None = None,
        limit: str | None = None,
        remark: str = "",
    ) -> None:
        """Answer a target by how many times as fast *way* is as the way *than*.

        Parameters
        ----------
        way
            By default what the ratios of *rows* are over.
        peer, limit
            Ways to show beside it; *than* if there is no *peer*.
        """
        pairs = _times(rows, way, than)
        self.number(
            target,
            [cpu for cpu, _ in pairs],
            wall=statistics.median(wall for _, wall in pairs),
            peer=_beside(rows, way, peer or than),
            limit=None if limit is None else _beside(rows, way, limit),
            remark=remark,
        )


def _beside(rows: list[Row], way: str | None, other: str) -> Beside:
    return Beside(other, statistics.median(cpu for cpu, _ in _times(rows, way, other)))


def _times(rows: list[Row], way: str | None, other: str) -> list[tuple[float, float]]:
    """Return, of each round, how many times as much CPU and wall time *other* takes as *way*."""
    theirs = row_named(rows, other).ratios
    if way is None:
        return list(theirs)
    ours = row_named(rows, way).ratios
    return [(a / c, b / d) for (a, b), (c, d) in zip(theirs, ours, strict=True)]


def run(name: str) -> Findings:
    """Run the benchmark ``bench_NAME``; one that returns Markdown has found a remark."""
    found = import_module(f"benchmarks.bench_{name}").report()
    if isinstance(found, Findings):
        return found
    remark = Findings()
    remark.text(found)
    return remark


def row_named(rows: list[Row], name: str) -> Row:
    """Return the row of one way.

    Raises
    ------
    ValueError
        If there is none.
    """
    for row in rows:
        if row.name == name:
            return row
    message = f"expected one of the ways {', '.join(row.name for row in rows)}; got {name!r}"
    raise ValueError(message)
