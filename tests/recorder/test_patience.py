"""A store that does not answer is asked again, and a put that landed unanswered counts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Literal

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

    def heal(self) -> None:
        """Lose nothing any more."""
        self._losses = 0

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


class Hanging:
    """A real store that answers writes late, when it is told to."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.answers = threading.Event()
        self.began = threading.Semaphore(0)
        self._store = store

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        def late(*arguments: Any) -> Any:
            self.began.release()
            self.answers.wait(60)
            return operation(*arguments)

        return late


class Busy:
    """A store that asks to be left alone for a while, so often."""

    def __init__(self, store: Store, times: int, retry_after_s: float) -> None:
        self.url = store.url
        self.asked: list[float] = []
        self._store = store
        self._times = times
        self._retry_after_s = retry_after_s

    def read(self, key: str) -> bytes:
        """Do as the store does, in the end."""
        self.asked.append(time.monotonic())
        if len(self.asked) <= self._times:
            error = StorageError(ErrorKind.STORE_BUSY, "too many at once")
            error.retry_after_s = self._retry_after_s
            raise error
        return self._store.read(key)


def test_a_call_that_hangs_is_left_alone(tmp_path: Path) -> None:
    """Whoever waits is told in time; a put that lands late after all is no harm."""
    store = open_store(tmp_path)
    hanging = Hanging(store)
    patient: Any = PatientStore(hanging, patience_s=0.1)

    with pytest.raises(StorageError, match=r"did not answer within 0\.1 s"):
        patient.create("k", b"mine")
    hanging.answers.set()
    patient.patience_s = 60
    with pytest.raises(ConflictError):
        patient.create("k", b"mine")

    assert store.read("k") == b"mine"


def test_a_late_write_never_replaces_a_later_one(tmp_path: Path) -> None:
    """The second waits for the first, as long as it may, and then is not begun."""
    store = open_store(tmp_path)
    hanging = Hanging(store)
    patient = PatientStore(hanging, patience_s=0.5)
    for data in (b"first", b"second"):
        with pytest.raises(StorageError):
            patient.write("k", data)
    assert hanging.began.acquire(blocking=False)
    assert not hanging.began.acquire(blocking=False)

    hanging.answers.set()
    patient.patience_s = 60
    patient.write("k", b"third")

    assert store.read("k") == b"third"


def test_a_store_is_asked_again_when_it_says(tmp_path: Path) -> None:
    """Not before; and not at all if that is after the end of patience."""
    store = open_store(tmp_path)
    store.write("k", b"1")
    busy: Any = Busy(store, 1, retry_after_s=0.4)

    assert PatientStore(busy, 60).read("k") == b"1"
    assert busy.asked[1] - busy.asked[0] >= 0.4
    hopeless: Any = Busy(store, 1, retry_after_s=30)
    with pytest.raises(StorageError, match="too many"):
        PatientStore(hopeless, 10).read("k")
    assert len(hopeless.asked) == 1


def test_one_call_finds_out_that_a_store_is_away_for_all(tmp_path: Path) -> None:
    """Where calls may fail fast; a probe brings it back, if it is there."""
    store = open_store(tmp_path)
    store.write("k", b"1")
    network = Network(store, losses=10**6)
    patient = PatientStore(network, 0.1)
    patient.fails_fast = True
    with pytest.raises(StorageError, match="connection reset"):
        patient.read("k")
    patient.patience_s = 10**6

    with pytest.raises(StorageError, match="the store is away: connection reset"):
        patient.read("k")
    network.heal()
    with pytest.raises(StorageError, match="the store is away"):
        patient.read("k")
    with patient.probe():
        assert patient.read("k") == b"1"

    assert not patient.away
    assert patient.read("k") == b"1"
