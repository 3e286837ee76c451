"""How many bytes may be under way at once, and the wait for room."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_GIB: Final = 2**30
_SHARE_OF_MEMORY: Final = 0.1


def default_max_bytes() -> int:
    """Return 2 GiB or a tenth of the machine's memory, whichever is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(2 * _GIB, int(memory * _SHARE_OF_MEMORY))


class ByteBudget:
    """Bytes that were accepted and are not yet stored.

    Parameters
    ----------
    max_bytes : int, bytes
        What may be taken at once. Something larger is let in alone, because it could
        never be recorded otherwise.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.peak = 0
        """Most bytes that were ever taken at once."""
        self.waited_s = 0.0
        """Seconds that callers waited for room, together."""
        self.wanted = 0
        """Callers that wait for room."""
        self._taken = 0
        self._ended = False
        self._room = threading.Condition()

    def take(self, nbytes: int, deadline_s: float, hurry: Callable[[], None] | None = None) -> None:
        """Take *nbytes*, waiting at most *deadline_s* seconds for room.

        Parameters
        ----------
        hurry : callable, optional
            What to do before waiting.

        Raises
        ------
        StorageError
            ``deadline-passed``.
        """
        with self._room:
            if self._fits(nbytes):
                return self._take(nbytes)
            self.wanted += 1
        if hurry is not None:
            hurry()
        with self._room:
            try:
                self._wait(nbytes, deadline_s)
                self._take(nbytes)
            finally:
                self.wanted -= 1

    def give(self, nbytes: int) -> None:
        """Give back what was taken."""
        with self._room:
            self._taken -= nbytes
            if self.wanted:
                self._room.notify_all()

    def end(self) -> None:
        """Let everybody in, since nothing is stored any more: they are to see why."""
        with self._room:
            self._ended = True
            self._room.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return self._ended or not self._taken or self._taken + nbytes <= self.max_bytes

    def _take(self, nbytes: int) -> None:
        self._taken += nbytes
        self.peak = max(self.peak, self._taken)

    def _wait(self, nbytes: int, deadline_s: float) -> None:
        start = time.monotonic()
        room = self._room.wait_for(lambda: self._fits(nbytes), deadline_s)
        self.waited_s += time.monotonic() - start
        if not room:
            message = (
                f"the store did not take {self._taken} bytes within {deadline_s:g} s, so that"
                f" {nbytes} more exceed the budget of {self.max_bytes}"
            )
            raise StorageError(ErrorKind.DEADLINE_PASSED, message)
