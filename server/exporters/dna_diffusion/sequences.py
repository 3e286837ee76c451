"""Sequences of a run as rows of text: one a sample, with a column for each step asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from archive_schema.systems.dna_diffusion import LENGTH, LETTERS
from server.exporters.values import Values
from server.exporters.virtual_file import CHUNK_NBYTES, Content, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from server.exporters.cut import Cut
    from server.query.field import FieldView

_TOKENS: Final = ("sample", "position")
_MATRICES: Final = ("sample", "channel", "nucleotide", "position")


@dataclass(frozen=True)
class Sequences:
    """Sequences of the samples of a cut.

    Parameters
    ----------
    field
        Tokens, or matrices whose largest row is the token.
    steps
        One column each; None for a field without steps, one column.
    """

    cut: Cut
    field: FieldView
    steps: tuple[int, ...] | None

    @property
    def columns(self) -> int:
        """Return how many sequences a row has."""
        return 1 if self.steps is None else len(self.steps)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Return the length of each sample's sequences."""
        known = self.cut.run.ledger.sample_coordinates.get(LENGTH)
        longest = self.field.spec.tail[-1]
        values = {} if known is None else known.values
        return np.array([int(values.get(sample, longest)) for sample in self.cut.samples])

    @cached_property
    def digest(self) -> str:
        """A strong digest of the letters; no data is read for it."""
        return Values(self.field, self.steps, self.cut.samples).digest

    def letters(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return rows ``[start, stop)`` as ASCII codes, shape (stop - start, columns, length)."""
        values = Values(self.field, self.steps, self.cut.samples[start:stop]).array()
        if self.steps is None:
            values = values[None]
        if values.ndim > len(_TOKENS) + 1:
            values = values[:, :, 0].argmax(axis=2)
        letters: NDArray[np.uint8] = LETTERS[values].transpose(1, 0, 2)
        return letters


def final_sequences(cut: Cut) -> tuple[Sequences, tuple[str, ...]]:
    """Return the final sequences, or the states after the last step that is recorded.

    Raises
    ------
    NotFoundError
        ``field-not-found`` if there are neither.
    """
    for field in cut.fields(Place.OUTPUTS):
        if field.spec.name == "final_sequence":
            return Sequences(cut, _checked(field), None), ()
    sequences, _ = sequences_by_step(cut)
    last = (sequences.steps or ())[-1:]
    note = f"no final sequences are recorded: these are the states after step {last[0]}"
    return Sequences(cut, sequences.field, last), (note,)


def sequences_by_step(cut: Cut) -> tuple[Sequences, tuple[str, ...]]:
    """Return the state after each step; errors as `final_sequences`."""
    fields = {field.spec.name: field for field in cut.fields(Place.TRACE)}
    for field in (fields.get("tokens"), fields.get("x")):
        if field is not None and cut.steps_of(field):
            steps = cut.steps_of(field)
            lacking = len(cut.steps) - len(steps)
            note = f"{field.path} is not recorded at {lacking} of the steps: left out"
            return Sequences(cut, _checked(field), steps), (note,) if lacking else ()
    message = f"run {cut.run.manifest.id!r} has neither trace/tokens nor trace/x for all samples"
    raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)


def text_file(
    sequences: Sequences,
    *,
    header: Content | None = None,
    before: Callable[[int], bytes] = lambda _: b"",
    ends: bool = True,
) -> VirtualFile:
    """Return rows of tab-separated sequences.

    Parameters
    ----------
    before
        What a row begins with, by the sample's position in the run.
    ends
        Whether a line feed ends the last row, too.
    """
    samples = sequences.cut.samples
    parts: list[Content] = [] if header is None else [header]
    longest = sequences.columns * (sequences.field.spec.tail[-1] + 1)
    count = max(1, CHUNK_NBYTES // longest)
    for start in range(0, len(samples), count):
        stop = min(start + count, len(samples))
        trimmed = int(stop == len(samples) and not ends)
        leads = tuple(map(before, samples[start:stop]))
        parts.append(_Rows(sequences, start, leads, trimmed))
    return VirtualFile(parts)


@dataclass(frozen=True)
class _Rows:
    """Consecutive rows."""

    sequences: Sequences
    start: int
    before: tuple[bytes, ...]
    trimmed: int
    """Bytes that the last row lacks at its end."""

    @cached_property
    def nbytes(self) -> int:
        """Exact length."""
        cells = int((self._lengths + 1).sum()) * self.sequences.columns
        return sum(map(len, self.before)) + cells - self.trimmed

    @property
    def digest(self) -> str:
        """Return a digest of what the text follows from."""
        said = f"{self.sequences.digest} {self.start} {self.before} {self._lengths.tolist()}"
        return blake2b(said.encode(), digest_size=16).hexdigest()

    @property
    def grain(self) -> int:
        """Return the length: every read makes all rows."""
        return self.nbytes

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)``."""
        letters = self.sequences.letters(self.start, self.start + len(self.before))
        rows, columns, length = letters.shape
        cells = np.full((rows, columns, length + 1), ord("\t"), np.uint8)
        cells[..., :length] = letters
        cells[:, -1, length] = ord("\n")
        text = b"".join(
            before + (row if own == length else np.delete(row, np.s_[own:length], 1)).tobytes()
            for before, row, own in zip(self.before, cells, self._lengths.tolist(), strict=True)
        )
        for at in range(start, stop, CHUNK_NBYTES):
            yield text[at : min(at + CHUNK_NBYTES, stop)]

    @property
    def _lengths(self) -> NDArray[np.int64]:
        return self.sequences.lengths[self.start : self.start + len(self.before)]


def _checked(field: FieldView) -> FieldView:
    dims = field.dims[1:] if field.stepped else field.dims
    if dims not in (_TOKENS, _MATRICES):
        message = f"expected {field.path} with axes {_TOKENS} or {_MATRICES}, got {dims}"
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
    return field
