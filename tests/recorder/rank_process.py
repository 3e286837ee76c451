"""One process of several that record one run: ``rank_process.py STORE WRITER OPTIONS``.

It tells what it does line by line, and goes on when whoever reads it says so. OPTIONS is JSON:
``owns`` [start, stop), ``layers`` [first, last), ``writers``, and ``noise``, which tells the
values of one life from those of another.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ArchiveError
from archive_schema.layout import manifest_key, seal_key
from archive_schema.store import open_store
from recorder import TraceRecorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

STEPS: Final = 3
SAMPLES: Final = 7
TILE: Final = 2
LAYERS: Final = 24
DECLARED: Final[dict[str, Any]] = {
    "steps": STEPS, "samples": SAMPLES, "tile": TILE, "metadata": {"seed": 5},
    "commit_interval_s": 0.01,
}  # fmt: skip


def state(step: int, samples: slice, layer: int | None = None) -> NDArray[np.float32]:
    """Return what a sampler has at a step: noise, which no codec makes smaller."""
    random = np.random.default_rng((step, 1000 if layer is None else layer))
    return random.normal(size=(SAMPLES, 40)).astype(np.float32)[samples]


def record_step(
    rec: TraceRecorder, step: int, samples: slice, layers: range, noise: np.float32
) -> None:
    """Record what one writer has at a step, but for what is there."""
    if 0 in layers:
        rec.record(step, samples=samples, t=step / STEPS, x=state(step, samples) + noise)
    for layer in layers:
        output = state(step, samples, layer) + noise
        rec.record(step, samples=samples, layer=f"blocks.{layer}", output=output)


def record_samples(rec: TraceRecorder, samples: slice) -> None:
    """Record what belongs to samples and not to steps."""
    rec.sample_coordinates(samples, label=np.arange(SAMPLES)[samples])
    rec.inputs(samples=samples, original=state(0, samples) * 2)


class WatchedStore:
    """A real store that tells whom it lets create the two objects that there is one of."""

    def __init__(self, url: str) -> None:
        self._store = open_store(url)
        self.url = self._store.url

    def __getattr__(self, name: str) -> Any:
        operation: Callable[..., Any] = getattr(self._store, name)
        if name != "create":
            return operation

        def create(key: str, data: bytes) -> None:
            operation(key, data)
            if key in (manifest_key("r"), seal_key("r")):
                say(f"created {key.rpartition('/')[2]}")

        return create


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def tell(line: str) -> None:
    """Write a line, and go on when the one who reads it says so, or is gone."""
    say(line)
    sys.stdin.readline()


def main(store: str, writer: str, options: dict[str, Any]) -> None:
    """Record this writer's part."""
    watched: Any = WatchedStore(store)
    owns = slice(*options["owns"]) if "owns" in options else None
    samples = owns or slice(0, SAMPLES)
    layers = range(*options.get("layers", (0, LAYERS)))
    noise = np.float32(options.get("noise", 0))
    tell(f"ready {os.getpid()}")
    with TraceRecorder(
        watched, "r", **DECLARED, writer=writer, owns=owns, writers=options.get("writers")
    ) as rec:
        tell("open")
        done = rec.recorded()
        if samples.start < samples.stop:
            for step in range(STEPS):
                if not done.has(step, samples):
                    record_step(rec, step, samples, layers, noise)
                rec.flush()
                tell(f"safe {step}")
            record_samples(rec, samples)
    say("left")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    except ArchiveError as error:
        say(f"refused {error.kind} {error}")
        raise SystemExit(3) from error
