"""The same reads after the operating system has forgotten the files, as far as it can be asked."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.vizfold_study.formats import FORMATS, NOT_BY_WINDOW, files_of
from benchmarks.vizfold_study.timing import LONG_ROUNDS, Timing, middle, once
from benchmarks.vizfold_study.windows import read_windows, windows_of

if TYPE_CHECKING:
    from benchmarks.vizfold_study.formats import Reader
    from benchmarks.vizfold_study.results import Results


def read_cold(results: Results, readers: dict[str, Reader], folder: Path) -> None:
    """Read after the system was asked to forget the files: once a turn, because then it knows."""
    os.sync()
    trace = results.trace
    path = f"attention/layer_{trace.layers - 1}"
    windows = [window for window in windows_of(trace, 1000) if window.path == path][:8]
    layer: dict[str, list[Timing]] = {name: [] for name in readers}
    some: dict[str, list[Timing]] = {name: [] for name in readers}
    for _ in range(LONG_ROUNDS):
        for name, reader in readers.items():
            files = _files_of_layer(folder / FORMATS[name][0], path)
            _forget(files)
            before = _disk_nbytes()
            layer[name].append(once(partial(_layer, reader, path)))
            stored = results.stored[name][0] * trace.nbytes(path) / results.nbytes
            results.uncached[name] = (_disk_nbytes() - before) / stored
            if name not in NOT_BY_WINDOW:
                _forget(files)
                some[name].append(once(partial(read_windows, reader, windows)))
    results.timings["layer cold"] = {name: middle(taken) for name, taken in layer.items()}
    results.timings["windows cold"] = {n: middle(taken) for n, taken in some.items() if taken}


def _layer(reader: Reader, path: str) -> None:
    reader.open(path)(())


def _files_of_layer(target: Path, path: str) -> list[Path]:
    """Return the files that hold an array of a layer; a single file holds all of them."""
    layer = path.rpartition("/")[2]
    found = files_of(target)
    return found if target.is_file() else [f for f in found if layer in f.parts]


def _forget(files: list[Path]) -> None:
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _disk_nbytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
