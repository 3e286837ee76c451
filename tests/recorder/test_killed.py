"""`kill -9` at any moment loses nothing that was acknowledged, and leaves nothing in part."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder
from tests.recorder.killed_sampler import SAMPLES, STEPS, batches, declaration, state
from tests.recorder.reading import committed, zarr_array

if TYPE_CHECKING:
    from archive_schema.store import Store
    from tests.s3_server import S3Server

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = 20


def life(url: str, words: int | None, lives_on_s: float = 0.0) -> set[tuple[int, int]]:
    """Let the sampler go on so often, and kill it a little later, wherever it is.

    Returns all that it called safe. With *words* None it comes to its end.
    """
    command = [sys.executable, str(ROOT / "tests/recorder/killed_sampler.py"), url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        if words is None:
            process.stdin.close()
        else:
            process.stdin.write("\n" * words)
            process.stdin.flush()
            time.sleep(lives_on_s)
            process.kill()
        lines = [line.split() for line in process.stdout]
        status = process.wait()
    assert status == (0 if words is None else -signal.SIGKILL)
    return {(int(start), int(step)) for _, start, step in lines}


def check(store: Store, safe: set[tuple[int, int]]) -> int:
    """Hold what is committed to what the sampler had; return the tiles."""
    tiles = committed(store, "r")
    bounds = {samples.start // 10: samples for samples in batches()}
    for (path, step, tile), values in tiles.items():
        had = state(step, bounds[tile])
        np.testing.assert_array_equal(values, had if path == "trace/x" else had > 0)
    for start, step in safe:
        assert {("trace/x", step, start // 10), ("trace/tokens", step, start // 10)} <= set(tiles)
    return len(tiles)


def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    """Each life is checked after its end, and the last one finishes the run."""
    chance = random.Random(1)
    store = open_store(tmp_path)
    safe: set[tuple[int, int]] = set()
    for _ in range(KILLS):
        safe |= life(str(tmp_path), chance.randrange(1, 5), chance.uniform(0, 0.08))
        check(store, safe)

    safe |= life(str(tmp_path), None)

    assert check(store, safe) == 2 * STEPS * len(batches())
    assert RunRecords(store, "r").status() is RunStatus.SEALED
    x = zarr_array(store, "r", "trace/x")
    assert x.shape == (STEPS, SAMPLES, 300)
    assert not np.isnan(x).any()


def test_a_store_that_is_killed_costs_a_wait(s3: S3Server) -> None:
    """The recorder's requests are repeated until the server is back, and nothing is missing."""
    url = s3.fresh_url()
    with TraceRecorder(url, "r", **declaration()) as rec:
        for samples in batches():
            for step in range(STEPS):
                values = state(step, samples)
                rec.record(step, samples=samples, x=values, tokens=values > 0)
            s3.restart()

    store = open_store(url)
    assert check(store, set()) == 2 * STEPS * len(batches())
    assert RunRecords(store, "r").status() is RunStatus.SEALED


def test_kills_lose_nothing_on_s3(s3: S3Server) -> None:
    url = s3.fresh_url()
    store = open_store(url)
    safe: set[tuple[int, int]] = set()
    for words, lives_on_s in ((1, 0.02), (2, 0.1), (4, 0.2), (3, 0.05)):
        safe |= life(url, words, lives_on_s)
        check(store, safe)

    safe |= life(url, None)

    assert check(store, safe) == 2 * STEPS * len(batches())
    assert RunRecords(store, "r").status() is RunStatus.SEALED
