"""Interleaved rounds of ways that cost between microseconds and minutes.

In a round every way has its turn, again and again for `TURN_S`, at least once. CPU time counts
all threads, and the processes that a way reports on.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TURN_S: Final = 0.05
"""So long a way is called in each round."""
LONG_ROUNDS: Final = 3
"""Of what takes seconds."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One way over all rounds; seconds a call."""

    wall_s: float
    """Median, as `cpu_s`."""
    cpu_s: float
    low_s: float
    """Wall time of the best round."""
    high_s: float


def compare(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every way in each of *rounds* rounds.

    A way that works in other processes returns their CPU seconds as a float.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(_turn(way))
    return {name: _timing(samples) for name, samples in taken.items()}


def once(way: Callable[[], object]) -> Timing:
    """Time a way that cannot be repeated."""
    wall, cpu = time.perf_counter(), time.process_time()
    way()
    return _timing([(time.perf_counter() - wall, time.process_time() - cpu)])


def middle(timings: list[Timing]) -> Timing:
    """Return the middle one by wall time, with the spread of all."""
    ordered = sorted(timings, key=lambda timing: timing.wall_s)
    one = ordered[len(ordered) // 2]
    return Timing(one.wall_s, one.cpu_s, ordered[0].wall_s, ordered[-1].wall_s)


def summed(timings: list[Timing]) -> Timing:
    """Return the time of one after another."""
    wall = sum(timing.wall_s for timing in timings)
    return Timing(wall, sum(timing.cpu_s for timing in timings), wall, wall)


def _turn(way: Callable[[], object]) -> tuple[float, float]:
    calls = 0
    elsewhere = 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    while True:
        result = way()
        calls += 1
        if isinstance(result, float):
            elsewhere += result
        if (passed := time.perf_counter() - wall) >= TURN_S:
            return passed / calls, (time.process_time() - cpu + elsewhere) / calls


def _timing(samples: list[tuple[float, float]]) -> Timing:
    walls = [wall for wall, _ in samples]
    return Timing(
        wall_s=statistics.median(walls),
        cpu_s=statistics.median(cpu for _, cpu in samples),
        low_s=min(walls),
        high_s=max(walls),
    )
