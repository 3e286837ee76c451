"""A file made of parts reads like the parts joined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError
from server.exporters.virtual_file import CHUNK_NBYTES, Literal, VirtualFile

PARTS = st.lists(st.binary(max_size=20), max_size=6)


@given(PARTS, st.integers(0, 130), st.integers(0, 130))
def test_any_range_is_that_of_the_whole(parts: list[bytes], start: int, stop: int) -> None:
    file = VirtualFile([Literal(part) for part in parts])
    whole = b"".join(parts)

    assert file.size == len(whole)
    assert b"".join(file.read(start, stop)) == whole[start:stop]


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
