"""How much memory a recorder takes while its store is slower than the sampler.

Noise of 4 MB a step into S3 (SeaweedFS, each request held for 50 ms) as fast as `record` takes it:
the budget fills, and `record` waits. Each budget is a process of its own; its most memory, over
what it held with the run open and some steps stored, is held against the budget (`max_bytes`).
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from archive_schema.store import StoreOptions, open_store
from benchmarks.findings import Findings
from benchmarks.s3 import far_away, s3_server
from benchmarks.servers import Measured
from benchmarks.traces import QUICK
from recorder import TraceRecorder
from tests.s3_server import BUCKET

BUDGETS: Final = (64 << 20, 256 << 20)
STEPS: Final = 80 if QUICK else 200
WARM_STEPS: Final = 4
SHAPE: Final = (16, 1 << 17)
"""Of a step, float16: 4 MiB."""
DELAY_S: Final = 0.05


def report() -> Findings:
    """Return the memory for each budget."""
    found = Findings()
    lines = [
        "| budget MB | most memory MB | of the budget | recorded MB/s |",
        "|---:|---:|---:|---:|",
    ]
    shares = []
    with (
        tempfile.TemporaryDirectory() as name,
        s3_server(Path(name) / "s3") as endpoint,
        far_away(endpoint, DELAY_S) as (far, _),
    ):
        for budget in BUDGETS:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                grown, rate = pool.submit(recorded, far, budget).result()
            shares.append(grown / budget)
            cells = f"{budget / 1e6:.0f} | {grown / 1e6:.0f} | {grown / budget:.2f}"
            lines.append(f"| {cells} | {rate / 1e6:.0f} |")
    worst = "the worst of some budgets, while the store is slow"
    found.number("record.memory", max(shares), remark=worst)
    found.text("\n".join([*lines, ""]))
    return found


def recorded(endpoint: str, budget: int) -> tuple[int, float]:
    """Record a run; return how much memory grew, and bytes a second."""
    store = open_store(f"s3://{BUCKET}/{budget}", StoreOptions(endpoint_url=endpoint))
    process = Measured(os.getpid())
    noise = np.random.default_rng(7).integers(1 << 16, size=(8, *SHAPE), dtype=np.uint16)
    values = noise.view(np.float16)
    with TraceRecorder(
        store, run="r", steps=STEPS, samples=SHAPE[0], max_bytes=budget, spool=False
    ) as rec:
        for step in range(WARM_STEPS):
            rec.record(step, x=values[step % 8])
        rec.flush()
        before = process.rss_bytes()
        process.forget_peak()
        start_s = time.perf_counter()
        for step in range(WARM_STEPS, STEPS):
            rec.record(step, x=values[step % 8])
        rec.flush()
        wall_s = time.perf_counter() - start_s
        grown = process.peak_rss_bytes() - before
    return grown, (STEPS - WARM_STEPS) * values[0].nbytes / wall_s
