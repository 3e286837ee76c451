"""Calls that end in time, whatever they wait for.

A request to a store that hangs returns when its client gives up, which may take minutes. Here
it is made by a thread of its own, so that whoever asked can be told in time; the thread is left
alone with it, and ends with it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE_S: Final = 5.0
"""How long a thread waits for another call before it ends."""

_T = TypeVar("_T")


class Calls:
    """Makes calls, each on a thread that nobody has to wait for.

    Parameters
    ----------
    most : int
        Threads at once; further calls wait for one of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._pending = 0
        """Calls that are queued or under way."""

    def start(self, call: Callable[[], _T]) -> Future[_T]:
        """Have *call* made; cancelling it has an effect only before it is under way."""
        future: Future[_T] = Future()
        with self._lock:
            self._pending += 1
            if self._pending > self._threads and self._threads < self._most:
                self._threads += 1
                # Daemons: a call that hangs must not keep the interpreter from ending.
                threading.Thread(target=self._loop, name="trace-call", daemon=True).start()
            self._jobs.put((future, call))
        return future

    def _loop(self) -> None:
        while True:
            try:
                future, call = self._jobs.get(timeout=_IDLE_S)
            except Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._threads -= 1
                        return
                continue
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001  raised where the result is asked for
                    self._end()
                    future.set_exception(error)
                    del error
                else:
                    self._end()
                    future.set_result(result)
                    del result
            else:
                self._end()
            # A tile's bytes must not be held until the next call comes.
            del future, call

    def _end(self) -> None:
        with self._lock:
            self._pending -= 1
