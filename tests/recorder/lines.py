"""Ways to a real store that lose what they carry, and end when their process does."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from archive_schema.errors import ErrorKind, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from archive_schema.store import Store

Fault: TypeAlias = Literal["none", "request", "answer", "full"]
"""What happens to an operation: the request is lost, or only its answer, or the store is full."""

_CHANGES = ("write", "create")


class Weather:
    """Faults to come, one an operation, whichever line it goes over."""

    def __init__(self) -> None:
        self.away = False
        """Whether no request arrives."""
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()

    def expect(self, faults: Iterable[Fault]) -> None:
        """Let the next operations fare so."""
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        """Let every operation succeed."""
        self.away = False
        with self._lock:
            self._faults.clear()

    def next(self) -> Fault:
        """Return what happens to this operation."""
        if self.away:
            return "request"
        with self._lock:
            return self._faults.popleft() if self._faults else "none"


class Line:
    """What one process has of a real store; every operation of the store goes over it."""

    def __init__(self, store: Store, weather: Weather) -> None:
        self.url = store.url
        self._store = store
        self._weather = weather
        self._is_cut = False

    def cut(self) -> None:
        """Let nothing pass any more, as if the process had been killed."""
        self._is_cut = True

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        def carried(*arguments: Any) -> Any:
            return self._carry(name, operation, arguments)

        return carried

    def _carry(self, name: str, operation: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._is_cut:
            raise StorageError(ErrorKind.STORE_READ_ONLY, "this process is dead")
        fault = self._weather.next()
        if fault == "full" and name in _CHANGES:
            raise StorageError(ErrorKind.STORE_FULL, "no room")
        if fault == "request":
            raise StorageError(ErrorKind.STORE_UNREACHABLE, "connection refused")
        result = operation(*arguments)
        if name == "objects":
            result = iter(list(result))
        if fault == "answer":
            raise StorageError(ErrorKind.STORE_UNREACHABLE, "connection reset")
        return result
