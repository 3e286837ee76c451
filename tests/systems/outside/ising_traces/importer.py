"""Files that `ising` writes: a line of names, then each sweep with a row of letters a chain."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from archive_schema.store import StoreOptions
from recorder.importers import FileImporter, Findings, ForeignFile, Progress, Sink, open_foreign

LARGEST = 1 << 30


class Spins:
    """One file, understood as a run."""

    tile = None  # a sweep is handed over at once

    def __init__(self, file: ForeignFile, up: str) -> None:
        if file.nbytes > LARGEST:
            raise file.refuse(f"has {file.nbytes} bytes, more than the {LARGEST} that are read")
        first, *lines = file.stream.read().decode("ascii", "replace").splitlines() or [""]
        if not (head := re.fullmatch(r"#ising chains=(\S+)", first)):
            raise file.refuse(f"expected #ising chains=…, found {first[:40]!r}")
        self.chains = head[1].split(",")
        self.samples = len(self.chains)
        self.metadata = {"sampler": "ising"}
        self.findings = Findings("1")
        self._sweeps: dict[int, tuple[float, list[list[bool]]]] = {}
        for at in range(0, len(lines), 1 + self.samples):
            said, rows = lines[at], lines[at + 1 : at + 1 + self.samples]
            if not (sweep := re.fullmatch(r"sweep=(\d{1,9}) beta=(\d+\.\d+)", said)):
                raise file.refuse(f"expected sweep=… beta=…, found {said[:40]!r}")
            if len(rows) < self.samples:
                self.findings.odd.append(f"{said} is cut short: left out")
            elif len(set(map(len, rows))) > 1:
                raise file.refuse(f"{said}: rows of different lengths")
            else:
                spins = [[letter == up for letter in row] for row in rows]
                self._sweeps[int(sweep[1])] = (float(sweep[2]), spins)
        self.steps = tuple(sorted(self._sweeps))

    def feed(self, sink: Sink, progress: Progress) -> None:
        """Hand everything over."""
        sink.sample_coordinates(slice(0, self.samples), chain=self.chains)
        for done, (sweep, (beta, spins)) in enumerate(sorted(self._sweeps.items()), 1):
            values = np.array(spins, np.int64)
            sink.record(sweep, slice(0, self.samples), beta=beta, spins=values)
            progress(done, len(self._sweeps))


@contextmanager
def open_spins(url: str, options: StoreOptions | None, *, up: str = "+") -> Iterator[Spins]:
    """Open the file at *url*, a path or any URL."""
    with open_foreign(url, options) as file:
        yield Spins(file, up)


IMPORTER = FileImporter(
    open=open_spins,
    signs=("*.spins",),
    flags={"up": "the letter of a spin that points up; + if it is not said"},
)
