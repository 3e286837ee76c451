"""What is read ahead comes in order, is bounded, and ends with whoever wanted it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.query.ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 5), st.integers(0, 400))
def test_results_come_in_the_order_of_the_jobs(
    sizes: list[int], threads: int, max_bytes: int
) -> None:
    with closing(ReadAhead(threads, max_bytes)) as ahead:
        jobs = [(size, partial(int, at)) for at, size in enumerate(sizes)]

        assert list(ahead.results(jobs)) == list(range(len(sizes)))


def test_no_more_is_begun_than_is_allowed() -> None:
    """A slow client must not make a server hold a whole run; nor may all of them together."""
    begun: list[int] = []

    def jobs(reader: int) -> Iterator[tuple[int, Callable[[], int]]]:
        for _ in range(100):
            begun.append(reader)
            yield 10, partial(int, reader)

    with closing(ReadAhead(4, 100)) as ahead:
        readers = [ahead.results(jobs(reader)) for reader in range(6)]
        for reader in readers:
            next(reader)

        # A quarter each, 2 of 10 bytes, as long as there is room for all; and one more was looked
        # at, to find that there is no room for it. Beyond, one job for each.
        assert [begun.count(reader) for reader in range(6)] == [3] * 5 + [2]
        for reader in readers:
            reader.close()
        assert len(list(ahead.results((30, partial(int, 1)) for _ in range(5)))) == 5


def test_whoever_stops_leaves_nothing_to_be_done() -> None:
    """A client that goes away must not cost the reads of a whole run."""
    done: list[int] = []
    released = threading.Event()

    def job(at: int) -> int:
        if at:
            released.wait(60)
        done.append(at)
        return at

    with closing(ReadAhead(2, 1 << 20)) as ahead:
        results = ahead.results((1, partial(job, at)) for at in range(1000))
        assert next(results) == 0
        results.close()
        released.set()

    # Two threads were in the middle of a job.
    assert len(done) <= 3


def test_an_error_ends_the_reading_where_it_happened() -> None:
    def job(at: int) -> int:
        if at == 3:
            message = "no"
            raise ValueError(message)
        return at

    taken: list[int] = []
    with closing(ReadAhead(2, 1 << 20)) as ahead:
        with pytest.raises(ValueError, match="no"):
            for result in ahead.results((1, partial(job, at)) for at in range(10)):
                taken += [result]
        assert taken == [0, 1, 2]
        assert list(ahead.results([(1, partial(job, 0))])) == [0]


def test_jobs_may_read_ahead_themselves() -> None:
    """A part of a file is read in parts; threads that all wait for threads would wait for ever."""
    with closing(ReadAhead(2, 1 << 20)) as ahead, ThreadPoolExecutor(4) as pool:

        def inner(at: int) -> int:
            return sum(ahead.results((1, partial(int, at)) for _ in range(3)))

        def outer(at: int) -> list[int]:
            return list(ahead.results((1, partial(inner, at)) for _ in range(20)))

        assert list(pool.map(outer, range(8))) == [[3 * at] * 20 for at in range(8)]
