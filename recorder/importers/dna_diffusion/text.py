"""Files of sequences: one a line, or a table with a column for each step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.systems.dna_diffusion import BASES, PADDING, TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recorder.importers.foreign import ForeignFile

_HEADER: Final = re.compile(rb"[0-9]{1,9}(?:\t[0-9]{1,9})*")
_LONGEST_LINE: Final = 16 << 20
_ENDS: Final = b"\r\n"
_EXPECTED: Final = BASES.encode() + b"\t"


@dataclass(frozen=True, slots=True)
class TextFile:
    """What a survey finds in a file, before anything of it is recorded."""

    path: str
    tag: str
    nbytes: int
    steps: tuple[int, ...] | None
    """Columns of a table; None for a file of final sequences alone."""
    lengths: NDArray[np.int64]
    """Of each row's sequences."""
    final_sha256: str
    """Of the final sequences: the rows, or what a table has in its last column."""
    odd: tuple[str, ...]


def survey(file: ForeignFile, path: str, tag: str) -> TextFile:
    """Read a file through.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it holds no sequences.
    """
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise file.refuse("is empty")
    steps = _steps(file, first.rstrip(_ENDS))
    lengths: list[int] = []
    digest = sha256()
    blank = returns = foreign = 0
    for number, line in enumerate(_numbered(file, steps), 2 if steps else 1):
        row = line.rstrip(_ENDS)
        if not row:
            blank += 1
            continue
        returns += b"\r" in line
        cells = _cells(file, number, row, steps)
        lengths.append(len(cells[-1]))
        digest.update(cells[-1] + b"\n")
        foreign += len(row.translate(None, _EXPECTED))
    if not lengths:
        raise file.refuse("has no sequences")
    said = {
        f"{blank} blank lines: passed over": blank,
        f"{returns} lines end in a carriage return: it is not kept": returns,
        f"{foreign} letters other than {BASES}: kept as their ASCII codes": foreign,
    }
    odd = [f"{path}: {sentence}" for sentence, count in said.items() if count]
    found = np.array(lengths)
    if len(set(lengths)) > 1:
        odd.append(
            f"{path}: sequences of {found.min()} to {found.max()} letters; they are filled up with"
            " token 255, and their length is a sample coordinate"
        )
    return TextFile(path, tag, file.nbytes, steps, found, digest.hexdigest(), tuple(odd))


def rows(
    file: ForeignFile, steps: tuple[int, ...] | None, length: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the tokens of each row, shape (columns, length); errors as `survey`.

    Shorter sequences are filled up.
    """
    for number, line in enumerate(_numbered(file, steps), 2 if steps else 1):
        row = line.rstrip(_ENDS)
        if row:
            cells = _cells(file, number, row, steps)
            padded = b"".join(cell.ljust(length, b"\0") for cell in cells)
            yield TOKENS[np.frombuffer(padded, np.uint8)].reshape(len(cells), -1)


def _numbered(file: ForeignFile, steps: tuple[int, ...] | None) -> Iterator[bytes]:
    """Yield the lines after the header, from the beginning."""
    file.stream.seek(0)
    lines = _lines(file)
    if steps is not None:
        next(lines)
    return lines


def _lines(file: ForeignFile) -> Iterator[bytes]:
    while line := file.stream.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise file.refuse(
                f"expected lines of at most {_LONGEST_LINE} bytes, found a longer one"
            )
        yield line


def _steps(file: ForeignFile, line: bytes) -> tuple[int, ...] | None:
    """Return the steps that a table's header names; None if the line is a sequence."""
    if not _HEADER.fullmatch(line):
        return None
    steps = tuple(map(int, line.split(b"\t")))
    if any(one >= two for one, two in pairwise(steps)):
        raise file.refuse(f"expected a header of rising steps, found {line[:80]!r}")
    return steps


def _cells(
    file: ForeignFile, number: int, row: bytes, steps: tuple[int, ...] | None
) -> list[bytes]:
    """Return the sequences of a row, which are as long as one another."""
    cells = row.split(b"\t")
    columns = 1 if steps is None else len(steps)
    if len(cells) != columns or len({len(cell) for cell in cells}) > 1:
        lengths = sorted({len(cell) for cell in cells})
        message = (
            f"line {number}: expected {columns} sequences of one length, found {len(cells)}"
            f" of {', '.join(map(str, lengths[:8]))} letters"
        )
        raise file.refuse(message)
    if PADDING in TOKENS[np.frombuffer(row.replace(b"\t", b""), np.uint8)]:
        raise file.refuse(f"line {number}: expected letters, found {row[:40]!r}")
    return cells
