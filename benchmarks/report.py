"""The report of a run: Markdown for people, CSV for programs, plots for both.

`write` takes what every benchmark found and writes ``report.md`` (the promised numbers first, then
every table), ``numbers.csv``, ``rows.csv``, ``curves.csv``, and a plot for each benchmark.
"""

from __future__ import annotations

import csv
import math
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.findings import Curve, Table
from benchmarks.measure import table
from benchmarks.plots import plot_curves, plot_numbers, plot_tables
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.findings import Beside, Findings, Number
    from benchmarks.targets import Target


def write(folder: Path, preface: str, found: Mapping[str, Findings]) -> Path:
    """Write all files into *folder*, and return the path of the Markdown page.

    Parameters
    ----------
    preface : str
        Where and with what it was measured.
    found : mapping
        What each benchmark found, by its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {number.target: number for one in found.values() for number in one.numbers}
    _write_csv(folder / "numbers.csv", _number_records(numbers))
    _write_csv(folder / "rows.csv", _row_records(found))
    _write_csv(folder / "curves.csv", _curve_records(found))
    plot_numbers(folder / "numbers", numbers)
    lines = ["# What was measured", "", preface, "", "## The promised numbers", ""]
    lines += [*promised(numbers), "", "![numbers](numbers.svg)", ""]
    for name, one in found.items():
        lines += [f"## {name}", ""]
        lines += [_shown(part) for part in one.parts]
        tables = [part for part in one.parts if isinstance(part, Table)]
        curves = [part for part in one.parts if isinstance(part, Curve)]
        if tables:
            plot_tables(folder / name, tables)
            lines += [f"![{name}]({name}.svg)", ""]
        if curves:
            plot_curves(folder / f"{name}_curves", curves)
            lines += [f"![{name}: curves]({name}_curves.svg)", ""]
    page = folder / "report.md"
    page.write_text("\n".join(lines))
    return page


def promised(numbers: Mapping[str, Number]) -> Iterator[str]:
    """Yield the lines of the table of all targets, measured or not."""
    yield "| what | must reach | median [least, most] | reached | by wall time | beside |"
    yield "|---|---|---:|---|---:|---|"
    for what, targets in groupby(TARGETS.values(), key=lambda target: target.what):
        for place, target in enumerate(targets):
            cells = [what if place == 0 else "", target.must, *_cells(target, numbers)]
            yield f"| {' | '.join(cells)} |"


def slope(points: Iterable[tuple[float, float]]) -> float:
    """Return the exponent of the power law that fits *points* best, by logarithms."""
    x, y = zip(*points, strict=True)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _cells(target: Target, numbers: Mapping[str, Number]) -> list[str]:
    number = numbers.get(target.key)
    if number is None:
        return ["", target.absent, "", ""]
    value = f"{number.value:.3g}"
    if number.low != number.high:
        value += f" [{number.low:.3g}, {number.high:.3g}]"
    reached = "yes" if target.reached(number.value) else "**no**"
    wall = "" if number.wall is None else f"{number.wall:.3g}"
    beside = [_beside(other) for other in (number.peer, number.limit) if other is not None]
    beside += [number.remark] if number.remark else []
    return [f"{value} {target.unit}".strip(), reached, wall, "; ".join(beside)]


def _beside(other: Beside) -> str:
    return f"{other.times:.3g} x as fast as {other.name}"


def _shown(part: str | Table | Curve) -> str:
    if isinstance(part, Table):
        return table(part.title, part.rows, part.reference)
    if isinstance(part, Curve):
        return _curve_table(part)
    return part


def _curve_table(curve: Curve) -> str:
    places = sorted({x for points in curve.series.values() for x, _ in points})
    lines = [
        f"### {curve.title}",
        "",
        f"{curve.y}, by {curve.x}; slope: the exponent of the best power law (1: in proportion).",
        "",
        f"| | {' | '.join(f'{x:g}' for x in places)} | slope |",
        "|---|" + "---:|" * (len(places) + 1),
    ]
    for name, points in curve.series.items():
        at = dict(points)
        cells = [f"{at[x]:.3g}" if x in at else "" for x in places]
        lines.append(f"| {name} | {' | '.join(cells)} | {slope(points):.2f} |")
    return "\n".join([*lines, ""])


def _number_records(numbers: Mapping[str, Number]) -> Iterator[dict[str, object]]:
    for target in TARGETS.values():
        number = numbers.get(target.key)
        record: dict[str, object] = {"target": target.key, "what": target.what, "must": target.must}
        if number is None:
            yield {**record, "remark": target.absent}
            continue
        yield {
            **record,
            "unit": target.unit,
            "least_wanted": target.least,
            "most_wanted": target.most,
            "median": _rounded(number.value),
            "low": _rounded(number.low),
            "high": _rounded(number.high),
            "wall": None if number.wall is None else _rounded(number.wall),
            "reached": target.reached(number.value),
            "peer": number.peer and number.peer.name,
            "times_peer": number.peer and _rounded(number.peer.times),
            "limit": number.limit and number.limit.name,
            "times_limit": number.limit and _rounded(number.limit.times),
            "remark": number.remark,
        }


def _row_records(found: Mapping[str, Findings]) -> Iterator[dict[str, object]]:
    for name, one in found.items():
        for part in one.parts:
            if not isinstance(part, Table):
                continue
            for row in part.rows:
                yield {
                    "benchmark": name,
                    "table": part.title,
                    "way": row.name,
                    "cpu_s": _rounded(row.cpu_s),
                    "wall_s": _rounded(row.wall_s),
                    "least_wall_s": _rounded(row.least_s),
                    "reference": part.reference,
                    "cpu_ratio": _rounded(row.cpu_ratio),
                    "wall_ratio": _rounded(row.wall_ratio),
                    "cpu_spread": _rounded(row.spread),
                    "rounds": len(row.ratios),
                }


def _curve_records(found: Mapping[str, Findings]) -> Iterator[dict[str, object]]:
    for name, one in found.items():
        for part in one.parts:
            if not isinstance(part, Curve):
                continue
            for series, points in part.series.items():
                for x, y in points:
                    yield {
                        "benchmark": name,
                        "curve": part.title,
                        "series": series,
                        part.x: x,
                        "cost": part.y,
                        "value": _rounded(y),
                        "slope": _rounded(slope(points)),
                    }


def _write_csv(path: Path, records: Iterable[dict[str, object]]) -> None:
    taken = list(records)
    names = list(dict.fromkeys(name for record in taken for name in record))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(taken)


def _rounded(value: float) -> float:
    return value if value == 0 or not math.isfinite(value) else float(f"{value:.4g}")
