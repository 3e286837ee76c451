"""Runs as the files that `ising` reads: computed from slices, with a length before any is read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from archive_schema.models import Place
from ising_traces.system import SYSTEM
from server.exporters import Content, Cut, Exporter, Format, Literal, Values, VirtualFile

LETTERS = np.frombuffer(f"{SYSTEM.vocabulary}\n".encode(), np.uint8)


@dataclass(frozen=True)
class Rows:
    """The spins of one sweep, a line a chain."""

    values: Values

    @property
    def nbytes(self) -> int:
        """Exact length."""
        chains, sites = self.values.shape
        return chains * (sites + 1)

    @property
    def digest(self) -> str:
        """Tells these rows from others; nothing is read for it."""
        return f"rows of {self.values.digest}"

    @property
    def grain(self) -> int:
        """Nothing is read twice if it is not cut."""
        return self.nbytes

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)``."""
        spins = self.values.array()
        ends = np.full((len(spins), 1), len(LETTERS) - 1)
        yield LETTERS[np.hstack([spins, ends])].tobytes()[start:stop]


def spins(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return the file of *cut*, and notes on what it does not hold."""
    ledger = cut.run.ledger
    chains = ledger.sample_coordinates["chain"].array(cut.samples)
    parts: list[Content] = [Literal(f"#ising chains={','.join(chains)}\n".encode())]
    (field,) = (one for one in cut.fields(Place.TRACE) if one.spec.name == "spins")
    for sweep in cut.steps_of(field):
        beta = ledger.step_coordinates["beta"].values[sweep]
        parts.append(Literal(f"sweep={sweep} beta={beta}\n".encode()))
        parts.append(Rows(Values(field, sweep, cut.samples)))
    return VirtualFile(parts), cut.notes


EXPORTER = Exporter(formats={"spins": Format("text/plain", ".spins", spins)})
