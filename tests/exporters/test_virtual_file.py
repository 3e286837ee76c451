"""A file made of parts reads like the parts joined."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from random import randbytes
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError
from server.exporters.virtual_file import CHUNK_NBYTES, Content, Literal, VirtualFile
from server.query.ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = st.lists(st.binary(max_size=20), max_size=6)


@given(PARTS, st.integers(0, 130), st.integers(0, 130))
def test_any_range_is_that_of_the_whole(parts: list[bytes], start: int, stop: int) -> None:
    file = VirtualFile([Literal(part) for part in parts])
    whole = b"".join(parts)

    assert file.size == len(whole)
    assert b"".join(file.read(start, stop)) == whole[start:stop]


@dataclass(frozen=True)
class Entries:
    """Bytes that are read an entry at a time, and remember which were."""

    data: bytes
    grain: int
    read_entries: list[int] = field(default_factory=list)
    digest: str = ""

    @property
    def nbytes(self) -> int:
        """Exact length."""
        return len(self.data)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)``."""
        self.read_entries.extend(range(start // self.grain, -(-stop // self.grain)))
        yield self.data[start:stop]


@pytest.mark.parametrize("start", [0, 3, 400_000])
@pytest.mark.parametrize("short", [0, 1, 700_000])
def test_what_is_read_ahead_is_the_same_and_no_entry_is_read_twice(start: int, short: int) -> None:
    """On a remote store each entry is a round trip, and a block that is decoded."""
    sizes = ((2_500_000, 300_000), (7, 7), (3 * CHUNK_NBYTES, CHUNK_NBYTES), (900_000, 1))
    entries = [Entries(randbytes(size), grain) for size, grain in sizes]
    literals = [Literal(randbytes(size)) for size in (5, 0, 2 * CHUNK_NBYTES, 100, 3)]
    pairs: Iterator[tuple[Content, Content]] = zip(literals, entries, strict=False)
    file = VirtualFile([*chain(*pairs), literals[-1]])
    expected = b"".join(file.read())[start : file.size - short]
    for part in entries:
        part.read_entries.clear()
    file.ahead = ReadAhead(3, 8 << 20)

    with closing(file.ahead):
        found = b"".join(file.read(start, file.size - short))

    assert found == expected
    for part in entries:
        assert len(part.read_entries) == len(set(part.read_entries))


def test_a_long_part_comes_in_chunks() -> None:
    """A server's memory must not grow with the length of a part."""
    data = bytes(range(256)) * (CHUNK_NBYTES // 100)
    file = VirtualFile([Literal(b"head"), Literal(data)])

    chunks = list(file.read(2))

    assert max(map(len, chunks)) == CHUNK_NBYTES
    assert b"".join(chunks) == b"ad" + data


def test_a_negative_end_is_refused() -> None:
    """Ranges counted from the end are HTTP's business; here they would be off by the size."""
    with pytest.raises(InvalidInputError) as caught:
        VirtualFile([Literal(b"abc")]).read(-2)

    assert caught.value.kind is ErrorKind.RANGE_NOT_SATISFIABLE


@given(PARTS, PARTS)
def test_equal_parts_have_equal_digests_and_others_do_not(
    one: list[bytes], other: list[bytes]
) -> None:
    digests = [VirtualFile([Literal(p) for p in parts]).digest for parts in (one, other)]
    filled = [[part for part in parts if part] for parts in (one, other)]

    assert (digests[0] == digests[1]) == (filled[0] == filled[1])
