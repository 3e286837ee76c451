"""Make the stored runs of the current format version: ``python tests/conformance/record_runs.py``.

A folder that has been released is never made again: every later version must read those very
bytes. Each run has beside it an ``.npz`` of what a reader must get.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np

from archive_schema.layout import tile_key
from archive_schema.models import FORMAT_VERSION, Codec
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder
from recorder.compaction import compact_run
from recorder.maintenance import sweep_compacted_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS, SAMPLES, TILE = 6, 5, 2
HERE: Final = Path(__file__).parent / f"v{FORMAT_VERSION}"


def dense(store: Path, run: str = "dense") -> dict[str, NDArray[Any]]:
    """Record a field of every dtype and codec, a short last tile, layers, and coordinates."""
    random = np.random.default_rng(1)
    lead = (STEPS, SAMPLES)
    expected: dict[str, NDArray[Any]] = {
        "tokens": random.integers(0, 4, (*lead, 7)),
        "half": random.normal(size=(*lead, 7, 4)).astype("float16"),
        "single": random.normal(size=(*lead, 3)).astype("float32"),
        "double": random.normal(size=lead),
        "flags": random.random((*lead, 9)) < 0.5,
        "words": np.array([f"s{n}" for n in range(STEPS * SAMPLES)], "U4").reshape(lead),
        "empty": np.empty((*lead, 0), "int16"),
        "layer": random.normal(size=(*lead, 8)).astype("float16"),
        "quarter": random.normal(size=(*lead, 3)).astype("float32"),
        "brain": random.normal(size=(*lead, 6)).astype(ml_dtypes.bfloat16).astype("float32"),
        "eight": random.normal(size=(*lead, 6)).astype(ml_dtypes.float8_e4m3fn).astype("float16"),
        "inputs": random.integers(0, 4, (SAMPLES, 7)),
    }
    expected["half"][1, 2] = [np.nan, np.inf, -np.inf, 0]
    with TraceRecorder(store, run, steps=STEPS, samples=SAMPLES, tile=TILE) as rec:
        rec.declare("tokens", dims=("sample", "position"), tokens=True)
        rec.declare("half", dims=("sample", "position", "channel"), codec=Codec(name="raw"))
        rec.declare("single", codec=Codec(name="blosc", compressor="lz4", shuffle="bitshuffle"))
        rec.declare("quarter", every=2, first=1)
        rec.declare("brain", storage="bits")
        rec.inputs(inputs=expected["inputs"], samples=slice(0, SAMPLES))
        for start in range(0, SAMPLES, TILE):
            at = slice(start, min(start + TILE, SAMPLES))
            rec.sample_coordinates(samples=at, label=np.arange(SAMPLES)[at] * 10)
            for step in range(STEPS):
                fields: dict[str, Any] = {
                    name: values[step, at]
                    for name, values in expected.items()
                    if name not in ("inputs", "layer", "quarter")
                }
                fields["brain"] = fields["brain"].astype(ml_dtypes.bfloat16)
                fields["eight"] = fields["eight"].astype(ml_dtypes.float8_e4m3fn)
                if step % 2:
                    fields["quarter"] = expected["quarter"][step, at]
                rec.record(step, samples=at, noise=1 / (step + 1), **fields)
                rec.record(step, samples=at, layer="blocks.1", output=expected["layer"][step, at])
    expected["quarter"] = expected["quarter"][1::2]
    return expected


def compacted(store: Path) -> dict[str, NDArray[Any]]:
    """Record the dense run and compact it; what lies in the old generation is gone."""
    expected = dense(store, "compacted")
    opened = open_store(store)
    compact_run(opened, "compacted")
    sweep_compacted_run(opened, "compacted", grace_s=0)
    return expected


def displaced(store: Path) -> dict[str, NDArray[Any]]:
    """Record in two openings, the second of which finds a tile of a dead writer in its place."""
    random = np.random.default_rng(3)
    expected = {"value": random.normal(size=(3, SAMPLES))}
    for opening in range(2):
        with TraceRecorder(store, "displaced", steps=3, samples=SAMPLES, seal_at_exit=False) as rec:
            for step in range(3 if opening else 1):
                rec.record(step, value=expected["value"][step])
        if not opening:
            opened = open_store(store)
            (field,) = RunRecords(opened, "displaced").ledger.fields.values()
            opened.create(tile_key("displaced", field.spec, 1, 0), b"never committed")
    return expected


def sparse(store: Path) -> dict[str, NDArray[Any]]:
    """Record steps far apart, a field whose shape changes, and leave the run unsealed."""
    random = np.random.default_rng(2)
    expected: dict[str, NDArray[Any]] = {
        "value": random.normal(size=(3, SAMPLES)),
        "steps": np.array([0, 10, 245]),
    }
    with TraceRecorder(
        store, "sparse", steps=[0, 10, 245], samples=SAMPLES, seal_at_exit=False
    ) as rec:
        rec.declare("scores", dims=("plate",), ragged=True)
        for row, step in enumerate((0, 10, 245)):
            scores = random.normal(size=row * 3)
            expected[f"scores_{step}"] = scores
            rec.record(step, value=expected["value"][row], scores=scores)
    return expected


RUNS: Final = {
    "dense": dense,
    "compacted": compacted,
    "displaced": displaced,
    "sparse": sparse,
}


def main() -> None:
    """Make the folder of the current version."""
    if HERE.exists():
        sys.exit(f"{HERE} exists; a released folder is never made again")
    HERE.mkdir(parents=True)
    for name, make in RUNS.items():
        expected: dict[str, Any] = {**make(HERE / "store")}
        np.savez_compressed(HERE / f"{name}.npz", **expected)


if __name__ == "__main__":
    main()
