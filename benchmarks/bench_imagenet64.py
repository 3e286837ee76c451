"""Importing ImageNet64's files, against reading them as the visualizer does.

Two files of 20,000 images each (12,288 bytes an image, noise over smooth shapes), as
`numpy.savez_compressed` writes them and as `numpy.savez` does, into a folder. Beside it what nobody
can do without, to inflate the files, and what upstream's loader does to count and to take images:
`numpy.load` of each whole file. Memory is the most over what the process held before, of an import
in a process of its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.store import open_store
from benchmarks.findings import Beside, Findings, row_named
from benchmarks.measure import compare
from benchmarks.servers import Measured
from benchmarks.traces import QUICK
from recorder.importers import import_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROWS: Final = 2_000 if QUICK else 20_000
FILES: Final = 2
ROUNDS: Final = 2 if QUICK else 3
SHAPE: Final = (3, 64, 64)
_OURS: Final = "import, deflated"


def report() -> Findings:
    """Return images a second, and the memory of an import."""
    found = Findings()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, save in (("deflated", np.savez_compressed), ("stored", np.savez)):
            (root / folder).mkdir()
            for number in range(1, FILES + 1):
                images, labels = _images(number)
                path = root / folder / f"train_data_batch_{number}.npz"
                save(path, data=images, labels=labels, mean=images.mean(axis=0))
        count = itertools.count()

        def imported(folder: str) -> None:
            _import(root / folder, root / "archive" / str(next(count)))

        ways: dict[str, Callable[[], object]] = {
            _OURS: partial(imported, "deflated"),
            "import, stored": partial(imported, "stored"),
            "inflate alone": partial(_inflate, root / "deflated"),
            "numpy.load, deflated": partial(_load, root / "deflated"),
        }
        rows = compare(ways, reference="inflate alone", rounds=ROUNDS)
        found.table(f"{FILES * ROWS:,} images of 64 x 64", rows, "inflate alone")
        slowest = max(
            (row_named(rows, way) for way in ways if "import" in way), key=lambda r: r.wall_s
        )
        grown = _memory(root)
        loading = row_named(rows, "numpy.load, deflated")
        floor = row_named(rows, "inflate alone")
        found.number(
            "import.imagenet64",
            FILES * ROWS / slowest.wall_s,
            peer=Beside("numpy.load of each file", loading.wall_s / slowest.wall_s),
            limit=Beside("inflate alone", floor.wall_s / slowest.wall_s),
            remark=f"{slowest.name}, the slower; memory grew by {grown / 1e6:.0f} MB",
        )
        nbytes = FILES * ROWS * int(np.prod(SHAPE))
        found.text(
            f"An import of {nbytes / 1e6:.0f} MB of images took {grown / 1e6:.0f} MB of memory more"
            " than the process held before.\n"
        )
    return found


def _images(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images as a file has them: smooth shapes under noise, and labels from 1."""
    rng = np.random.default_rng(seed)
    images = np.empty((ROWS, int(np.prod(SHAPE))), np.uint8)
    for start in range(0, ROWS, 1000):
        coarse = rng.integers(40, 216, (min(1000, ROWS - start), 3, 8, 8), np.uint8)
        smooth = coarse.repeat(8, axis=2).repeat(8, axis=3)
        noise = rng.integers(-24, 24, smooth.shape, np.int8)
        images[start : start + 1000] = (smooth + noise).astype(np.uint8).reshape(len(coarse), -1)
    return images, rng.integers(1, 1001, ROWS)


def _import(source: Path, target: Path) -> None:
    import_file("imagenet64", source, open_store(target), "r")


def _inflate(folder: Path) -> None:
    for path in folder.iterdir():
        with zipfile.ZipFile(path) as archive, archive.open("data.npy") as member:
            while member.read(1 << 20):
                pass


def _load(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with np.load(path) as file:
            total += len(file["data"])
    return total


def _memory(root: Path) -> int:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_grown, root).result()


def _grown(root: Path) -> int:
    process = Measured(os.getpid())
    before = process.rss_bytes()
    process.forget_peak()
    _import(root / "deflated", root / "archive" / "memory")
    return process.peak_rss_bytes() - before
