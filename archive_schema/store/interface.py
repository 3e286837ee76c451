"""What every store does, and the values it speaks in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from archive_schema.errors import ConflictError, ErrorKind, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says of one object."""

    key: str
    nbytes: int
    modified_s: float
    """Seconds since the epoch, by the store's clock."""


class Store(Protocol):
    """Keys are relative, with ``/`` between parts. Every method may raise `StorageError`."""

    url: str

    def read(self, key: str) -> bytes:
        """Return a whole object; `NotFoundError` (``object-not-found``) if there is none."""

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``; fewer where the object ends before *stop*."""

    def size(self, key: str) -> int:
        """Return the length of an object in bytes; `NotFoundError` if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there; a reader sees the old or the new."""

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object; else `ConflictError` (``object-exists``)."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return every object below *prefix*, in no particular order."""

    def sync(self, keys: Iterable[str]) -> None:
        """Return once the objects survive a power cut, not only the end of the process."""


def is_remote(store: Store) -> bool:
    """Return whether an answer of *store* takes a round trip, so that waits should overlap."""
    return not store.url.startswith(("file:", "memory:"))


def not_found(key: str, url: str) -> NotFoundError:
    """Return the error for an object that is not there."""
    return NotFoundError(ErrorKind.OBJECT_NOT_FOUND, f"{url} has no object {key!r}")


def exists(key: str, url: str) -> ConflictError:
    """Return the error for an object that is there already."""
    return ConflictError(ErrorKind.OBJECT_EXISTS, f"{url} already has an object {key!r}")
