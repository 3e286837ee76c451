"""The experiments at one size: written once, checked byte for byte, read in interleaved rounds."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.traces import QUICK
from benchmarks.vizfold_study.cold import read_cold
from benchmarks.vizfold_study.formats import FORMATS, NOT_BY_WINDOW, files_of
from benchmarks.vizfold_study.parallel import WORKERS, Workers, by_threads
from benchmarks.vizfold_study.results import Results
from benchmarks.vizfold_study.timing import LONG_ROUNDS, compare, once, summed
from benchmarks.vizfold_study.traces import HEADS
from benchmarks.vizfold_study.windows import SIZE, read_windows, windows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.vizfold_study.formats import Reader
    from benchmarks.vizfold_study.timing import Timing
    from benchmarks.vizfold_study.traces import FoldingTrace

ROUNDS: Final = 3 if QUICK else 5
WINDOWS: Final = 200
"""Read by all workers together."""


def measure(trace: FoldingTrace, *, thorough: bool = True) -> Results:
    """Do all experiments, or with *thorough* false only size, layers, heads and windows.

    Raises
    ------
    AssertionError
        If a format gives other bytes than it was given.
    """
    results = Results(trace)
    with tempfile.TemporaryDirectory(prefix="vizfold-study-") as name:
        folder = Path(name)
        _write(results, folder)
        readers = {name: reader(folder / file) for name, (file, _, reader) in FORMATS.items()}
        try:
            _check(trace, readers)
            if thorough:
                _read_all(results, readers)
            _read_parts(results, readers)
            if thorough:
                _read_at_once(results, readers, folder)
            read_cold(results, readers, folder)
        finally:
            for reader in readers.values():
                reader.close()
    return results


def _write(results: Results, folder: Path) -> None:
    writers = {name: writer(folder / file) for name, (file, writer, _) in FORMATS.items()}
    taken: dict[str, list[Timing]] = {name: [] for name in writers}
    for path, values in results.trace.arrays():
        for name, writer in writers.items():
            taken[name].append(once(partial(writer.put, path, values)))
    for name, writer in writers.items():
        taken[name].append(once(writer.close))
        found = files_of(folder / FORMATS[name][0])
        results.stored[name] = (sum(file.stat().st_size for file in found), len(found))
    results.timings["write"] = {name: summed(timings) for name, timings in taken.items()}


def _check(trace: FoldingTrace, readers: dict[str, Reader]) -> None:
    """Compare everything that every format gives, whole and in part, with what it was given."""
    for path, values in trace.arrays():
        inner = (HEADS // 2, slice(5, 5 + SIZE), slice(3, 3 + SIZE))
        for name, reader in readers.items():
            read = reader.open(path)
            given = read(())
            same = given.dtype == values.dtype and np.array_equal(given, values)
            if path.startswith("attention"):
                same = same and np.array_equal(read(inner), values[inner])
                same = same and np.array_equal(read((3,)), values[3])
            if not same:
                message = f"{name} gave other values of {path}"
                raise AssertionError(message)


def _read_all(results: Results, readers: dict[str, Reader]) -> None:
    def everything(reader: Reader) -> Callable[[], None]:
        def way() -> None:
            for path in results.trace.paths:
                reader.open(path)(())

        return way

    ways = {name: everything(reader) for name, reader in readers.items()}
    results.timings["full"] = compare(ways, LONG_ROUNDS)


def _read_parts(results: Results, readers: dict[str, Reader]) -> None:
    trace = results.trace
    layers = [f"attention/layer_{number}" for number in range(trace.layers)]

    def whole_layer(reader: Reader) -> Callable[[], object]:
        paths = cycle(layers)
        return lambda: reader.open(next(paths))(())

    def one_head(reader: Reader) -> Callable[[], object]:
        places = cycle([(path, head) for head in range(HEADS) for path in layers])

        def way() -> None:
            path, head = next(places)
            reader.open(path)((head,))

        return way

    def one_window(reader: Reader) -> Callable[[], object]:
        windows = cycle(windows_of(trace, 1000))
        return lambda: read_windows(reader, [next(windows)])

    def kept_window(reader: Reader) -> Callable[[], object]:
        opened = {path: reader.open(path) for path in layers}
        windows = cycle(windows_of(trace, 1000))

        def way() -> None:
            window = next(windows)
            opened[window.path](window.place)

        return way

    for name, way in (("layer", whole_layer), ("head", one_head), ("window", one_window)):
        ways = {format_: way(reader) for format_, reader in readers.items()}
        results.timings[name] = compare(ways, ROUNDS)
    kept = {n: kept_window(reader) for n, reader in readers.items() if n not in NOT_BY_WINDOW}
    results.timings["window kept"] = compare(kept, ROUNDS)


def _read_at_once(results: Results, readers: dict[str, Reader], folder: Path) -> None:
    drawn = windows_of(results.trace, 50 * WINDOWS)
    # New ones at every call: nobody profits from having planned or read them before.
    shares = cycle([drawn[at : at + WINDOWS] for at in range(0, len(drawn), WINDOWS)])
    names = [name for name in readers if name not in NOT_BY_WINDOW]
    with Workers(folder) as workers:
        for name in names:
            workers.warm(name, drawn[:4])
        for count in WORKERS:
            threads: dict[str, Callable[[], object]] = {}
            processes: dict[str, Callable[[], object]] = {}
            for name in names:
                threads[name] = partial(by_threads, readers[name], shares, count)
                processes[name] = partial(workers.by_processes, name, shares, count)
            results.timings[f"threads {count}"] = compare(threads, LONG_ROUNDS)
            results.timings[f"processes {count}"] = compare(processes, LONG_ROUNDS)
