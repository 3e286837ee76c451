"""Memory for what is on its way between clients and the store: bounded, over all requests."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RETRY_AFTER_S: Final = 1.0


class InFlight:
    """Bytes that requests hold at once, in one process.

    Nobody waits for room: a request that finds none is told to come again, before its body is
    read, so that the bytes wait with those who have them.

    Parameters
    ----------
    max_bytes : int, bytes
        What may be held. Something larger is let in alone, because it could never be recorded
        otherwise.
    tell
        Called with the bytes that are held, whenever they change.
    """

    def __init__(self, max_bytes: int, tell: Callable[[int], None] = lambda _: None) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        """Bytes that are held now."""
        self.peak = 0
        """Most bytes that were ever held at once."""
        self._tell = tell
        self._lock = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes bytes, which are given back when the block is left.

        Raises
        ------
        StorageError
            ``store-busy``, from that function, if there is no room for so many.
        """
        taken = 0

        def take(nbytes: int) -> None:
            nonlocal taken
            with self._lock:
                if self.held > taken and self.held + nbytes > self.max_bytes:
                    raise self._busy(nbytes)
                self.held += nbytes
                self.peak = max(self.peak, self.held)
                taken += nbytes
                self._tell(self.held)

        try:
            yield take
        finally:
            with self._lock:
                self.held -= taken
                self._tell(self.held)

    @contextmanager
    def holding(self, nbytes: int) -> Iterator[None]:
        """Hold *nbytes* for as long as the block lasts; errors as of `hold`."""
        with self.hold() as take:
            take(nbytes)
            yield

    def _busy(self, nbytes: int) -> StorageError:
        message = (
            f"the service holds {self.held:,} of at most {self.max_bytes:,} bytes at once, and has"
            f" no room for {nbytes:,} more now; send them again"
        )
        error = StorageError(ErrorKind.STORE_BUSY, message)
        error.retry_after_s = _RETRY_AFTER_S
        return error
