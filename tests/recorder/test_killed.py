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
from tests.recorder.killed_sampler import SAMPLES, STEPS, batches, state
from tests.recorder.reading import committed, zarr_array

if TYPE_CHECKING:
    from archive_schema.store import Store
    from tests.conftest import S3Server

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = 20


def life(url: str, safe_lines: int | None, lives_on_s: float = 0.0) -> set[tuple[int, int]]:
    """Run the sampler until it has said so often that something is safe, and a little longer.

    Returns all that it called safe. With *safe_lines* None it comes to its end.
    """
    command = [sys.executable, str(ROOT / "tests/recorder/killed_sampler.py"), url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(1 + (safe_lines or 0))]
        if safe_lines is not None:
            time.sleep(lives_on_s)
            process.kill()
        lines += process.stdout
        status = process.wait()
    assert lines[0] == "open\n"
    assert status == (0 if safe_lines is None else -signal.SIGKILL)
    words = [line.split() for line in lines[1:]]
    return {(int(start), int(step)) for _, start, step in words}


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
        safe |= life(str(tmp_path), chance.randrange(3), chance.uniform(0, 0.003))
        check(store, safe)

    safe |= life(str(tmp_path), None)

    assert check(store, safe) == 2 * STEPS * len(batches())
    assert RunRecords(store, "r").status() is RunStatus.SEALED
    x = zarr_array(store, "r", "trace/x")
    assert x.shape == (STEPS, SAMPLES, 300)
    assert not np.isnan(x).any()


def test_kills_lose_nothing_on_s3(s3: S3Server) -> None:
    url = s3.fresh_url()
    store = open_store(url)
    safe: set[tuple[int, int]] = set()
    for lines, lives_on_s in ((0, 0.02), (1, 0.01), (3, 0.03), (2, 0.005)):
        safe |= life(url, lines, lives_on_s)
        check(store, safe)

    safe |= life(url, None)

    assert check(store, safe) == 2 * STEPS * len(batches())
    assert RunRecords(store, "r").status() is RunStatus.SEALED
