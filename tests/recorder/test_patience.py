"""A store that does not answer is asked again, and a put that landed unanswered counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from archive_schema.errors import ConflictError, ErrorKind, StorageError
from archive_schema.store import open_store
from recorder.patience import PatientStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from archive_schema.store import Store, StoredObject


class Network:
    """A real store behind a network that loses requests, or the answers to them."""

    def __init__(
        self, store: Store, *, losses: int, what: Literal["requests", "answers"] = "requests"
    ) -> None:
        self.url = store.url
        self._store = store
        self._losses = losses
        self._what = what

    def _reach(self) -> Store:
        if self._what == "requests":
            self._lose()
        return self._store

    def _lose(self) -> None:
        if self._losses:
            self._losses -= 1
            raise StorageError(ErrorKind.STORE_UNREACHABLE, "connection reset")

    def read(self, key: str) -> bytes:
        """Do as the store does."""
        return self._reach().read(key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Do as the store does."""
        return self._reach().read_range(key, start, stop)

    def size(self, key: str) -> int:
        """Do as the store does."""
        return self._reach().size(key)

    def write(self, key: str, data: bytes) -> None:
        """Do as the store does."""
        self._reach().write(key, data)

    def create(self, key: str, data: bytes) -> None:
        """Do as the store does, and perhaps lose the answer."""
        self._reach().create(key, data)
        self._lose()

    def delete(self, key: str) -> None:
        """Do as the store does."""
        self._reach().delete(key)

    def folders(self, prefix: str) -> list[str]:
        """Do as the store does."""
        return self._reach().folders(prefix)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Do as the store does."""
        return self._reach().objects(prefix)

    def sync(self, keys: Iterable[str]) -> None:
        """Do as the store does."""
        self._reach().sync(keys)


def test_every_request_is_repeated(tmp_path: Path) -> None:
    """Two are lost before each."""
    store = open_store(tmp_path)

    def lossy() -> PatientStore:
        return PatientStore(Network(store, losses=2), patience_s=60)

    lossy().write("a/b", b"12345")
    lossy().create("a/c", b"6")
    assert lossy().read("a/b") == b"12345"
    assert lossy().read_range("a/b", 1, 3) == b"23"
    assert lossy().size("a/c") == 1
    assert lossy().folders("") == ["a"]
    assert {found.key for found in lossy().objects("a")} == {"a/b", "a/c"}
    lossy().sync(iter(["a/b"]))
    lossy().delete("a/b")
    assert [found.key for found in store.objects("a")] == ["a/c"]


def test_a_put_that_landed_unanswered_counts(tmp_path: Path) -> None:
    store = open_store(tmp_path)

    PatientStore(Network(store, losses=1, what="answers"), 60).create("k", b"mine")

    assert store.read("k") == b"mine"


@pytest.mark.parametrize("losses", [0, 1])
def test_an_object_of_somebody_else_is_a_conflict(tmp_path: Path, losses: int) -> None:
    """Whether the put was answered at once or not."""
    store = open_store(tmp_path)
    store.write("k", b"theirs")

    with pytest.raises(ConflictError):
        PatientStore(Network(store, losses=losses), 60).create("k", b"mine")

    assert store.read("k") == b"theirs"


def test_an_equal_object_that_was_there_before_is_a_conflict_too(tmp_path: Path) -> None:
    """Of two who create the same, one is told that it was second."""
    store = open_store(tmp_path)
    store.write("k", b"same")

    with pytest.raises(ConflictError):
        PatientStore(store, 60).create("k", b"same")


def test_patience_ends_at_the_deadline(tmp_path: Path) -> None:
    unreachable = PatientStore(Network(open_store(tmp_path), losses=10**6), patience_s=0.2)

    with pytest.raises(StorageError, match="connection reset"):
        unreachable.read("k")


def test_what_will_not_change_is_not_repeated() -> None:
    """Nobody may write there, however often it is tried."""
    with pytest.raises(StorageError) as caught:
        PatientStore(open_store("/sys/trace-archive"), patience_s=10**6).write("k", b"")

    assert caught.value.kind is ErrorKind.STORE_READ_ONLY
