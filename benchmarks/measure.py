"""Interleaved rounds of several ways to do one thing, compared by their medians.

A shared machine drifts: in each round every way runs once, in turn, so that drift meets all
of them alike, and the ratio is taken within a round. CPU time counts all threads of this process.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Row:
    """One way, measured; times are seconds for one call."""

    name: str
    cpu_s: float
    wall_s: float
    cpu_ratio: float
    """Median over rounds of this way's CPU time over the reference's."""
    wall_ratio: float
    spread: float
    """(max - min) / median of the CPU time over rounds."""
    least_s: float
    """Wall time of the fastest round."""
    ratios: tuple[tuple[float, float], ...]
    """Of each round: CPU and wall time over the reference's."""


def compare(
    ways: Mapping[str, Callable[[], object]], *, reference: str, rounds: int, calls: int = 1
) -> list[Row]:
    """Run every way *calls* times in each of *rounds* rounds, after one round to warm up."""
    for way in ways.values():
        way()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            samples[name].append(_timed(way, calls))
    return summarise(samples, reference)


def summarise(samples: Mapping[str, list[tuple[float, float]]], reference: str) -> list[Row]:
    """Return the rows of ways that took (CPU, wall) seconds a call in each round."""
    return [_row(name, taken, samples[reference]) for name, taken in samples.items()]


def table(title: str, rows: list[Row], reference: str) -> str:
    """Return *rows* as a Markdown table."""
    unit, scale = ("ms", 1e3) if max(row.wall_s for row in rows) >= 1e-3 else ("µs", 1e6)
    lines = [
        f"### {title}",
        "",
        f"| way | CPU {unit} | wall {unit} | CPU x {reference} | wall x {reference} | spread |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.name} | {row.cpu_s * scale:.3g} | {row.wall_s * scale:.3g}"
        f" | {row.cpu_ratio:.2f} | {row.wall_ratio:.2f} | {row.spread:.0%} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def _timed(way: Callable[[], object], calls: int) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        way()
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def _row(name: str, taken: list[tuple[float, float]], reference: list[tuple[float, float]]) -> Row:
    cpu = [cpu_s for cpu_s, _ in taken]
    middle = statistics.median(cpu)
    ratios = [
        (mine[0] / base[0], mine[1] / base[1])
        for mine, base in zip(taken, reference, strict=True)
        if base[0] > 0 and base[1] > 0
    ]
    return Row(
        name=name,
        cpu_s=middle,
        wall_s=statistics.median(wall_s for _, wall_s in taken),
        cpu_ratio=statistics.median(cpu for cpu, _ in ratios),
        wall_ratio=statistics.median(wall for _, wall in ratios),
        spread=(max(cpu) - min(cpu)) / middle if middle else 0.0,
        least_s=min(wall_s for _, wall_s in taken),
        ratios=tuple(ratios),
    )
