"""One process of several that record one run.

It tells what it does line by line, and goes on when whoever hears it says so. Options are
``owns`` [start, stop), ``layers`` [first, last), ``writers``, and ``noise``, which tells the
values of one life from those of another.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ArchiveError
from archive_schema.layout import manifest_key, seal_key
from archive_schema.store import open_store
from recorder import TraceRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

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


@dataclass(frozen=True)
class Words:
    """What a process says, and where it is told to go on."""

    told: Connection
    waiting: Connection

    def say(self, line: str) -> None:
        """Say a line."""
        self.told.send(line)

    def tell(self, line: str) -> None:
        """Say a line, and go on when the one who hears it says so, or has no more to say."""
        self.say(line)
        with suppress(EOFError):
            self.waiting.recv()


class WatchedStore:
    """A real store that tells when it lets somebody create what there is one of."""

    def __init__(self, url: str, words: Words) -> None:
        self._store = open_store(url)
        self._words = words
        self.url = self._store.url

    def __getattr__(self, name: str) -> Any:
        operation: Callable[..., Any] = getattr(self._store, name)
        if name != "create":
            return operation

        def create(key: str, data: bytes) -> None:
            operation(key, data)
            if key in (manifest_key("r"), seal_key("r")):
                self._words.say(f"created {key.rpartition('/')[2]}")

        return create


def record_part(store: str, writer: str, options: dict[str, Any], words: Words) -> None:
    """Record this writer's part."""
    watched: Any = WatchedStore(store, words)
    owns = slice(*options["owns"])
    layers = range(*options.get("layers", (0, LAYERS)))
    noise = np.float32(options.get("noise", 0))
    words.tell("ready")
    with TraceRecorder(
        watched, "r", **DECLARED, writer=writer, owns=owns, writers=options.get("writers")
    ) as rec:
        words.tell("open")
        done = rec.recorded()
        if owns.start < owns.stop:
            for step in range(STEPS):
                if not done.has(step, owns):
                    record_step(rec, step, owns, layers, noise)
                rec.flush()
                words.tell(f"safe {step}")
            record_samples(rec, owns)


def main(
    store: str,
    writer: str,
    options: dict[str, Any],
    environment: Mapping[str, str],
    words: Words,
) -> None:
    """Record, and say at the end how that went."""
    os.environ.update(environment)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            record_part(store, writer, options, words)
        except ArchiveError as error:
            words.say(f"refused {error.kind} {error}")
        else:
            words.say("left")
    for one in warned:
        words.say(f"warned {one.category.__name__} {one.message}")
