"""What the study writes: the original's one row a size, every measurement, and tables to read."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from benchmarks.vizfold_study.formats import FORMATS, OURS
from benchmarks.vizfold_study.parallel import WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.vizfold_study.results import Results
    from benchmarks.vizfold_study.timing import Timing

_HOW: Final = (
    "Medians over interleaved rounds [fastest to slowest round]; after the semicolon CPU time of"
    " all threads and processes. x: wall time over ours in the same run."
)
NAMED: Final = {
    "write": "write, once",
    "full": "true full read",
    "layer": "attention of one layer",
    "head": "one head",
    "window": "one 32 x 32 window, looked up by name",
    "window kept": "the same, array kept open",
    "layer cold": "attention of one layer, page cache dropped",
    "windows cold": "8 windows of one layer, page cache dropped",
    **{f"threads {count}": f"200 windows, {count} threads" for count in WORKERS},
    **{f"processes {count}": f"200 windows, {count} processes" for count in WORKERS},
}
"""Every experiment but size, in words."""


def write_csv(folder: Path, found: Sequence[Results]) -> None:
    """Write ``benchmark_results.csv`` (a row a size) and ``measurements.csv`` (a row a timing)."""
    _write(folder / "benchmark_results.csv", [_row(one) for one in found if _is_random(one)])
    _write(folder / "measurements.csv", [row for one in found for row in _measurements(one)])


def markdown(machine: str, found: Sequence[Results]) -> str:
    """Return all tables as a page."""
    lines = [
        "# What the study measured",
        "",
        f"{machine}. {_HOW}",
        "",
        *_where_behind(found),
    ]
    for one in found:
        trace = one.trace
        lines += [
            f"## N = {trace.residues}, {trace.layers} layers, {trace.kind} values",
            "",
            f"{one.nbytes / 1e6:,.0f} MB of values.",
            "",
            f"| | {' | '.join(FORMATS)} |",
            "|---|" + "---:|" * len(FORMATS),
            _line(
                "stored bytes over values",
                [f"{one.stored[name][0] / one.nbytes:.4f}" for name in FORMATS],
            ),
            _line("files", [f"{one.stored[name][1]:,}" for name in FORMATS]),
        ]
        for key, name in NAMED.items():
            timings = one.timings.get(key)
            if timings is not None:
                cells = [_cell(timings.get(f), timings[OURS]) for f in FORMATS]
                lines.append(_line(name, cells))
        cold = ", ".join(f"{name} {part:.0%}" for name, part in one.uncached.items())
        lines += ["", f"Of the layer read cold, so much came from the disk: {cold}.", ""]
    return "\n".join(lines)


def _where_behind(found: Sequence[Results]) -> Iterator[str]:
    """Yield what HDF5 does faster than we, of what we promised to do faster."""
    behind = []
    for one in found:
        for key in NAMED:
            timings = one.timings.get(key)
            if timings is None:
                continue
            for peer in ("HDF5", "HDF5 by head"):
                times = timings[peer].wall_s / timings[OURS].wall_s
                if times < 1:
                    size = f"N = {one.trace.residues}, {one.trace.kind}"
                    behind.append(f"- {size}: {NAMED[key]}: {1 / times:.2f} x the time of {peer}")
    yield "Where HDF5 is faster than we are, by the medians of wall time:"
    yield ""
    yield from behind or ["- nowhere"]
    yield ""


def _is_random(one: Results) -> bool:
    return one.trace.kind == "random"


def _row(one: Results) -> dict[str, object]:
    row: dict[str, object] = {
        "N_res": one.trace.residues,
        "layers": one.trace.layers,
        "raw_bytes": one.nbytes,
    }
    for name in FORMATS:
        short = name.lower().replace(" ", "_").replace("-", "_")
        row[f"{short}_bytes"], row[f"{short}_files"] = one.stored[name]
        for key, timings in one.timings.items():
            if name in timings:
                row[f"{short}_{key.replace(' ', '_')}_s"] = f"{timings[name].wall_s:.4g}"
    return row


def _measurements(one: Results) -> Iterator[dict[str, object]]:
    for key, timings in one.timings.items():
        for name, timing in timings.items():
            yield {
                "values": one.trace.kind,
                "N_res": one.trace.residues,
                "layers": one.trace.layers,
                "experiment": key,
                "format": name,
                "wall_s": f"{timing.wall_s:.4g}",
                "cpu_s": f"{timing.cpu_s:.4g}",
                "fastest_round_s": f"{timing.low_s:.4g}",
                "slowest_round_s": f"{timing.high_s:.4g}",
            }


def _write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _cell(timing: Timing | None, ours: Timing) -> str:
    if timing is None:
        return ""
    scale, unit = next(
        (scale, unit)
        for scale, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs"))
        if timing.wall_s * scale >= 1 or unit == "µs"
    )
    spread = f" [{timing.low_s * scale:.3g}, {timing.high_s * scale:.3g}]"
    spread = "" if timing.low_s == timing.high_s else spread
    times = "" if timing is ours else f", x {timing.wall_s / ours.wall_s:.2f}"
    return f"{timing.wall_s * scale:.3g} {unit}{spread}; {timing.cpu_s * scale:.3g}{times}"
