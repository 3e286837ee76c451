"""Final sequences, in the formats in which D3-DNA's sampler saves them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from archive_schema.systems.d3_dna import SYSTEM
from server.exporters.hdf5 import hdf5_file
from server.exporters.hdf5_tree import Dataset, Group
from server.exporters.npz import npz_file
from server.exporters.values import Conversion, Values
from server.exporters.virtual_file import CHUNK_NBYTES, Content, Literal, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from server.exporters.cut import Cut

_UNKNOWN: Final = ord("N")
_FINAL: Final = "final_sequence"
"""Recorded as an output; without it the last recorded state stands in."""


def fasta(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return ``>seq_<sample>`` and the sequence, in two lines a sample."""
    return _lines(cut, b"", lambda sample: f">seq_{sample}\n".encode())


def plain_text(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return one sequence a line."""
    return _lines(cut, b"", lambda _: b"")


def csv(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return a table of ``sequence_id`` and ``sequence``."""
    return _lines(cut, b"sequence_id,sequence\n", lambda sample: f"seq_{sample},".encode())


def tokens_npz(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return ``arr_0``, shape (samples, positions), int64."""
    values, notes = _final(cut)
    return npz_file({"arr_0": values}), notes


def tokens_hdf5(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return the dataset ``sequences``, shape (samples, positions), int64."""
    values, notes = _final(cut)
    return hdf5_file(Group(members={"sequences": Dataset(values)})), notes


def one_hot_npz(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return ``arr_0``, shape (samples, positions, 4), float32; other letters are all zero."""
    letters = len(SYSTEM.vocabulary)
    dtype = np.dtype(np.float32)
    rows = np.eye(256, letters, dtype=dtype)
    one_hot = Conversion("one-hot", dtype, lambda tokens: rows[tokens], (letters,))
    values, notes = _final(cut, one_hot)
    return npz_file({"arr_0": values}), notes


@dataclass(frozen=True)
class _Records:
    """Consecutive samples as text: what comes before each sequence, its letters, a line feed."""

    values: Values
    start: int
    before: tuple[bytes, ...]

    @cached_property
    def nbytes(self) -> int:
        """Exact length."""
        return sum(map(len, self.before)) + len(self.before) * (self.values.shape[1] + 1)

    @property
    def digest(self) -> str:
        """Return a digest of what the text follows from."""
        said = f"{self.values.digest} {self.start} {self.before}"
        return blake2b(said.encode(), digest_size=16).hexdigest()

    @property
    def grain(self) -> int:
        """Return the length: every read makes the whole text."""
        return self.nbytes

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)``; the text is made as a whole, because it is short."""
        rows = self.values.rows(self.start, self.start + len(self.before))
        letters = _LETTERS[rows]
        pairs = zip(self.before, letters, strict=True)
        yield b"".join(before + row.tobytes() + b"\n" for before, row in pairs)[start:stop]


def _letters() -> NDArray[np.uint8]:
    table = np.full(256, _UNKNOWN, np.uint8)
    table[: len(SYSTEM.vocabulary)] = np.frombuffer(SYSTEM.vocabulary.encode(), np.uint8)
    return table


_LETTERS: Final = _letters()


def _lines(
    cut: Cut, header: bytes, before: Callable[[int], bytes]
) -> tuple[VirtualFile, tuple[str, ...]]:
    values, notes = _final(cut)
    count, length = values.shape
    run = max(1, CHUNK_NBYTES // (length + 32))
    parts: list[Content] = [Literal(header)]
    for start in range(0, count, run):
        samples = cut.samples[start : start + run]
        parts.append(_Records(values, start, tuple(map(before, samples))))
    return VirtualFile(parts), notes


def _final(cut: Cut, conversion: Conversion | None = None) -> tuple[Values, tuple[str, ...]]:
    """Return the final sequences, or the last recorded state of the same samples."""
    run = cut.run
    outputs = [f for f in cut.fields(Place.OUTPUTS) if f.spec.name == _FINAL]
    if outputs:
        return _checked(Values(outputs[0], None, cut.samples, conversion=conversion)), ()
    states = [f for f in cut.fields(Place.TRACE) if f.spec.name == "sequence"]
    steps = cut.steps_of(states[0]) if states else ()
    if not steps:
        message = f"run {run.manifest.id!r} has neither outputs/{_FINAL} nor trace/sequence"
        raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)
    note = (
        f"no final sequence is recorded: these are the states before the update of step {steps[-1]}"
    )
    values = Values(states[0], steps[-1], cut.samples, conversion=conversion)
    return _checked(values), (note,)


def _checked(values: Values) -> Values:
    spec = values.field.spec
    if spec.dims[-2:] != ("sample", "position"):
        message = f"expected {spec.name} with axes sample and position, got {spec.dims}"
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
    return values
