"""Opening a run of 10,000 steps on S3 for the first time, and looking after it as it grows.

Three fields of one tile a step, a commit a step: more commits than a recorder makes, which puts
several steps into one where it is quick. Nothing of the tiles is read, so they are only named.
Through a proxy that takes 20 ms longer and counts the requests. `QUICK=1` takes 1,000 steps.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.documents import document_bytes
from archive_schema.layout import commit_key, run_prefix, seal_key
from archive_schema.ledger import Ledger
from archive_schema.models import Commit, Seal, StepColumn, TileColumns
from archive_schema.store import StoreOptions, open_store
from benchmarks.findings import Findings
from benchmarks.s3 import far_away, s3_server
from benchmarks.traces import QUICK
from server.query import Archive
from tests.query.builder import NOW, Builder, spec_of
from tests.s3_server import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable

    from archive_schema.store import Store

URL: Final = f"s3://{BUCKET}/bench"
STEPS: Final = 1000 if QUICK else 10_000
FIELDS: Final = ("sequence", "score_matrix", "prob_matrix")
BLOCKS: Final = 10
ROUNDS: Final = 3
DELAY_S: Final = 0.02


def report() -> Findings:
    """Return requests and times of first looks and of those that follow."""
    found = Findings()
    lines = ["| | ms | requests |", "|---|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder) / "s3") as endpoint:
        store = open_store(URL)
        _live(store)
        _sealed(store)
        with far_away(endpoint, DELAY_S) as (far, requests):
            there = open_store(URL, StoreOptions(endpoint_url=far))

            def measured(what: str, call: Callable[[], object], rounds: int = ROUNDS) -> None:
                taken, before = [], requests()
                for _ in range(rounds):
                    start = time.perf_counter()
                    call()
                    taken.append(time.perf_counter() - start)
                asked = (requests() - before) / rounds
                lines.append(f"| {what} | {statistics.median(taken) * 1e3:.0f} | {asked:.0f} |")

            measured("open it sealed", lambda: _opened(there, "sealed"))
            measured("open it live", lambda: _opened(there, "live"), rounds=1)
            with Archive(there, refresh_s=0) as archive:
                archive.run("live")
                measured("look for what is new in it, live", lambda: archive.run("live"))
    found.text(f"### A run of {STEPS:,} steps on S3 + 20 ms\n")
    found.text("\n".join([*lines, ""]))
    return found


def _opened(store: Store, run_id: str) -> None:
    with Archive(store) as archive:
        steps = archive.run(run_id).steps
    if len(steps) != STEPS:
        raise AssertionError(f"{run_id} has {len(steps)} steps, expected {STEPS}")


def _declared(store: Store, run_id: str) -> Builder:
    run = Builder(store, run_id, uid=run_id, steps=STEPS, samples=100)
    values = np.zeros((100, 249, 4), np.float16)
    return run.declare(*(spec_of(n, values, tile=100, block=(BLOCKS, 249, 4)) for n in FIELDS))


def _commit(step: int) -> Commit:
    tiles = tuple(
        TileColumns(
            field=f"trace/{name}", step=(step,), tile=(0,), samples=(100,),
            nbytes=(15_000 * BLOCKS + 164,), crc32c=(step,), crc32=(step,),
            blocks=((15_000,) * (100 // BLOCKS),),
        )
        for name in FIELDS
    )  # fmt: skip
    columns = tuple(
        StepColumn(name=name, dtype="float64", step=(step,), value=(step / STEPS,))
        for name in ("timestep", "noise_level", "noise_rate")
    )
    return Commit(writer="main", epoch=0, sequence=step, time=NOW, tiles=tiles, steps=columns)


def _live(store: Store) -> None:
    _declared(store, "live")

    def put(step: int) -> None:
        store.write(commit_key("live", "main", 0, step), document_bytes(_commit(step)))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(STEPS)))


def _sealed(store: Store) -> None:
    run, ledger = _declared(store, "sealed"), Ledger()
    for path, spec in run.specs.items():
        ledger.declare(path, spec)
    for step in range(STEPS):
        ledger.add(_commit(step))
    data = document_bytes(ledger.index())
    name, tiles = f"index-{crc32c(data):08x}.json", len(FIELDS) * STEPS
    store.write(f"{run_prefix('sealed')}/{name}", data)
    seal = Seal(time=NOW, index=name, index_crc32c=crc32c(data), samples=100, tiles=tiles, nbytes=0)
    store.write(seal_key("sealed"), document_bytes(seal))
