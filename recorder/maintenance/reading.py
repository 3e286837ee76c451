"""Reads many objects at once, bounded, and once more what looks damaged."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from archive_schema.documents import read_document
from archive_schema.errors import ErrorKind, FormatError, NotFoundError
from archive_schema.models import Document
from archive_schema.store.interface import is_remote
from recorder.patience import PatientStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from archive_schema.store import Store

_REMOTE_THREADS: Final = 16
"""Threads that spend their time waiting for an answer."""
_MOST_LOCAL_THREADS: Final = 4
_UNDER_WAY: Final = 2
"""Results a thread that may wait to be taken: they are in memory."""
_DEADLINE_S: Final = 60.0
_ATTEMPTS: Final = 3
"""Bytes that were damaged on their way are read sound the next time."""

_T = TypeVar("_T")
_R = TypeVar("_R")
_D = TypeVar("_D", bound=Document)


def patient(store: Store) -> Store:
    """Return *store* as one that is asked again when it does not answer."""
    return PatientStore(store, _DEADLINE_S) if is_remote(store) else store


def mapped(store: Store, function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Yield what *function*, which asks *store*, returns for each of *items*, in order.

    As many calls run at once as the store is worth; no more than twice as many results wait.
    """
    threads = _REMOTE_THREADS if is_remote(store) else _local_threads()
    pool = ThreadPoolExecutor(threads, "trace-maintenance")
    under_way: deque[Future[_R]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) >= _UNDER_WAY * threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_twice(store: Store, key: str, check: Callable[[bytes], _R]) -> _R:
    """Return what *check* makes of an object; read again before its error is believed.

    Raises
    ------
    NotFoundError
        ``object-not-found``.
    Exception
        What *check* raised the last time.
    """
    for _ in range(_ATTEMPTS - 1 if is_remote(store) else 0):
        data = store.read(key)
        try:
            return check(data)
        except (ValueError, RuntimeError, FormatError):
            continue
    return check(store.read(key))


def document_at(store: Store, key: str, model: type[_D]) -> _D | FormatError | None:
    """Return the document at *key*; what is wrong with it, or None if there is nothing.

    Raises
    ------
    FormatError
        ``format-version-unsupported``: what a newer version wrote is not ours to judge.
    """
    for attempt in reversed(range(_ATTEMPTS if is_remote(store) else 1)):
        try:
            return read_document(store, key, model)
        except NotFoundError:
            return None
        except FormatError as error:
            if error.kind is ErrorKind.FORMAT_VERSION_UNSUPPORTED:
                raise
            if not attempt:
                return error
    raise AssertionError  # pragma: no cover


def _local_threads() -> int:
    return min(_MOST_LOCAL_THREADS, os.cpu_count() or 1)
