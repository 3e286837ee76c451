"""A file that is computed: exact length, any byte range, nothing built and nothing stored.

It is made of consecutive parts. A part knows its length and a digest of its bytes before
any of them is read; a range reads the parts that it overlaps, and of those no more than
it needs. Of a remote store, what comes next is read while something is sent.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Protocol

from archive_schema.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from server.query.ahead import Job, ReadAhead

CHUNK_NBYTES: Final = 1 << 20
"""The most that `VirtualFile.read` yields at once."""
_PART_NBYTES: Final = 1 << 9
"""Memory that a part takes beside its bytes, about."""


class Content(Protocol):
    """Bytes of known length that are read when they are asked for."""

    @property
    def nbytes(self) -> int:
        """Exact length."""

    @property
    def digest(self) -> str:
        """A strong digest of the bytes, or of what they follow from; nothing is read for it."""

    @property
    def grain(self) -> int:
        """Where nothing is read twice if it is cut: at each multiple of so many bytes."""

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)``, at most `CHUNK_NBYTES` at a time.

        The caller keeps ``0 <= start <= stop <= nbytes``.
        """


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are in memory."""

    data: bytes

    @property
    def nbytes(self) -> int:
        """Exact length."""
        return len(self.data)

    @property
    def digest(self) -> str:
        """Return a digest of the bytes."""
        return blake2b(self.data, digest_size=16).hexdigest()

    @property
    def grain(self) -> int:
        """Return 1: it can be cut anywhere."""
        return 1

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)``."""
        for at in range(start, stop, CHUNK_NBYTES):
            yield self.data[at : min(at + CHUNK_NBYTES, stop)]


@dataclass(frozen=True, slots=True)
class Packing:
    """How a file is made smaller: front to back, with lengths that nobody knows before."""

    name: str
    """What the API calls it."""
    read: Callable[[], Iterator[bytes]]
    """Yields the bytes. Empty ones say that it is at work, and that it may be stopped there."""


class VirtualFile:
    """Consecutive parts, read as one file.

    Parameters
    ----------
    parts
        In the order of the file. Empty ones do not matter.

    Attributes
    ----------
    ahead : ReadAhead, optional
        What reads the parts that come next while one is used.
    packing : Packing, optional
        The same file with its values compressed, where its format has that.
    """

    def __init__(self, parts: Sequence[Content]) -> None:
        self.ahead: ReadAhead | None = None
        self.packing: Packing | None = None
        self._parts = [part for part in parts if part.nbytes]
        self._ends = list(accumulate(part.nbytes for part in self._parts))
        self.size = self._ends[-1] if self._ends else 0
        """Length in bytes."""

    @property
    def held_nbytes(self) -> int:
        """About how many bytes of memory it takes while nothing is read."""
        literals = (part.nbytes for part in self._parts if isinstance(part, Literal))
        return sum(literals) + _PART_NBYTES * len(self._parts)

    @cached_property
    def digest(self) -> str:
        """A strong digest of the file, as hexadecimal text; no data is read for it."""
        said = blake2b(digest_size=16)
        for part in self._parts:
            said.update(f"{part.nbytes} {part.digest} ".encode())
        return said.hexdigest()

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)`` in order, at most `CHUNK_NBYTES` at a time.

        Parameters
        ----------
        start, stop : int, bytes
            Ends beyond the file are clipped; by default the whole file.

        Raises
        ------
        InvalidInputError
            ``range-not-satisfiable`` for a negative end. Errors of the parts come while
            they are read.
        """
        stop = self.size if stop is None else min(stop, self.size)
        if start < 0 or stop < 0:
            message = f"expected a range within [0, {self.size}), got [{start}, {stop})"
            raise InvalidInputError(ErrorKind.RANGE_NOT_SATISFIABLE, message)
        if self.ahead is None or self.ahead.threads == 1:
            return self._read(start, stop)
        return self._read_ahead(self.ahead, start, stop)

    def _read_ahead(self, ahead: ReadAhead, start: int, stop: int) -> Iterator[bytes]:
        for chunks in ahead.results(self._jobs(start, stop)):
            yield from chunks

    def _jobs(self, start: int, stop: int) -> Iterator[Job[list[bytes]]]:
        """Yield what reads the range, a chunk at a time; what is in memory rides with the next."""
        at = bisect_right(self._ends, start)
        while start < stop:
            part, end = self._parts[at], self._ends[at]
            while isinstance(part, Literal) and end < min(stop, start + CHUNK_NBYTES):
                at += 1
                part, end = self._parts[at], self._ends[at]
            begin = end - part.nbytes
            chunk = max(1, CHUNK_NBYTES // part.grain) * part.grain
            cut = min(stop, end, begin + (max(start - begin, 0) // chunk + 1) * chunk)
            yield cut - start, partial(self._chunks, start, cut)
            start, at = cut, at + (cut == end)

    def _chunks(self, start: int, stop: int) -> list[bytes]:
        return list(self._read(start, stop))

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        at = bisect_right(self._ends, start)
        while start < stop:
            part, end = self._parts[at], self._ends[at]
            begin = end - part.nbytes
            yield from part.read(start - begin, min(stop, end) - begin)
            start, at = end, at + 1


def take(chunks: Iterable[bytes], sizes: Iterable[int]) -> Iterator[bytes]:
    """Yield pieces of exactly *sizes* bytes from the bytes that *chunks* are together.

    Examples
    --------
    >>> list(take([b"abc", b"de", b"f"], [2, 0, 3, 1]))
    [b'ab', b'', b'cde', b'f']
    """
    coming = iter(chunks)
    held = memoryview(b"")
    for size in sizes:
        pieces: list[memoryview] = []
        while size:
            if not held:
                held = memoryview(next(coming))
            pieces.append(held[:size])
            held = held[size:]
            size -= len(pieces[-1])  # noqa: PLW2901  what is still wanted
        yield b"".join(pieces)
