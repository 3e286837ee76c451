"""Do the study: ``python -m benchmarks.vizfold_study [FOLDER]``; `QUICK=1` makes it small.

A whole run writes its tables and plots into this folder; a quick one beside the other partial
reports, because its numbers must not be taken for the study's.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.traces import QUICK
from benchmarks.vizfold_study.experiments import measure
from benchmarks.vizfold_study.plots import plot
from benchmarks.vizfold_study.report import markdown, write_csv
from benchmarks.vizfold_study.traces import FoldingTrace

WHOLE: Final = ((256, 12), (512, 6), (1024, 2))
"""N and layers. The original has 12 layers at each N; at N = 1024 its archives together would
take 34 GB and half an hour of Deflate, so that larger N have fewer, in every format."""
SMALL: Final = ((128, 2), (256, 2))
PACKAGES: Final = ("trace-archive", "numpy", "zarr", "h5py", "numcodecs")


def main() -> int:
    """Measure, and write what was found."""
    home = Path(__file__).parent
    folder = home.parent / "report" / "partial" / home.name if QUICK else home
    folder = Path(sys.argv[1]) if sys.argv[1:] else folder
    found = []
    for residues, layers in SMALL if QUICK else WHOLE:
        found.append(measure(FoldingTrace(residues, layers)))
        print(f"{time.strftime('%H:%M:%S')} N = {residues} done", flush=True)
    residues, layers = (128, 2) if QUICK else (512, 3)
    realistic = measure(FoldingTrace(residues, layers, "realistic"), thorough=False)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    folder.mkdir(parents=True, exist_ok=True)
    page = markdown(f"{machine}; {versions}", [*found, realistic])
    (folder / "results.md").write_text(page)
    write_csv(folder, [*found, realistic])
    plot(folder, found)
    print(f"written to {folder / 'results.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
