"""Many readers at once: 200 windows shared out among threads of one process, or among processes.

The processes exist, and have their files open, before anything is timed.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from benchmarks.vizfold_study.formats import FORMATS
from benchmarks.vizfold_study.windows import read_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.vizfold_study.formats import Reader
    from benchmarks.vizfold_study.windows import Window

WORKERS: Final = (1, 2, 4, 8, 16)


class Workers:
    """Threads and processes that read windows of one folder's archives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.vizfold_study.parallel"])
        self._processes = [ProcessPoolExecutor(1, mp_context=context) for _ in range(max(WORKERS))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.shutdown()

    def warm(self, name: str, windows: Sequence[Window]) -> None:
        """Let every process open the archive of a format, and read a little."""
        wait([one.submit(_read, str(self._folder), name, windows) for one in self._processes])

    def by_processes(self, name: str, batches: Iterator[Sequence[Window]], count: int) -> float:
        """Read the next of *batches* by *count* processes; return their CPU seconds."""
        windows = next(batches)
        shares = [windows[at::count] for at in range(count)]
        waiting = [
            process.submit(_read, str(self._folder), name, share)
            for process, share in zip(self._processes, shares, strict=False)
        ]
        return sum(one.result() for one in waiting)


def by_threads(reader: Reader, batches: Iterator[Sequence[Window]], count: int) -> None:
    """Read the next of *batches* by *count* threads that share one reader, a window a task."""
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(lambda window: read_windows(reader, [window]), next(batches)):
            pass


def _read(folder: str, name: str, windows: Sequence[Window]) -> float:
    before = time.process_time()
    read_windows(_opened(folder, name), windows)
    return time.process_time() - before


@lru_cache
def _opened(folder: str, name: str) -> Reader:
    file, _, reader = FORMATS[name]
    return reader(Path(folder) / file)
