"""A sampler in a process of its own: records the next step when it is told to.

Arguments: store, run, steps, how it ends (``seal`` or ``fail``). Reads a line from standard
input before each step.
"""

from __future__ import annotations

import sys

import numpy as np

from recorder import TraceRecorder


def main(store: str, run: str, steps: int, end: str) -> None:
    """Record *steps* steps of ``x``: four samples that hold the step's number."""
    with TraceRecorder(store, run, samples=4, commit_interval_s=0) as recorder:
        for step in range(steps):
            sys.stdin.readline()
            recorder.record(step, x=np.full((4, 3), step, "f4"), t=step / 10)
            recorder.flush()
        sys.stdin.readline()
        if end == "fail":
            raise RuntimeError("out of memory")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
