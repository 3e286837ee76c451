"""A compacted run beside the run as it was recorded: how small, how fast, and made how fast.

249 x 100 samples of a D3-DNA trace (`benchmarks.traces`), page cache warm, no block cached. Reads
are compared by value before they are timed, and taken in interleaved rounds.
"""

from __future__ import annotations

import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archive_schema.store import open_store
from benchmarks.findings import Findings
from benchmarks.measure import compare
from benchmarks.traces import SAMPLES, STEPS, record, trace
from recorder.compaction import compact_run
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROUNDS = 7
ONE_SAMPLE = f"one sample through all {STEPS} steps"
_READS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    ONE_SAMPLE: (lambda n: {"sample": n % SAMPLES}, 2),
    f"8 samples through all {STEPS} steps": (lambda n: {"sample": _eight(n)}, 1),
    "8 samples of one step": (lambda n: {"step": n % STEPS, "sample": _eight(n)}, 10),
    f"all {SAMPLES} samples of one step": (lambda n: {"step": n % STEPS}, 3),
}


def report() -> Findings:
    """Return the tables of sizes, of reads, and of compacting itself."""
    with tempfile.TemporaryDirectory() as folder:
        recorded, compacted = Path(folder) / "recorded", Path(folder) / "compacted"
        for root in (recorded, compacted):
            record(root)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        result = compact_run(open_store(compacted), "r")
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        given = STEPS * trace().step_nbytes
        archives = {
            "as recorded": Archive(open_store(recorded), cache_bytes=0),
            "compacted": Archive(open_store(compacted), cache_bytes=0),
        }
        said = (
            f"{result.recorded_nbytes / 1e6:.1f} MB as recorded,"
            f" {result.nbytes / 1e6:.1f} MB compacted:"
            f" {result.recorded_nbytes / result.nbytes:.2f} times smaller;"
            f" {wall_s:.1f} s wall, {cpu_s:.1f} s CPU for {given / 1e6:.0f} MB of values."
        )
        found = Findings()
        found.text("\n".join(["### Compaction", "", said, "", *_sizes(archives), ""]))
        _reads(archives, found)
        return found


def _sizes(archives: dict[str, Archive]) -> Iterator[str]:
    yield "| field | as recorded, MB | compacted, MB | times smaller | codec |"
    yield "|---|---:|---:|---:|---|"
    run = archives["compacted"].run("r")
    for field in run.fields():
        shards = run.shards.get(field.path)
        if shards is None:
            continue
        before, after = field.ledger.nbytes, sum(shards.columns.nbytes)
        codec = shards.codec
        named = f"{codec.name} {codec.level}"
        if codec.name == "blosc":
            named += f" {codec.compressor} {codec.shuffle}"
        yield (
            f"| {field.path} | {before / 1e6:.2f} | {after / 1e6:.2f}"
            f" | {before / after:.2f} | {named} |"
        )


def _reads(archives: dict[str, Archive], found: Findings) -> None:
    for name in ("score_matrix", "sequence"):
        for title, (selection, calls) in _READS.items():
            fields = {way: archive.run("r").field(name) for way, archive in archives.items()}
            for number in (0, 7):
                first, second = (f.select(selection(number)) for f in fields.values())
                equal = first.array().tobytes() == second.array().tobytes()
                if not equal:
                    message = f"{name}, {title}: the ways read other values"
                    raise AssertionError(message)
            ways = {way: _way(field, selection) for way, field in fields.items()}
            rows = compare(ways, reference="compacted", rounds=_ROUNDS, calls=calls)
            found.table(f"{name}: {title}", rows, "compacted")
            if name == "score_matrix" and title == ONE_SAMPLE:
                found.faster("sample.compacted", rows, than="as recorded")


def _way(field: Any, selection: Callable[[int], dict[str, Any]]) -> Callable[[], object]:
    numbers = cycle(range(1000))
    return lambda: field.select(selection(next(numbers))).array()


def _eight(number: int) -> slice:
    start = 8 * number % (SAMPLES - 8)
    return slice(start, start + 8)
