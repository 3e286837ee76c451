"""The trace that every benchmark records and reads: the shape of a D3-DNA run.

249 steps x 100 samples x 249 positions x 4, float16 scores and probabilities and int64 tokens:
a simulated discrete diffusion whose scores sharpen as the noise falls. `QUICK=1` takes 32 steps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from recorder import TraceRecorder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

QUICK: Final = os.environ.get("QUICK", "") not in ("", "0")
STEPS: Final = 32 if QUICK else 249
SAMPLES: Final = 100
POSITIONS: Final = 249


@dataclass(frozen=True, slots=True)
class Trace:
    """One run; shapes (STEPS, SAMPLES, POSITIONS[, 4])."""

    sequence: NDArray[np.int64]
    score_matrix: NDArray[np.float16]
    prob_matrix: NDArray[np.float16]

    def step(self, number: int) -> dict[str, Any]:
        """Return the fields of one step."""
        return {
            "sequence": self.sequence[number],
            "score_matrix": self.score_matrix[number],
            "prob_matrix": self.prob_matrix[number],
        }

    @property
    def step_nbytes(self) -> int:
        """Return the bytes that a sampler hands over at one step."""
        return sum(values.nbytes for values in self.step(0).values())


@lru_cache(maxsize=1)
def trace() -> Trace:
    """Return the trace; the same in every process."""
    random = np.random.default_rng(7)
    target = random.integers(0, 4, (SAMPLES, POSITIONS))
    logits = random.normal(0, 1, (SAMPLES, POSITIONS, 4)).astype("float32")
    one_hot = np.eye(4, dtype="float32")[target]
    sequence = np.empty((STEPS, SAMPLES, POSITIONS), np.int64)
    score = np.empty((STEPS, SAMPLES, POSITIONS, 4), np.float16)
    prob = np.empty_like(score)
    tokens = random.integers(0, 4, (SAMPLES, POSITIONS))
    for step in range(STEPS):
        progress = step / STEPS
        noise = random.normal(0, 0.3 * (1 - progress), logits.shape).astype("float32")
        weights = np.exp(logits * (1 - progress) + one_hot * 8 * progress + noise)
        posterior = weights / weights.sum(-1, keepdims=True)
        current = np.take_along_axis(posterior, tokens[..., None], -1)
        sequence[step] = tokens
        score[step] = posterior / np.maximum(current, 1e-4)
        prob[step] = posterior
        moved = random.random(tokens.shape) < progress**2
        tokens = np.where(moved, target, tokens)
    return Trace(sequence, score, prob)


def record(store: Path | str, steps: int = STEPS) -> None:
    """Record the first *steps* steps of the trace as run ``r`` of *store*, sealed."""
    data = trace()
    with TraceRecorder(store, "r", system="d3-dna", steps=STEPS, samples=SAMPLES) as rec:
        for step in range(steps):
            rec.record(
                step, timestep=1 - step / STEPS, noise_level=1.0, noise_rate=1.0, **data.step(step)
            )
