"""A whole run as one file: 249 steps x 100 samples, scores, probabilities and tokens.

In process: our virtual `.h5` and `.npz`, decoding every value alone (the limit), and the files that
h5py and NumPy write from arrays read with zarr-python. Over HTTP, from a server process: the first
byte of the first download after a start, how much the server's memory grows while a large run
is downloaded (its values are 2 GB and compress to little, so that the disk is not what is
measured), and what h5py fetches that opens the file where it lies and reads one dataset.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec
import h5py
import httpx
import numpy as np
import zarr

from archive_schema.store import open_store
from benchmarks.findings import Findings
from benchmarks.measure import compare
from benchmarks.servers import archive_server
from benchmarks.traces import QUICK, STEPS, record, trace
from recorder import TraceRecorder
from server.exporters import export
from server.query import Archive

if TYPE_CHECKING:
    from benchmarks.servers import Server
    from server.query import RunView

FIELDS: Final = ("sequence", "score_matrix", "prob_matrix")
FORMATS: Final = ("h5", "npz")
LIMIT: Final = "decode alone"
ROUNDS: Final = 3 if QUICK else 5
STARTS: Final = 2 if QUICK else 5
LARGE_STEPS: Final = 64 if QUICK else 500
LARGE_SHAPE: Final = (4, 1 << 18)
"""Of a step, float32: 4 MiB."""


def report() -> Findings:
    """Return the table of whole exports, and what downloads cost."""
    found = Findings()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        record(root)
        run = Archive(open_store(str(root)), cache_bytes=0).run("r")
        _verify(run, root)
        rows = compare(
            {
                LIMIT: lambda: _decode(run),
                "our .h5": lambda: _drain(run, "h5"),
                "our .npz": lambda: _drain(run, "npz"),
                "zarr-python + h5py": lambda: _h5py(root),
                "zarr-python + np.savez": lambda: _savez(root),
            },
            reference=LIMIT,
            rounds=ROUNDS,
        )
        found.table("Whole run as a file", rows, LIMIT)
        theirs = {"h5": "zarr-python + h5py", "npz": "zarr-python + np.savez"}
        for name in FORMATS:
            found.faster(
                f"file.speed.{name}",
                rows,
                way=f"our .{name}",
                than=LIMIT,
                peer=theirs[name],
                limit=LIMIT,
            )
        _first_bytes(root, found)
        _record_large(root)
        with archive_server(root) as server:
            _memory(server, found)
            _remote_dataset(server, found)
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


def _first_bytes(root: Path, found: Findings) -> None:
    """Start a server for each download: layouts of files that were given lately are kept."""
    for name in FORMATS:
        taken_ms = []
        for _ in range(STARTS):
            with archive_server(root) as server, httpx.Client() as client:
                client.get(f"{server.url}/runs/r").raise_for_status()
                start_s = time.perf_counter()
                with client.stream("GET", f"{server.url}/runs/r.{name}") as answer:
                    next(answer.raise_for_status().iter_raw())
                    taken_ms.append((time.perf_counter() - start_s) * 1e3)
        found.number(
            f"file.first_byte.{name}", taken_ms, remark="over HTTP, the first after a start"
        )


def _record_large(root: Path) -> None:
    store = str(root)
    with TraceRecorder(store, "large", steps=LARGE_STEPS, samples=LARGE_SHAPE[0]) as rec:
        for step in range(LARGE_STEPS):
            rec.record(step, x=np.full(LARGE_SHAPE, step, np.float32))


def _memory(server: Server, found: Findings) -> None:
    grown_mb, lines = [], []
    for name in FORMATS:
        server.forget_peak()
        before, cpu_s, start_s = server.rss_bytes(), server.cpu_s(), time.perf_counter()
        length = 0
        with httpx.stream("GET", f"{server.url}/runs/large.{name}", timeout=300) as answer:
            for part in answer.raise_for_status().iter_raw():
                length += len(part)
        wall_s, cpu_s = time.perf_counter() - start_s, server.cpu_s() - cpu_s
        if length != int(answer.headers["Content-Length"]):
            message = f"expected {answer.headers['Content-Length']} bytes, got {length}"
            raise AssertionError(message)
        grown_mb.append((server.peak_rss_bytes() - before) / 1e6)
        lines.append(
            f"`.{name}` of {length / 1e9:.2f} GB: {length / wall_s / 1e6:.0f} MB/s,"
            f" server CPU {cpu_s:.2f} s, {grown_mb[-1]:.0f} MB more memory than before"
            f" ({before / 1e6:.0f} MB)."
        )
    found.number("file.memory", max(grown_mb), remark=f"of a file of {length / 1e9:.1f} GB")
    found.text("\n\n".join([*lines, ""]))


def _remote_dataset(server: Server, found: Findings) -> None:
    """Add what opening a remote file and reading one dataset of it fetches."""
    lines = []
    step = LARGE_STEPS // 2
    for named, options in (
        ("as fsspec opens it", {}),
        ("without its read-ahead", {"cache_type": "bytes", "block_size": 1 << 16}),
    ):
        opened = fsspec.open(f"{server.url}/runs/large.h5", **options).open()
        with opened as remote, h5py.File(remote, "r") as file:
            name = f"steps/step_{step:04d}/x"
            values = file[name][()]
            if not np.array_equal(values, np.full(LARGE_SHAPE, step, np.float32)):
                message = f"other values in {name}"
                raise AssertionError(message)
            fetched, size = remote.cache.total_requested_bytes, remote.size
        lines.append(
            f"h5py on the remote `.h5` of {size / 1e6:.0f} MB, {named}: one dataset of"
            f" {values.nbytes / 1e6:.1f} MB fetches {fetched / 1e6:.1f} MB.\n"
        )
    found.text("\n".join(lines))


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
