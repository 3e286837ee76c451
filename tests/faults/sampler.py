"""A sampler in a process of its own: ``sampler.py ORDER`` records what the order says.

It asks the recorder what is recorded already, records the rest, and notes each tile as
acknowledged only after a flush returned: a line in a file that is on the disk before the
sampler goes on. Whoever reads such a line may rely on the tile. A second file tells what is
safe in the spool alone, because the store was away. On its standard output the sampler says
where it is: ``begin``, ``open``, ``ready``, ``sealing``, and what failed, if anything did.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from archive_schema.errors import ArchiveError, ErrorKind, StorageError
from recorder import TraceRecorder
from tests.faults.truth import FIELDS, LAYER, SAMPLES, STEPS, TILE, Tile, truth

FAILED: Final = 3
"""Exit status of a sampler that was told of a failure."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a sampler is to do."""

    store: str
    run: str
    acknowledged: str
    """Path of a file that grows by a line ``FIELD STEP START`` for each tile that is safe."""
    spooled: str
    """Path of such a file for tiles that are safe in the spool."""
    samples: tuple[int, int] = (0, SAMPLES)
    version: int = 0
    """Which values it has."""
    pace_s: float = 0.004
    """What its model takes for a step."""
    flush_every: int = 3
    """Steps between two flushes."""
    meets: bool = False
    """Whether it records only when it is told to by a line, having looked what is recorded."""
    waits: bool = False
    """Whether it stays until its standard input ends."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of `TraceRecorder`."""

    def text(self) -> str:
        """Return the order as an argument."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the order of which this is the text."""
        return cls(**json.loads(text))


class Acknowledged:
    """Tiles that a flush made safe, in files on the disk."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._accepted: list[str] = []

    def accept(self, tile: Tile) -> None:
        """Note a tile that was handed over."""
        self._accepted.append(" ".join(map(str, tile)) + "\n")

    def flush(self, rec: TraceRecorder) -> None:
        """Flush, and note all that was handed over where it is safe."""
        path = self._order.acknowledged
        try:
            rec.flush()
        except StorageError as error:
            if error.kind is not ErrorKind.SPOOLED:
                raise
            path = self._order.spooled
        with Path(path).open("a") as file:
            file.write("".join(self._accepted))
            file.flush()
            os.fsync(file.fileno())
        self._accepted.clear()


def main(order: Order) -> None:
    """Record what is not recorded yet."""
    say("begin")
    safe = Acknowledged(order)
    options = {"steps": STEPS, "samples": SAMPLES, "commit_interval_s": 0.01} | order.options
    with TraceRecorder(order.store, order.run, **options) as rec:
        say("open")
        done = rec.recorded()
        if order.meets:
            say("ready")
            sys.stdin.readline()
        steps = 0
        for start in range(*order.samples, TILE):
            samples = slice(start, start + TILE)
            for step in range(STEPS):
                if done.has(step, samples, FIELDS):
                    continue
                for path in FIELDS:
                    if path in done.fields and done.fields[path].has(step, start, start + TILE):
                        continue
                    layer = LAYER if path.startswith("layers/") else None
                    values = {path.rpartition("/")[2]: truth(path, step, order.version)[samples]}
                    rec.record(step, samples=samples, layer=layer, t=step / STEPS, **values)
                    safe.accept(Tile(path, step, start))
                time.sleep(order.pace_s)
                steps += 1
                if steps % order.flush_every == 0:
                    safe.flush(rec)
        safe.flush(rec)
        say("sealing")
        if order.waits:
            sys.stdin.readline()


def say(word: str) -> None:
    """Tell who waits."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(Order.parse(sys.argv[1]))
    except ArchiveError as error:
        say(json.dumps({"kind": error.kind, "message": str(error)}))
        sys.exit(FAILED)
