"""Results that are computed before they are wanted: in order, and bounded in bytes.

Where a read takes a round trip, whoever reads one thing after another waits for each. So the
reads that come next begin while the last result is used.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

_T = TypeVar("_T")

_SHARE: Final = 4
"""A reader has one in so many of the bytes."""

Job: TypeAlias = "tuple[int, Callable[[], _T]]"
"""About how many bytes a result has, and what computes it."""


class ReadAhead:
    """Threads that work ahead of any number of readers.

    Parameters
    ----------
    threads : int
        Jobs done at once; with 1, each is done by its reader, when it is wanted.
    max_bytes : int
        Of results begun and not taken, of all readers together; one reader has a quarter of it
        at most, so that a slow one leaves something to others. Each has one job begun in any
        case, however large it is.
    """

    def __init__(self, threads: int, max_bytes: int) -> None:
        self.threads = threads
        # The pool starts its threads at the first use of it, not here.
        self._pool = ThreadPoolExecutor(threads, "trace-ahead") if threads > 1 else None
        self._max_bytes = max_bytes
        self._held = 0
        self._lock = threading.Lock()
        self._worker = threading.local()

    def close(self) -> None:
        """End the threads; jobs that are under way are waited for."""
        if self._pool is not None:
            self._pool.shutdown()

    def results(self, jobs: Iterable[Job[_T]]) -> Generator[_T, None, None]:
        """Yield the result of each job, in order; *jobs* are taken as they are begun.

        Whoever stops early, or gets the error of a job, has the jobs that wait cancelled; those
        under way end by themselves, and nobody sees their results.
        """
        # A job that reads ahead itself must not wait for threads that may all wait like it.
        if self._pool is None or hasattr(self._worker, "busy"):
            for _, job in jobs:
                yield job()
            return
        begun: deque[tuple[int, Future[_T]]] = deque()
        mine = 0
        try:
            for nbytes, job in jobs:
                while begun and not self._has_room(mine, nbytes):
                    yield begun[0][1].result()
                    mine -= self._forget(begun)
                self._hold(nbytes)
                mine += nbytes
                begun.append((nbytes, self._pool.submit(self._done, job)))
            while begun:
                yield begun[0][1].result()
                self._forget(begun)
        finally:
            for _, future in begun:
                future.cancel()
            while begun:
                self._forget(begun)

    def _done(self, job: Callable[[], _T]) -> _T:
        self._worker.busy = True
        return job()

    def _has_room(self, mine: int, nbytes: int) -> bool:
        return (
            self._held + nbytes <= self._max_bytes and (mine + nbytes) * _SHARE <= self._max_bytes
        )

    def _hold(self, nbytes: int) -> None:
        with self._lock:
            self._held += nbytes

    def _forget(self, begun: deque[tuple[int, Future[_T]]]) -> int:
        """Let go of the first job, and return the bytes that it held."""
        nbytes, _ = begun.popleft()
        self._hold(-nbytes)
        return nbytes
