"""A whole run as one file: 249 steps x 100 samples, scores, probabilities and tokens.

Ways: our virtual `.h5` and `.npz`, decoding every value alone (the limit), and the files written by
h5py and NumPy from arrays that were read with zarr-python first.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import zarr

from archive_schema.store import open_store
from benchmarks.findings import Findings
from benchmarks.measure import compare
from benchmarks.traces import STEPS, record, trace
from server.exporters import export
from server.query import Archive

if TYPE_CHECKING:
    from server.query import RunView

FIELDS = ("sequence", "score_matrix", "prob_matrix")


def report() -> Findings:
    """Return the table of whole exports, and the time to the first byte."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        record(root)
        run = Archive(open_store(str(root)), cache_bytes=0).run("r")
        # First, because layouts of files that were given lately are kept.
        found = Findings()
        _first_bytes(run, found)
        _verify(run, root)
        rows = compare(
            {
                "decode alone": lambda: _decode(run),
                "our .h5": lambda: _drain(run, "h5"),
                "our .npz": lambda: _drain(run, "npz"),
                "zarr-python + h5py": lambda: _h5py(root),
                "zarr-python + np.savez": lambda: _savez(root),
            },
            reference="decode alone",
            rounds=3,
        )
        found.table("Whole run as a file", rows, "decode alone")
        return found


def _verify(run: RunView, root: Path) -> None:
    target = root / "ours.h5"
    with target.open("wb") as file:
        virtual = export(run, "h5").file
        for part in virtual.read(0, virtual.size):
            file.write(part)
    with h5py.File(target, "r") as ours:
        for step in (0, STEPS - 1):
            for name in FIELDS:
                values = ours[f"steps/step_{step:04d}/{name}"][()]
                np.testing.assert_array_equal(values, trace().step(step)[name])


def _decode(run: RunView) -> None:
    for name in FIELDS:
        for _ in run.field(name).select({}).pieces():
            pass


def _drain(run: RunView, format_name: str) -> None:
    virtual = export(run, format_name).file
    for _ in virtual.read(0, virtual.size):
        pass


def _first_bytes(run: RunView, found: Findings) -> None:
    for format_name in ("h5", "npz"):
        start = time.perf_counter()
        virtual = export(run, format_name).file
        next(iter(virtual.read(0, virtual.size)))
        first_s = time.perf_counter() - start
        found.number(f"file.first_byte.{format_name}", first_s * 1e3)


def _arrays(root: Path) -> dict[str, Any]:
    group = zarr.open_group(root / "runs/r/trace.zarr/trace", mode="r")
    return {name: group[name] for name in FIELDS}


def _h5py(root: Path) -> None:
    arrays = _arrays(root)
    with h5py.File(root / "theirs.h5", "w") as file:
        for step in range(STEPS):
            for name, array in arrays.items():
                file.create_dataset(f"steps/step_{step:04d}/{name}", data=array[step])


def _savez(root: Path) -> None:
    np.savez(root / "theirs.npz", **{name: array[:] for name, array in _arrays(root).items()})
