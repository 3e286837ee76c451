"""Recording one step: three fields, 0.9 MB as the sampler holds them (tokens are int64).

Ways: the recorder with all its background work, a recorder of one step (what opening and sealing
cost), encoding alone, encoding and one file for all of it, one copy, an append of the raw bytes,
zarr-python, TensorStore and h5py; all with zstd level 1 but the copy, the append, and h5py, which
has gzip (what users have today) or nothing. No way calls fsync: TensorStore's is off.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import tensorstore
import zarr
from zarr.codecs import ZstdCodec

from archive_schema.codecs import encode_tile
from archive_schema.dtypes import to_stored
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from benchmarks.findings import Beside, Findings, row_named
from benchmarks.measure import compare
from benchmarks.traces import STEPS, record, trace
from recorder import TraceRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 5


def report() -> Findings:
    """Return the table of one step's cost, averaged over a run."""
    data = trace()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        numbers = iter(range(10**9))

        def fresh() -> Path:
            folder = root / str(next(numbers))
            folder.mkdir()
            return folder

        encoded = _encoder(root)
        ways: dict[str, Callable[[], object]] = {
            "encode alone": lambda: _drained(encoded()),
            "encode, append": lambda: _append(fresh(), encoded()),
            "recorder, whole": lambda: record(fresh()),
            "recorder, one step": lambda: record(fresh(), steps=1),
            "raw append": lambda: _raw(fresh()),
            "copy alone": _copy,
            "TensorStore": lambda: _tensorstore(fresh()),
            "zarr-python": lambda: _zarr(fresh()),
            "h5py, gzip 4": lambda: _h5py(fresh(), compression="gzip", compression_opts=4),
            "h5py, none": lambda: _h5py(fresh()),
        }

        rows = compare(
            ways,
            reference="encode alone",
            rounds=2 if STEPS < 100 else ROUNDS,
        )
        found = Findings()
        title = f"Recording {STEPS} steps of {data.step_nbytes / 1e6:.2f} MB (whole run)"
        found.table(title, rows, "encode alone")
        whole = row_named(rows, "recorder, whole")
        appended = row_named(rows, "encode, append")
        limit = Beside(appended.name, appended.cpu_ratio / whole.cpu_ratio)
        cpu_ratios = [cpu for cpu, _ in whole.ratios]
        found.number("record.cpu", cpu_ratios, wall=whole.wall_ratio, limit=limit)
        peer = row_named(rows, "TensorStore")
        ratios = [
            theirs / ours for (_, ours), (_, theirs) in zip(whole.ratios, peer.ratios, strict=True)
        ]
        times = peer.wall_ratio / whole.wall_ratio
        found.number("record.throughput", ratios, peer=Beside("TensorStore", times))
        _caller_time(root, found)
    return found


def _fields() -> Iterator[tuple[int, str, np.ndarray[Any, Any]]]:
    for step in range(STEPS):
        for name, values in trace().step(step).items():
            yield step, name, values


def _encoder(root: Path) -> Callable[[], Iterator[bytes]]:
    """Encode with the very declarations that the recorder makes; nothing is put anywhere."""
    folder = root / "declared"
    record(folder, steps=1)
    fields = RunRecords(open_store(str(folder)), "r").ledger.fields
    specs = {ledger.spec.name: ledger.spec for ledger in fields.values()}

    def encode() -> Iterator[bytes]:
        for _, name, values in _fields():
            spec = specs[name]
            yield encode_tile(to_stored(values, spec), spec, spec.block).data

    return encode


def _caller_time(root: Path, found: Findings) -> None:
    """Add what the sampler's own thread pays, against copies of the same bytes."""
    data = trace()
    copy_s = record_s = 0.0
    with TraceRecorder(
        str(root / "caller"), run="r", system="d3-dna", steps=STEPS, samples=data.sequence.shape[1]
    ) as rec:
        for step in range(STEPS):
            fields = data.step(step)
            start = time.thread_time()
            for values in fields.values():
                values.copy()
            copied = time.thread_time()
            rec.record(step, timestep=step / STEPS, **fields)
            record_s += time.thread_time() - copied
            copy_s += copied - start
    tensors = 3 * STEPS
    extra_us = (record_s - 1.2 * copy_s) / tensors * 1e6
    found.number("record.caller", extra_us, limit=Beside("one copy", copy_s / record_s))
    found.text(
        f"Caller's thread: {record_s / STEPS * 1e3:.3f} ms CPU a step against"
        f" {copy_s / STEPS * 1e3:.3f} ms for one copy of the bytes;"
        f" beyond 1.2 copies: {extra_us:.0f} µs a tensor.\n"
    )


def _drained(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


def _append(folder: Path, pieces: Iterator[bytes]) -> None:
    with (folder / "encoded").open("wb", buffering=0) as file:
        for piece in pieces:
            file.write(piece)


def _copy() -> None:
    for _, _, values in _fields():
        values.copy()


def _raw(folder: Path) -> None:
    with (folder / "raw").open("wb") as file:
        for _, _, values in _fields():
            file.write(values.data)


def _tensorstore(folder: Path) -> None:
    context = tensorstore.Context({"file_io_sync": False})
    arrays = {
        name: tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": f"{folder}/{name}/"},
                "metadata": {
                    "shape": [STEPS, *values.shape],
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": [1, *values.shape]},
                    },
                    "data_type": _stored(values).dtype.name,
                    "codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "zstd", "configuration": {"level": 1}},
                    ],
                },
                "create": True,
            },
            context=context,
        ).result()
        for name, values in trace().step(0).items()
    }
    writes = [arrays[name][step].write(_stored(values)) for step, name, values in _fields()]
    for write in writes:
        write.result()


def _zarr(folder: Path) -> None:
    group = zarr.create_group(folder / "zarr")
    for name, values in trace().step(0).items():
        group.create_array(
            name,
            shape=(STEPS, *values.shape),
            chunks=(1, *values.shape),
            dtype=_stored(values).dtype,
            compressors=ZstdCodec(level=1),
        )
    arrays: dict[str, Any] = {name: group[name] for name in trace().step(0)}
    for step, name, values in _fields():
        arrays[name][step] = _stored(values)


def _h5py(folder: Path, **compression: Any) -> None:
    with h5py.File(folder / "run.h5", "w") as file:
        for step, name, values in _fields():
            file.create_dataset(f"steps/step_{step:04d}/{name}", data=values, **compression)


def _stored(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give every way the byte-sized tokens that the recorder stores."""
    return values.astype(np.uint8) if values.dtype == np.int64 else values
