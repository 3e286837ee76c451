"""Every kind of store keeps the same promises."""

import threading
from pathlib import Path

import pytest

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
)
from archive_schema.store import LocalStore, ObjectsStore, Store, open_store


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b/c", b"0123456789")

    assert store.read("a/b/c") == b"0123456789"
    assert store.read_range("a/b/c", 2, 5) == b"234"
    assert store.size("a/b/c") == 10
    store.write("a/b/c", b"")
    assert store.read("a/b/c") == b""
    assert store.size("a/b/c") == 0


def test_create_keeps_what_is_there(store: Store) -> None:
    store.create("k/one", b"first")

    with pytest.raises(ConflictError, match="k/one") as caught:
        store.create("k/one", b"second")

    assert caught.value.kind is ErrorKind.OBJECT_EXISTS
    assert store.read("k/one") == b"first"


def test_one_of_many_creators_wins(store: Store) -> None:
    """Epochs, fields and seals rely on it."""
    won: list[int] = []

    def race(number: int) -> None:
        try:
            store.create("race/key", str(number).encode())
        except ArchiveError:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert store.read("race/key") == str(won[0]).encode()


@pytest.mark.parametrize("key", ["none", "folder/none"])
def test_absent_is_its_own_error(store: Store, key: str) -> None:
    for call in (
        lambda: store.read(key),
        lambda: store.read_range(key, 0, 1),
        lambda: store.size(key),
    ):
        with pytest.raises(NotFoundError, match=key) as caught:
            call()
        assert caught.value.kind is ErrorKind.OBJECT_NOT_FOUND
    store.delete(key)
    assert store.folders(key) == []
    assert list(store.objects(key)) == []


def test_a_listing_shows_what_is_below(store: Store) -> None:
    for key in ("runs/b/x", "runs/a/y/z", "runs/a/w", "other/q"):
        store.write(key, key.encode())

    assert store.folders("runs") == ["a", "b"]
    assert store.folders("runs/a") == ["y"]
    found = {one.key: one.nbytes for one in store.objects("runs/a")}
    assert found == {"runs/a/y/z": len("runs/a/y/z"), "runs/a/w": len("runs/a/w")}
    store.delete("runs/a/w")
    assert [one.key for one in store.objects("runs/a")] == ["runs/a/y/z"]


def test_a_memory_store_is_shared_by_name() -> None:
    first, second = open_store("memory://shared-by-name"), open_store("memory://shared-by-name")
    first.write("k", b"1")

    assert second.read("k") == b"1"
    with pytest.raises(NotFoundError):
        open_store("memory://another-name").read("k")


def test_a_url_says_which_store(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store(tmp_path), LocalStore)
    spaced = tmp_path / "a b"
    store = open_store(spaced.as_uri())
    store.write("k", b"1")
    assert (spaced / "k").read_bytes() == b"1"
    assert isinstance(open_store("s3://bucket/prefix"), ObjectsStore)


@pytest.mark.parametrize("url", ["ftp://host/x", "http://", "s3:///nobucket", "zip://x"])
def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_store(url)

    assert caught.value.kind is ErrorKind.STORE_URL_INVALID
    assert url in str(caught.value)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    """Also not a temporary file that a listing would show."""
    store = LocalStore(tmp_path)
    store.write("runs/a", b"1")

    with pytest.raises(ArchiveError):
        store.write("runs", b"2")  # a folder has this name
    with pytest.raises(ArchiveError):
        store.write("runs/a/b", b"2")  # an object has the folder's name

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "runs"]
