"""Reading slices in process, page cache warm: float16 scores, zstd level 1, 249 x 100 x 249 x 4.

Ways: the query engine on a recorded run; reading the bytes and decoding them alone, which is the
limit; TensorStore and zarr-python, with its own codecs and with those of zarrs, on the very same
stored run; h5py on datasets of the same chunks: compressed alike (by hdf5plugin), with gzip, and
not compressed. Nobody keeps decoded blocks. We find run and field by name at every read, and look
for new commits; h5py is asked both so and with its dataset kept open. Bytes are compared before
timing.
"""

from __future__ import annotations

import tempfile
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np
import tensorstore
import zarr

from archive_schema.store import open_store
from benchmarks.findings import Findings
from benchmarks.floor import Floor
from benchmarks.measure import compare
from benchmarks.traces import SAMPLES, STEPS, record, trace
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Row

NAME = "score_matrix"
OURS = "trace-archive"
LIMIT = "pread + decode"
ALIKE = "h5py, zstd 1, kept open"
BY_NAME = "h5py, zstd 1, by name"


def report() -> Findings:
    """Return the tables of three reads."""
    found = Findings()
    data = trace()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        record(root)
        block = _archive_block(root)
        with h5py.File(root / "x.h5", "w") as file:
            chunks = (1, block, *data.score_matrix.shape[2:])
            file.create_dataset("none", data=data.score_matrix, chunks=chunks)
            file.create_dataset(
                "gzip", data=data.score_matrix, chunks=chunks, compression="gzip",
                compression_opts=1, shuffle=True,
            )  # fmt: skip
            file.create_dataset(
                "alike", data=data.score_matrix, chunks=chunks, **hdf5plugin.Zstd(clevel=1)
            )
        with h5py.File(root / "x.h5", "r", rdcc_nbytes=0) as file:
            readers = _readers(root, file)
            title = f"8 of {SAMPLES} samples of one step"
            rows = _rows(title, readers, _eight, 200)
            found.table(title, rows, OURS)
            found.faster("slice.h5py", rows, than=ALIKE, limit=LIMIT)
            found.faster("slice.tensorstore", rows, than="TensorStore", limit=LIMIT)
            found.faster("slice.zarr", rows, than="zarr-python", limit=LIMIT)
            title = "all samples of one step"
            found.table(title, _rows(title, readers, _step, 10), OURS)
            title = f"one sample through all {STEPS} steps"
            rows = _rows(title, readers, _sample, 1)
            found.table(title, rows, OURS)
            found.faster("sample.zarr", rows, than="zarr-python", limit=LIMIT)
            found.faster("sample.h5py", rows, than=ALIKE, limit=LIMIT)
    return found


def _readers(root: Path, file: h5py.File) -> dict[str, Callable[[tuple[Any, ...]], Any]]:
    archive = Archive(open_store(str(root)), cache_bytes=0)
    alike = file["alike"]
    path = root / "runs/r/trace.zarr/trace" / NAME
    floor = Floor(archive.run("r").field(NAME), root)
    array: Any = zarr.open_array(path, mode="r")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        rust: Any = zarr.open_array(path, mode="r")
    other = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}},
        context=tensorstore.Context({"cache_pool": {"total_bytes_limit": 0}}),
    ).result()

    def ours(at: tuple[Any, ...]) -> Any:
        field = archive.run("r").field(NAME)
        return field.select(dict(zip(("step", "sample"), at, strict=False))).array()

    return {
        OURS: ours,
        LIMIT: lambda at: floor[at],
        ALIKE: lambda at: alike[at],
        BY_NAME: lambda at: file["alike"][at],
        "h5py, none, by name": lambda at: file["none"][at],
        "h5py, gzip 1, by name": lambda at: file["gzip"][at],
        "TensorStore": lambda at: other[at].read().result(),
        "zarr-python + zarrs": lambda at: rust[at],
        "zarr-python": lambda at: array[at],
    }


def _rows(
    title: str,
    readers: dict[str, Callable[[tuple[Any, ...]], Any]],
    selection: Callable[[int], tuple[Any, ...]],
    calls: int,
) -> list[Row]:
    for name, read in readers.items():
        for number in (0, STEPS - 1):
            expected = trace().score_matrix[selection(number)]
            if not np.array_equal(read(selection(number)), expected, equal_nan=True):
                message = f"{name} read other values in {title!r}"
                raise AssertionError(message)

    def way(read: Callable[[tuple[Any, ...]], Any]) -> Callable[[], object]:
        numbers = cycle(range(STEPS))
        return lambda: read(selection(next(numbers)))

    ways = {name: way(read) for name, read in readers.items()}
    return compare(ways, reference=OURS, rounds=7, calls=calls)


def _eight(number: int) -> tuple[Any, ...]:
    start = 8 * number % (SAMPLES - 8)
    return number % STEPS, slice(start, start + 8)


def _step(number: int) -> tuple[Any, ...]:
    return (number % STEPS,)


def _sample(number: int) -> tuple[Any, ...]:
    return slice(None), number % SAMPLES


def _archive_block(root: Path) -> int:
    spec = Archive(open_store(str(root))).run("r").field(NAME).spec
    return spec.block[0]
