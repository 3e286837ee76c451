"""Lives of `killed_sampler`, each ended by ``kill -9``, and what they leave held to what it had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tests.recorder.killed_sampler import batches, state
from tests.recorder.reading import committed

if TYPE_CHECKING:
    from archive_schema.store import Store

ROOT: Final = Path(__file__).parents[2]


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
