"""A sampler to be killed: ``killed_sampler.py STORE`` records the run and says what is safe.

It prints ``safe START STEP`` only after a flush, so whoever reads the line may rely on it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from recorder import TraceRecorder

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS: Final = 60
SAMPLES: Final = 25
BATCH: Final = 10


def state(step: int, samples: slice) -> NDArray[np.float32]:
    """Return what the sampler has at a step: the same in every life."""
    random = np.random.default_rng(step * 1000 + samples.start)
    return random.normal(size=(samples.stop - samples.start, 300)).astype(np.float32)


def batches() -> list[slice]:
    """Return the batches of the run, the last of which is short."""
    return [slice(a, min(a + BATCH, SAMPLES)) for a in range(0, SAMPLES, BATCH)]


def declaration() -> dict[str, Any]:
    """Return what every life declares."""
    return {"steps": STEPS, "samples": SAMPLES, "commit_interval_s": 0.01}


def tell(line: str) -> None:
    """Write a line, and go on when the one who reads it says so, or is gone."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def main(store: str) -> None:
    """Record what is not recorded yet."""
    with TraceRecorder(store, "r", **declaration()) as rec:
        tell("open")
        done = rec.recorded()
        for samples in batches():
            for step in range(STEPS):
                if done.has(step, samples):
                    continue
                values = state(step, samples)
                rec.record(step, samples=samples, t=step / STEPS, x=values, tokens=values > 0)
                if step % 3 == 0:
                    rec.flush()
                    tell(f"safe {samples.start} {step}")


if __name__ == "__main__":
    main(sys.argv[1])
