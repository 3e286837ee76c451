"""How cost grows with steps, samples, layers, and clients at once.

Runs of small tiles (64 float32 a sample), so that what is seen is the cost beside the bytes. In
process and in CPU time, medians: a slice of 8 samples of one step, opening a run (everything that a
reader must know before its first slice), and a step that is recorded and acknowledged. Over HTTP:
slices asked for the first time by 1 to 64 connections. `QUICK=1` stops at a tenth.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import deque
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from archive_schema.store import open_store
from benchmarks.findings import Findings
from benchmarks.load import load
from benchmarks.servers import archive_server
from benchmarks.traces import QUICK, STEPS, record
from benchmarks.traces import SAMPLES as RECORDED_SAMPLES
from recorder import TraceRecorder
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

STEP_COUNTS: Final = (100, 316, 1000) if QUICK else (100, 316, 1000, 3162, 10_000)
SAMPLE_COUNTS: Final = (10, 100, 1000) if QUICK else (10, 100, 1000, 10_000)
LAYER_COUNTS: Final = (1, 5, 20) if QUICK else (1, 5, 20, 50, 200)
CONNECTIONS: Final = (1, 4, 16) if QUICK else (1, 2, 4, 8, 16, 32, 64)
REQUESTS: Final = 1000 if QUICK else 5000
TAIL: Final = 64
SLICES: Final = 200
OPENINGS: Final = 5
COMMITS: Final = 20
MS: Final = "CPU ms"
RUN: Final = "r"
SAMPLES: Final = 10
Series: TypeAlias = dict[str, list[tuple[float, float]]]


class Costs:
    """Curves under way: for each series, how much was paid at each size."""

    def __init__(self) -> None:
        self.series: Series = {}

    def add(self, name: str, size: int, cost: float) -> None:
        """Add one point."""
        self.series.setdefault(name, []).append((size, cost))


def report() -> Findings:
    """Return the curves."""
    found = Findings()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        numbers = count()

        def fresh() -> str:
            return str(root / str(next(numbers)))

        found.curve("Steps", "steps", MS, _by_steps(fresh))
        found.curve("Samples", "samples", MS, _by_samples(fresh))
        found.curve("Layers", "layers", MS, _by_layers(fresh))
        record(root / "served")
        rates, latencies = _by_connections(root / "served")
        found.curve("Requests at once", "connections", "requests/s", rates)
        found.curve("Waiting", "connections", "p95 ms", latencies)
    found.text(
        "Expected: nothing but the opening grows with steps, and it by what an index or a commit"
        " of each step takes to read; a recorded step grows with its bytes, so with samples and"
        " layers; a slice with nothing; with more clients than cores the rate stays and the"
        " waiting grows in proportion.\n"
    )
    return found


def _by_steps(fresh: Callable[[], str]) -> Series:
    costs = Costs()
    for steps in STEP_COUNTS:
        store = fresh()
        list(_recorded(store, steps, SAMPLES, acknowledge=False))
        costs.add("a slice", steps, _slice_ms(store, steps))
        costs.add("opening, sealed", steps, _opening_ms(store))
    store, taken_ms = fresh(), deque[float](maxlen=COMMITS)
    for number, cost_ms in enumerate(_recorded(store, STEP_COUNTS[-1], SAMPLES), 1):
        taken_ms.append(cost_ms)
        if number in STEP_COUNTS:
            costs.add("a step, acknowledged", number, statistics.median(taken_ms))
            costs.add("opening, a commit a step", number, _opening_ms(store))
    return costs.series


def _by_samples(fresh: Callable[[], str]) -> Series:
    costs = Costs()
    for samples in SAMPLE_COUNTS:
        store = fresh()
        taken_ms = list(_recorded(store, COMMITS, samples))
        costs.add("a step, acknowledged", samples, statistics.median(taken_ms))
        costs.add("a slice", samples, _slice_ms(store, COMMITS))
        costs.add("opening, sealed", samples, _opening_ms(store))
    return costs.series


def _by_layers(fresh: Callable[[], str]) -> Series:
    costs = Costs()
    for number_of in LAYER_COUNTS:
        store = fresh()
        names = [f"blocks.{number}" for number in range(number_of)]
        taken_ms = list(_recorded(store, COMMITS, SAMPLES, layers=names))
        costs.add("a step, acknowledged", number_of, statistics.median(taken_ms))
        costs.add("a slice", number_of, _slice_ms(store, COMMITS, layer=names[-1]))
        costs.add("opening, sealed", number_of, _opening_ms(store, layer=names[-1]))
    return costs.series


def _by_connections(root: Path) -> tuple[Series, Series]:
    """Return requests/s and the p95 of waiting, for slices that were not asked for before."""
    rates, latencies = Costs(), Costs()
    starts = count(1)
    path = "/runs/r/steps/{step}/score_matrix?samples={start}:{stop}&format=raw"
    with archive_server(root) as server:
        for place, connections in enumerate((1, *CONNECTIONS)):
            asked: list[str] = []
            while len(asked) < REQUESTS:
                start = next(starts) % (RECORDED_SAMPLES - 8)
                asked += [path.format(step=n, start=start, stop=start + 8) for n in range(STEPS)]
            cost = load(server, asked[:REQUESTS], connections=connections)
            if place:  # the first warms up
                rates.add("first time", connections, cost.rate)
                latencies.add("first time", connections, cost.percentile_s(0.95) * 1e3)
    return rates.series, latencies.series


def _recorded(
    store: str,
    steps: int,
    samples: int,
    *,
    layers: Sequence[str | None] = (None,),
    acknowledge: bool = True,
) -> Iterator[float]:
    """Record a run and seal it; yield the CPU milliseconds of each step."""
    values = np.random.default_rng(7).normal(size=(samples, TAIL)).astype(np.float32)
    with TraceRecorder(store, RUN, steps=steps, samples=samples) as rec:
        for step in range(steps):
            start_s = time.process_time()
            for layer in layers:
                rec.record(step, layer=layer, x=values)
            if acknowledge:
                rec.flush()
            yield (time.process_time() - start_s) * 1e3


def _slice_ms(store: str, steps: int, layer: str | None = None) -> float:
    archive = Archive(open_store(store), cache_bytes=0)
    taken = []
    for number in range(SLICES):
        step = number * 97 % steps
        start_s = time.process_time()
        run = archive.run(RUN)
        field = run.field("x", layer=layer)
        values = field.select({"step": step, "sample": slice(0, 8)}).array()
        taken.append((time.process_time() - start_s) * 1e3)
        if values.shape != (8, TAIL):
            message = f"expected (8, {TAIL}), got {values.shape}"
            raise AssertionError(message)
    return statistics.median(taken)


def _opening_ms(store: str, layer: str | None = None) -> float:
    taken = []
    for _ in range(OPENINGS):
        start_s = time.process_time()
        run = Archive(open_store(store), cache_bytes=0).run(RUN)
        _ = run.field("x", layer=layer)
        taken.append((time.process_time() - start_s) * 1e3)
    return statistics.median(taken)
