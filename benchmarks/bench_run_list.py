"""The list of 100,000 runs, as a page, filtered, sorted, and far down.

One run is recorded. The others are made through the store: each has a manifest of its own (id,
time, tags, metadata), written as a recorder writes it, and a copy of the seal and the index of the
recorded one; no tiles, which no list reads. The server finds and reads them by
itself. Pages are asked for one after another, and by eight at once; meanwhile the server goes on
looking for new runs.
`QUICK=1` makes 10,000.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import numpy as np

from archive_schema.documents import read_document
from archive_schema.layout import seal_key
from archive_schema.models import Seal
from archive_schema.records import create_run, read_manifest
from archive_schema.store import open_store
from benchmarks.findings import Findings
from benchmarks.load import load
from benchmarks.servers import archive_server
from benchmarks.traces import QUICK
from recorder import TraceRecorder

if TYPE_CHECKING:
    from benchmarks.servers import Server

RUNS: Final = 10_000 if QUICK else 100_000
PAGES: Final = 100 if QUICK else 400
"""Of each kind."""
SYSTEMS: Final = ("generic", "d3-dna", "dna-diffusion", "dmd2", "vizfold")
_FIRST: Final = "run-0000000"


def report() -> Findings:
    """Return how long pages take, by what is asked."""
    found = Findings()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start_s = time.perf_counter()
        _make_runs(root)
        made_s, start_s = time.perf_counter() - start_s, time.perf_counter()
        server = stack.enter_context(archive_server(root))
        _await_runs(server)
        known_s = time.perf_counter() - start_s
        found.text(
            f"{RUNS} runs, made in {made_s:.0f} s; a server that starts without a list knows all of"
            f" them after {known_s:.0f} s, holding {server.rss_bytes() / 1e6:.0f} MB.\n"
        )
        _measure(server, found)
    return found


def _make_runs(root: Path) -> None:
    with TraceRecorder(str(root), run=_FIRST, system="generic", steps=4, samples=2) as rec:
        rec.record(0, noise=1.0, x=np.zeros((2, 3), np.float32))
    store = open_store(str(root))
    first = read_manifest(store, _FIRST)
    seal = read_document(store, seal_key(_FIRST), Seal)
    copied = [(name, store.read(f"runs/{_FIRST}/{name}")) for name in ("seal.json", seal.index)]
    for number in range(1, RUNS):
        run_id = f"run-{number:07d}"
        manifest = first.model_copy(
            update={
                "id": run_id,
                "uid": f"{number:032x}",
                "system": SYSTEMS[number % len(SYSTEMS)],
                "created": first.created + timedelta(seconds=number),
                "tags": (f"batch-{number % 100}",),
                "metadata": {"seed": number, "model": {"name": f"model-{number % 7}"}},
            }
        )
        create_run(store, manifest)
        for name, data in copied:
            store.create(f"runs/{run_id}/{name}", data)


def _await_runs(server: Server) -> None:
    deadline = time.monotonic() + 300
    while True:
        page = httpx.get(f"{server.url}/runs?limit=1", timeout=60).raise_for_status().json()
        if page["pending"] == 0:
            return
        if time.monotonic() > deadline:
            message = f"{page['pending']} runs are still to be read"
            raise RuntimeError(message)
        time.sleep(0.2)


def _measure(server: Server, found: Findings) -> None:
    lines = [
        "| asked | p50 ms | p95 ms | longest ms | server CPU ms | p95 ms, eight at once |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    everything: list[str] = []
    for kind, paths in _kinds(server).items():
        asked = list(islice(cycle(paths), PAGES))
        everything += asked
        load(server, asked[:5], connections=1)
        alone, many = load(server, asked, connections=1), load(server, asked, connections=8)
        cells = [alone.percentile_s(0.5), alone.percentile_s(0.95), alone.latencies_s[-1]]
        cells += [alone.cpu_each_s, many.percentile_s(0.95)]
        lines.append(f"| {kind} | {' | '.join(f'{cell * 1e3:.2f}' for cell in cells)} |")
    # All kinds in turn: the promised number.
    mixed = everything[:: len(everything) // PAGES] * 2
    rounds = [load(server, mixed, connections=1).percentile_s(0.95) * 1e3 for _ in range(3)]
    remark = f"{RUNS} runs" + ("" if RUNS >= 100_000 else ", not 100,000")
    found.number("runs.list", rounds, remark=remark)
    found.text("\n".join([*lines, ""]))


def _kinds(server: Server) -> dict[str, list[str]]:
    """Return the paths to ask, by what they are."""
    return {
        "the newest 50": ["/runs"],
        "the newest 1000": ["/runs?limit=1000"],
        "of a system": [f"/runs?system={system}" for system in SYSTEMS],
        "with a tag": [f"/runs?tag=batch-{number}" for number in range(100)],
        "with a seed": [f"/runs?meta.seed={number * 97 % RUNS}" for number in range(1, 100)],
        "of a model and a system": [
            f"/runs?meta.model.name=model-{number}&system=dmd2" for number in range(7)
        ],
        "with text in it": [f"/runs?q=run-{number:04d}" for number in range(10)],
        "with text that none has": [f"/runs?q=absent-{number}" for number in range(10)],
        "sorted by id, oldest by time": ["/runs?sort=id", "/runs?sort=created"],
        "page after page": _pages(server, 100),
    }


def _pages(server: Server, count: int) -> list[str]:
    """Return the paths of pages one after another, from the newest."""
    paths = ["/runs?limit=100"]
    with httpx.Client(base_url=server.url) as client:
        while len(paths) < count:
            following = client.get(paths[-1]).raise_for_status().json()["next"]
            if following is None:
                break
            paths.append(f"/runs?limit=100&cursor={following}")
    return paths
