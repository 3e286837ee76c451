"""Parts of files by `Range`: resume and seek."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ranges import UnsatisfiableRangeError, requested_range

if TYPE_CHECKING:
    import httpx

FILES = (
    "/runs/sealed.h5",
    "/runs/sealed.npz",
    "/runs/sealed/zarr/trace/score/c.1.0.0.0",
    "/runs/sealed/zarr/trace/zarr.json",
)


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.none() | st.integers(0, 60))
def test_a_range_selects_what_a_slice_does(size: int, first: int, last: int | None) -> None:
    data = bytes(range(size))
    header = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        assert requested_range(header, size) is None
    elif first >= size:
        with pytest.raises(UnsatisfiableRangeError):
            requested_range(header, size)
    else:
        start, stop = requested_range(header, size) or (-1, -1)
        assert data[start:stop] == data[first : None if last is None else last + 1]


@given(size=st.integers(1, 50), count=st.integers(1, 60))
def test_a_suffix_counts_from_the_end(size: int, count: int) -> None:
    start, stop = requested_range(f"bytes=-{count}", size) or (-1, -1)

    assert bytes(range(size))[start:stop] == bytes(range(size))[-count:]


@pytest.mark.parametrize(
    "header",
    ["bytes=0-1,4-5", "items=0-1", "bytes=a-b", "bytes=", "bytes=-", "bytes=5-2", "bytes 0-1", ""],
)
def test_what_is_no_single_range_is_ignored(header: str) -> None:
    assert requested_range(header, 10) is None


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("header", ["bytes=0-9", "bytes=10-", "bytes=-7", "bytes=5-5", "bytes=0-"])
def test_a_part_of_a_file_is_that_part_of_the_whole(
    http: httpx.Client, path: str, header: str
) -> None:
    whole = http.get(path).content

    part = http.get(path, headers={"Range": header})

    start, stop = requested_range(header, len(whole)) or (-1, -1)
    assert part.status_code == 206
    assert part.content == whole[start:stop]
    assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert int(part.headers["content-length"]) == stop - start


@pytest.mark.parametrize("path", FILES)
def test_a_range_behind_the_end_is_416_and_tells_the_size(http: httpx.Client, path: str) -> None:
    size = len(http.get(path).content)

    answer = http.get(path, headers={"Range": f"bytes={size}-"})

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"
    assert answer.json()["kind"] == "range-not-satisfiable"


@pytest.mark.parametrize("path", FILES)
def test_several_ranges_are_answered_by_the_whole(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers={"Range": "bytes=0-1,3-4"})

    assert answer.status_code == 200
    assert answer.content == http.get(path).content


@pytest.mark.parametrize("path", FILES)
def test_a_part_of_another_version_is_not_given(http: httpx.Client, path: str) -> None:
    """Or a resumed download would be put together from two files."""
    tag = http.get(path).headers["etag"]

    same = http.get(path, headers={"Range": "bytes=2-", "If-Range": tag})
    other = http.get(path, headers={"Range": "bytes=2-", "If-Range": '"other"'})

    assert same.status_code == 206
    assert other.status_code == 200


def test_a_file_is_cut_by_steps_and_samples(http: httpx.Client) -> None:
    whole = http.head("/runs/sealed.npz")
    part = http.head("/runs/sealed.npz?steps=0:2&samples=0:3&fields=score")

    assert int(part.headers["content-length"]) < int(whole.headers["content-length"])
    assert part.headers["etag"] != whole.headers["etag"]
    assert 'filename="sealed.npz"' in part.headers["content-disposition"]
