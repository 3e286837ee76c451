"""The numbers that the product promises, each with what must be reached.

A benchmark answers a target by its key (`Findings.number`). One that nobody answered stays in the
report, with the reason, so that nothing is left out in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Target:
    """One number, and how it is compared."""

    key: str
    what: str
    must: str
    """What must be reached, in words."""
    least: float | None = None
    most: float | None = None
    unit: str = "x"
    absent: str = "not measured in this run"
    """Why there may be no number."""

    def reached(self, value: float) -> bool:
        """Return whether *value* is at least `least` and at most `most`."""
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    def margin(self, value: float) -> float:
        """Return how many times better than promised *value* is; below 1 it is not reached."""
        if self.least is not None:
            return value / self.least
        return self.most / value if self.most is not None and value > 0 else float("inf")


_HTTP: Final = "8 samples of one step (16 kB) over HTTP"
_SLICE: Final = "the same read in process"
_SAMPLE: Final = "one sample through all steps, in process"
_S3: Final = "a slice on S3 with warm metadata"
_RECORD: Final = "recording, CPU"
_FILE: Final = "`.h5` and `.npz` of a run"
_VIEWER: Final = "viewer"

_ALL: Final = (
    Target("http.floor", _HTTP, "≥ 0.6 of the requests/s of a bare Starlette route", least=0.6),
    Target("http.tiled", _HTTP, "server CPU a request ≤ 1/30 of Tiled's", least=30),
    Target("http.hsds", _HTTP, "server CPU a request ≤ 1/8 of HSDS's", least=8),
    Target("http.h5grove", _HTTP, "server CPU a request ≤ 1/5 of h5grove's", least=5),
    Target("slice.h5py", _SLICE, "faster than h5py on an equally compressed file", least=1),
    Target("slice.tensorstore", _SLICE, "≥ 4 x TensorStore", least=4),
    Target("slice.zarr", _SLICE, "≥ 10 x zarr-python", least=10),
    Target("sample.zarr", _SAMPLE, "as recorded: ≥ 8 x zarr-python", least=8),
    Target("sample.h5py", _SAMPLE, "as recorded: no slower than h5py, chunked alike", least=1),
    Target("sample.compacted", _SAMPLE, "compacted: ≥ 5 x faster than as recorded", least=5),
    Target("s3.requests", _S3, "exactly one range GET a block range", least=1, most=1, unit=""),
    Target("s3.time", _S3, "≤ 1.15 x the time of that GET alone", most=1.15),
    Target(
        "record.caller",
        _RECORD,
        "caller's time beyond 1.2 copies of the bytes ≤ 25 µs a tensor",
        most=25,
        unit="µs",
    ),
    Target("record.cpu", _RECORD, "whole CPU ≤ 1.3 x encoding alone", most=1.3),
    Target("record.throughput", _RECORD, "throughput ≥ TensorStore", least=1),
    Target("record.memory", _RECORD, "memory ≤ the budget", most=1),
    Target(
        "record.h200",
        "recording, H200",
        "≤ 2 % median step time while demand ≤ 0.8 of the sink's rate",
        most=2,
        unit="%",
        absent="not part of `make bench`: it needs the card",
    ),
    Target("file.first_byte.h5", _FILE, "first byte of the `.h5` ≤ 100 ms", most=100, unit="ms"),
    Target("file.first_byte.npz", _FILE, "first byte of the `.npz` ≤ 100 ms", most=100, unit="ms"),
    Target("file.speed.h5", _FILE, "`.h5` ≥ 0.6 x the speed of decoding alone", least=0.6),
    Target("file.speed.npz", _FILE, "`.npz` ≥ 0.6 x the speed of decoding alone", least=0.6),
    Target("file.memory", _FILE, "≤ 64 MB of extra memory", most=64, unit="MB"),
    Target(
        "import.imagenet64",
        "ImageNet64 batches imported",
        "≥ 5,000 samples/s, memory bounded",
        least=5000,
        unit="samples/s",
    ),
    Target("runs.list", "run list with 100,000 runs", "p95 ≤ 50 ms", most=50, unit="ms"),
    Target(
        "viewer.first",
        _VIEWER,
        "first screen ≤ 60 kB gzip, ≤ 20 requests",
        most=60,
        unit="kB",
        absent="not built yet",
    ),
    Target(
        "viewer.scrub",
        _VIEWER,
        "a step of the scrubber ≤ 5 ms CPU, no request once resident",
        most=5,
        unit="ms",
        absent="not built yet",
    ),
)
TARGETS: Final = {target.key: target for target in _ALL}
