"""Values as JSON text of known length: every number is padded with blanks to its dtype's width.

Blanks between tokens mean nothing in JSON. So the length of the text follows from shape and
dtype alone, and any byte range of it can be made without what lies before it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Encoding
from server.exporters.virtual_file import CHUNK_NBYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from server.exporters.values import Values

_WIDTHS: Final = {
    "bool": 5,
    "int8": 4, "uint8": 3, "int16": 6, "uint16": 5,
    "int32": 11, "uint32": 10, "int64": 20, "uint64": 20,
    "float16": 11, "float32": 15, "float64": 24,
}  # fmt: skip
"""Characters of the longest text of each dtype; of a float, its shortest text that reads back."""
_TOKEN_WIDTH: Final = 3
_BLANK: Final = ord(" ")


@dataclass(frozen=True)
class JsonArray:
    """A field's values as nested JSON arrays; what is not finite becomes null.

    Parameters
    ----------
    columns : bool
        Write each value in an array of its own, as the last axis.

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable`` for text, whose length is not known beforehand.
    """

    values: Values
    columns: bool = False

    def __post_init__(self) -> None:
        if self.values.dtype.name not in _WIDTHS:
            message = f"field {self.values.field.path!r} holds {self.values.dtype}, no numbers"
            raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)

    @cached_property
    def nbytes(self) -> int:
        """Exact length of the text."""
        return _nested_nbytes(self._shape, self._width)

    @property
    def digest(self) -> str:
        """Return a digest of what the text follows from."""
        said = f"json {self._shape} {self.values.digest}"
        return blake2b(said.encode(), digest_size=16).hexdigest()

    @property
    def grain(self) -> int:
        """Return 1: where rows begin is off by the first bracket."""
        return 1

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)`` of the text, a few rows at a time."""
        if not self.values.shape or 0 in self._shape:
            text = _nested(self._items(self.values.array().reshape(self._shape)))
            yield text.tobytes()[start:stop]
            return
        # "[" row "," row "," … row "]": a row and the character after it repeat.
        pitch = _nested_nbytes(self._shape[1:], self._width) + 1
        if start == 0 < stop:
            yield b"["
            start = 1
        rows = max(1, CHUNK_NBYTES // pitch)
        row = (start - 1) // pitch
        while start < stop:
            last = min(row + rows, self._shape[0])
            begin = 1 + row * pitch
            end = min(stop, 1 + last * pitch)
            yield self._rows(row, last)[start - begin : end - begin]
            start, row = end, last

    def _rows(self, start: int, stop: int) -> bytes:
        values = self.values.rows(start, stop).reshape(stop - start, *self._shape[1:])
        # Nested with its own brackets, less the first one; the last closes the whole or is ",".
        text = bytearray(_nested(self._items(values)).tobytes()[1:])
        if stop < self._shape[0]:
            text[-1:] = b","
        return bytes(text)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (*self.values.shape, 1) if self.columns else self.values.shape

    @property
    def _width(self) -> int:
        if self.values.field.spec.encoding is Encoding.TOKENS:
            return _TOKEN_WIDTH
        return _WIDTHS[self.values.dtype.name]

    def _items(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return each value's text, shape (*values.shape, width)."""
        if values.dtype == np.float16:
            return _float16_texts()[values.view(np.uint16)]
        return _texts(values, self._width)


def _nested_nbytes(shape: tuple[int, ...], width: int) -> int:
    if not shape:
        return width
    return 1 + shape[0] * (_nested_nbytes(shape[1:], width) + 1) if shape[0] else 2


def _nested(items: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join texts of one length, shape (*shape, length), to one text: ``[[a,b],[c,d]]``."""
    while items.ndim > 1:
        *lead, count, width = items.shape
        if not count:
            items = np.broadcast_to(np.frombuffer(b"[]", np.uint8), (*lead, 2))
            continue
        cells = np.full((*lead, count, width + 1), ord(","), np.uint8)
        cells[..., :-1] = items
        joined = np.empty((*lead, 1 + count * (width + 1)), np.uint8)
        joined[..., 0] = ord("[")
        joined[..., 1:] = cells.reshape(*lead, count * (width + 1))
        joined[..., -1] = ord("]")
        items = joined
    return items


def _texts(values: NDArray[Any], width: int) -> NDArray[np.uint8]:
    if values.dtype.kind == "b":
        texts = np.where(values, b"true", b"false")
    elif values.dtype.kind == "f":
        texts = np.where(np.isfinite(values), values.astype("S32"), b"null")
    else:
        texts = values.astype("S32")
    padded = np.ascontiguousarray(texts.astype(f"S{width}"))
    characters = padded.reshape(-1).view(np.uint8).reshape(*values.shape, width)
    return np.where(characters == 0, np.uint8(_BLANK), characters)


@functools.cache
def _float16_texts() -> NDArray[np.uint8]:
    """Return the text of each of the 65,536 values, by its bits; formatting each anew is slow."""
    width = _WIDTHS["float16"]
    return _texts(np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16), width)
