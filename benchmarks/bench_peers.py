"""The same slices of the same run by every server that a user might pick, side by side.

One process each (HSDS: a service node and a data node), all up at once, asked in turn over eight
keep-alive connections; CPU is the server's, with its children. Samples move on with every request,
so that no answer has been given before, but where a row says so; pages are in the page cache. The
peers read the run uncompressed in chunks of a step, which is their quickest; ours is as recorded.
Bytes are compared before timing.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import h5py
import httpx
import numpy as np
import zarr

from benchmarks.findings import Findings, row_named
from benchmarks.load import load
from benchmarks.measure import summarise
from benchmarks.peers.contenders import contenders
from benchmarks.traces import QUICK, SAMPLES, STEPS, record, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.measure import Row
    from benchmarks.peers.contenders import Contender
    from benchmarks.servers import Server

ROUNDS: Final = 3 if QUICK else 7
WHOLE_ROUNDS: Final = 2 if QUICK else 5
OURS: Final = "trace-archive"
FLOOR: Final = "bare Starlette"
AGAIN: Final = "trace-archive, asked again"
EIGHT: Final = f"8 of {SAMPLES} samples of one step over HTTP"
PROMISES: Final = {"http.tiled": "Tiled", "http.hsds": "HSDS", "http.h5grove": "h5grove, npy"}
WHOLE: Final = {
    OURS: "/runs/r.h5?fields=score_matrix",
    "Tiled": "/api/v1/container/full/run?format=application/x-hdf5",
}


class Running:
    """A server that is up, and the paths that it has not been asked for."""

    def __init__(self, contender: Contender, server: Server, fill: dict[str, str]) -> None:
        self.contender, self.server, self._fill = contender, server, fill
        self._fresh = self._all()

    def path(self, step: int, start: int | None = None) -> str:
        """Return the path of 8 samples of a step, or of the whole step."""
        if start is None:
            return self.contender.step.format(n=step, **self._fill)
        return self.contender.slice.format(n=step, start=start, stop=start + 8, **self._fill)

    def eight(self) -> list[str]:
        """Return paths of slices that were not asked for before."""
        return list(islice(self._fresh, self.contender.requests))

    def eight_again(self) -> list[str]:
        """Return paths of the first samples, the same in every round."""
        return [self.path(n % STEPS, 0) for n in range(self.contender.requests)]

    def steps(self) -> list[str]:
        """Return paths of whole steps."""
        return [self.path(n % STEPS) for n in range(min(self.contender.requests, 2 * STEPS))]

    def verify(self) -> None:
        """Compare slices and steps with what was recorded."""
        truth = trace().score_matrix
        headers = {"Accept-Encoding": "identity", **self.contender.headers}
        with httpx.Client(base_url=self.server.url, headers=headers, trust_env=False) as client:
            for step in (0, 5, STEPS - 1):
                for start, expected in ((0, truth[step, :8]), (None, truth[step])):
                    answer = client.get(self.path(step, start)).raise_for_status()
                    if self.contender.decode(answer.content) != expected.tobytes():
                        message = f"other bytes at step {step}"
                        raise AssertionError(message)

    def _all(self) -> Iterator[str]:
        while True:
            for start in range(1, SAMPLES - 8):
                for step in range(STEPS):
                    yield self.path(step, start)


def report() -> Findings:
    """Return the tables of slices, steps and whole files."""
    found = Findings()
    with ExitStack() as stack:
        # What the servers write is removed only when they have ended.
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _write_run(root)
        running = []
        for contender in contenders():
            try:
                running.append(_start(stack, contender, root))
            except Exception as error:  # said in the report; the others go on
                if contender.environment is None:
                    raise
                found.text(f"**{contender.name} is left out**: {error}\n")
        rows = _slices(running)
        found.table(EIGHT, rows, OURS)
        again = row_named(rows, AGAIN)
        for target, peer in PROMISES.items():
            if peer in [row.name for row in rows]:
                first = row_named(rows, peer).cpu_ratio
                found.faster(
                    target,
                    rows,
                    way=AGAIN,
                    than=peer,
                    limit=FLOOR,
                    remark=f"asked for the first time: {first:.3g} x",
                )
        found.text(
            f"Requests a second: {', '.join(f'{row.name} {1 / row.wall_s:.0f}' for row in rows)}."
            f" An answer that was given lately costs {again.cpu_ratio:.2f} of the CPU time.\n"
        )
        found.table("A whole step over HTTP", _steps(running), OURS)
        _whole(running, found)
    return found


def _write_run(root: Path) -> None:
    truth = trace().score_matrix
    np.save(root / "truth.npy", truth)
    chunks = (1, *truth.shape[1:])
    group = zarr.create_group(root / "run.zarr")
    group.create_array(
        "score_matrix",
        data=truth,
        chunks=chunks,
        compressors=None,
        dimension_names=["step", "sample", "position", "channel"],
    )
    with h5py.File(root / "run.h5", "w") as file:
        file.create_dataset("score_matrix", data=truth, chunks=chunks)
    record(root / "store")


def _start(stack: ExitStack, contender: Contender, root: Path) -> Running:
    if reason := contender.missing():
        raise RuntimeError(reason)
    server, fill = stack.enter_context(contender.start(root))
    running = Running(contender, server, fill)
    running.verify()
    return running


def _slices(running: list[Running]) -> list[Row]:
    ways = {one.contender.name: (one, one.eight) for one in running}
    ours = next(one for one in running if one.contender.name == OURS)
    ways[AGAIN] = (ours, ours.eight_again)
    return _rounds(ways)


def _steps(running: list[Running]) -> list[Row]:
    return _rounds({one.contender.name: (one, one.steps) for one in running})


def _rounds(ways: dict[str, tuple[Running, Callable[[], list[str]]]]) -> list[Row]:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, (one, paths) in ways.items():
            cost = load(one.server, paths(), headers=one.contender.headers)
            if number:  # the first warms up
                taken[name].append((cost.cpu_each_s, cost.wall_s / cost.requests))
    return summarise(taken, OURS)


def _whole(running: list[Running], found: Findings) -> None:
    """Add what it takes to download the scores of the run as HDF5, from whoever offers that."""
    taken: dict[str, list[tuple[float, float]]] = {}
    first_s: dict[str, list[float]] = {}
    extra: dict[str, int] = {}
    ways = [one for one in running if one.contender.name in WHOLE]
    for number in range(WHOLE_ROUNDS + 1):
        for one in ways:
            name, server = one.contender.name, one.server
            server.forget_peak()
            before = server.rss_bytes()
            cpu_s, start_s = server.cpu_s(), time.perf_counter()
            with httpx.stream("GET", server.url + WHOLE[name], timeout=300) as answer:
                parts = answer.raise_for_status().iter_raw()
                length = len(next(parts))
                until_first_s = time.perf_counter() - start_s
                length += sum(map(len, parts))
            wall_s, cpu_s = time.perf_counter() - start_s, server.cpu_s() - cpu_s
            if length < trace().score_matrix.nbytes:
                message = f"{name} gave {length} bytes"
                raise AssertionError(message)
            if number:
                taken.setdefault(name, []).append((cpu_s, wall_s))
                first_s.setdefault(name, []).append(until_first_s)
            grown = server.peak_rss_bytes() - before
            extra[name] = max(extra.get(name, 0), grown)
    found.table("The scores of the run as HDF5 over HTTP", summarise(taken, OURS), OURS)
    for name, times in first_s.items():
        found.text(
            f"{name}: first byte after {statistics.median(times) * 1e3:.0f} ms,"
            f" {extra[name] / 1e6:.0f} MB more memory than before.\n"
        )
