"""Attention as VizFold's tools exchange it: for each head the strongest entries, as text.

For each head a line ``Layer 12, Head 3``, which some programs write without the comma, then lines
``row column weight``, the weight with six decimals, strongest first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_HEADER: Final = re.compile(rb"Layer ([0-9]{1,6})(,?) Head ([0-9]{1,6})")
_COLUMNS: Final = 3
_MOST_HEADS: Final = 1024
_LARGEST_INDEX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Strongest:
    """The strongest entries of some heads, strongest first.

    Attributes
    ----------
    row, column : int32 array, (…, head, rank)
        -1 beyond the head's count.
    weight : float64 array, (…, head, rank)
        NaN beyond the head's count.
    count : int32 array, (…, head)
    """

    row: NDArray[np.int32]
    column: NDArray[np.int32]
    weight: NDArray[np.float64]
    count: NDArray[np.int32]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by the names of the parts."""
        return {
            "row": self.row,
            "column": self.column,
            "weight": self.weight,
            "count": self.count,
        }

    def padded(self, heads: int, ranks: int) -> Strongest:
        """Return the same with room for so many heads and ranks."""
        lead = self.count.shape[:-1]
        found = empty_strongest((*lead, heads), ranks)
        had, rank = self.row.shape[-2:]
        for name, values in self.arrays.items():
            place = (..., slice(had)) if name == "count" else (..., slice(had), slice(rank))
            found.arrays[name][place] = values
        return found


@dataclass(frozen=True, slots=True)
class AttentionText:
    """What a file of text says."""

    layer: int
    comma: bool
    strongest: Strongest


def empty_strongest(heads: tuple[int, ...], ranks: int) -> Strongest:
    """Return room for the entries of heads of which none is known."""
    return Strongest(
        np.full((*heads, ranks), -1, np.int32),
        np.full((*heads, ranks), -1, np.int32),
        np.full((*heads, ranks), np.nan),
        np.zeros(heads, np.int32),
    )


def strongest_of(maps: NDArray[Any], top_k: int) -> Strongest:
    """Return the *top_k* strongest entries of each map; of equals the last one comes first.

    Parameters
    ----------
    maps : float array, (…, head, query, key)
    """
    heads, (rows, columns) = maps.shape[:-2], maps.shape[-2:]
    ranks = min(top_k, rows * columns)
    found = empty_strongest(heads, ranks)
    # One map at a time: the indices of a map take eight bytes for each of its values.
    for head in np.ndindex(heads):
        flat = maps[head].reshape(-1)
        chosen = np.argsort(flat, kind="stable")[::-1][:ranks]
        found.row[head], found.column[head] = np.unravel_index(chosen, (rows, columns))
        found.weight[head] = flat[chosen]
        found.count[head] = ranks
    return found


def attention_text(layer: int, strongest: Strongest, *, comma: bool = True) -> bytes:
    """Return the entries of (head, rank) as text; heads of which none is known are left out."""
    return "".join(_lines(layer, strongest, "," if comma else "")).encode()


def parse_attention_text(data: bytes) -> AttentionText:
    """Return what *data* says; the inverse of `attention_text`.

    Raises
    ------
    InvalidInputError
        ``file-invalid``, naming the line that is not as expected.
    """
    lines = data.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith(b"Layer")]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        raise _refused(1, "Layer 0, Head 0", lines[0] if lines else b"nothing")
    heads: dict[int, NDArray[np.float64]] = {}
    layers, commas = set(), set()
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        match = _HEADER.fullmatch(lines[start].strip())
        if match is None or int(match[3]) >= _MOST_HEADS:
            raise _refused(start + 1, "Layer 0, Head 0", lines[start])
        head = int(match[3])
        if head in heads:
            raise _refused(start + 1, "each head once", lines[start])
        layers.add(int(match[1]))
        commas.add(bool(match[2]))
        heads[head] = _entries(lines, start + 1, stop)
    if len(layers) > 1 or len(commas) > 1:
        message = f"expected heads of one layer in one spelling, found layers {sorted(layers)}"
        raise InvalidInputError(ErrorKind.FILE_INVALID, message)
    found = empty_strongest((max(heads) + 1,), max(map(len, heads.values())))
    for head, entries in heads.items():
        count = len(entries)
        found.row[head, :count], found.column[head, :count] = entries[:, :2].T.astype(np.int32)
        found.weight[head, :count] = entries[:, 2]
        found.count[head] = count
    return AttentionText(layers.pop(), commas.pop(), found)


def _lines(layer: int, strongest: Strongest, comma: str) -> Iterable[str]:
    for head, count in enumerate(strongest.count.tolist()):
        if not count:
            continue
        yield f"Layer {layer}{comma} Head {head}\n"
        yield from map(
            "{} {} {:.6f}\n".format,
            strongest.row[head, :count].tolist(),
            strongest.column[head, :count].tolist(),
            strongest.weight[head, :count].tolist(),
        )


def _entries(lines: list[bytes], start: int, stop: int) -> NDArray[np.float64]:
    """Return lines ``[start, stop)`` as rows of (row, column, weight)."""
    entries = [line.split() for line in lines[start:stop] if line.strip()]
    odd = next((at for at, words in enumerate(entries) if len(words) != _COLUMNS), None)
    if odd is not None:
        raise _refused(start + odd + 1, "row column weight", lines[start + odd])
    try:
        found = np.array(entries, dtype=np.bytes_).astype(np.float64).reshape(-1, _COLUMNS)
    except ValueError as error:
        message = f"lines {start + 1} to {stop}: expected row column weight: {error}"
        raise InvalidInputError(ErrorKind.FILE_INVALID, message) from error
    places = found[:, :2]
    if ((places < 0) | (places > _LARGEST_INDEX) | (places % 1 != 0)).any():
        message = f"lines {start + 1} to {stop}: expected rows and columns that count from 0"
        raise InvalidInputError(ErrorKind.FILE_INVALID, message)
    return found


def _refused(line: int, expected: str, found: bytes) -> InvalidInputError:
    shown = found[:80].decode("utf-8", "replace")
    message = f"line {line}: expected {expected!r}, found {shown!r}"
    return InvalidInputError(ErrorKind.FILE_INVALID, message)
