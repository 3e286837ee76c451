"""A folder keeps a store's promises between processes, after kills, and on odd file systems."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

from archive_schema.errors import ConflictError, ErrorKind, NotFoundError, StorageError
from archive_schema.store import LocalStore

ROOT: Final = Path(__file__).parents[2]
RACERS: Final = 4
KEYS: Final = 300

RACE = """
import sys
from pathlib import Path
from archive_schema.errors import ConflictError
from archive_schema.store import LocalStore

store, name = LocalStore(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    try:
        store.create(f"runs/{number // 10}/{number}", name.encode())
    except ConflictError:
        continue
    print(number)
"""

# Let the kernel refuse system calls, as a file system without them does.
REFUSING = """
import ctypes, errno, os, platform, struct, sys
from pathlib import Path

CALLS = {"x86_64": {"link": (86, 265), "renameat2": (316,)},
         "aarch64": {"link": (37,), "renameat2": (276,)}}[platform.machine()]

def refuse(name, number):
    program = [(0x20, 0, 0, 0)]
    for call in CALLS[name]:
        program += [(0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | number)]
    program.append((0x06, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    loaded = Program(len(program), ctypes.cast(code, ctypes.c_void_p))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(loaded), 0, 0) == 0

refuse("link", errno.EPERM)
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_many_processes_that_create_one_wins(tmp_path: Path, *, links: bool) -> None:
    code = RACE if links else REFUSING + RACE
    racers = [python(code, tmp_path, name, KEYS) for name in "abcd"[:RACERS]]
    for one in racers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in racers:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    won = {name: one.communicate()[0].split() for name, one in zip("abcd", racers, strict=True)}

    assert [one.returncode for one in racers] == [0] * RACERS
    assert sorted(map(int, chain.from_iterable(won.values()))) == list(range(KEYS))
    store = LocalStore(tmp_path)
    for name, numbers in won.items():
        for number in map(int, numbers):
            assert store.read(f"runs/{number // 10}/{number}") == name.encode()
    assert list(store.leftovers("")) == []


def test_a_link_whose_answer_was_lost_is_found_to_be_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS sends a request again; the second answer says that the name is taken."""
    link = os.link

    def twice(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    store = LocalStore(tmp_path)

    store.create("k", b"mine")

    assert store.read("k") == b"mine"
    with pytest.raises(ConflictError):
        store.create("k", b"mine")


def test_a_file_system_that_cannot_hold_a_store_says_what_is_needed(tmp_path: Path) -> None:
    code = """
from archive_schema.errors import ArchiveError
from archive_schema.store import LocalStore

refuse("renameat2", errno.EINVAL)
store = LocalStore(Path(sys.argv[1]))
store.write("runs/a", b"1")
try:
    store.create("runs/b", b"1")
except ArchiveError as error:
    print(error.kind, error)
"""
    process = python(REFUSING + code, tmp_path)
    told, _ = process.communicate()

    assert told.startswith("store-refused")
    assert "neither hard links nor" in told
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]


def test_what_a_killed_process_left_is_no_object(tmp_path: Path) -> None:
    """The kernel kills it in the middle of a write."""
    code = """
import resource, signal, sys
from pathlib import Path
from archive_schema.store import LocalStore

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
LocalStore(Path(sys.argv[1])).create("runs/a/object", bytes(5000))
"""
    process = python(code, tmp_path)
    process.communicate()
    store = LocalStore(tmp_path)

    assert process.returncode < 0
    assert list(store.objects("")) == []
    with pytest.raises(NotFoundError):
        store.read("runs/a/object")
    (left,) = store.leftovers("runs")
    assert left.nbytes == 1000
    store.create("runs/a/object", b"whole")
    store.delete(left.key)
    assert [found.key for found in store.objects("")] == ["runs/a/object"]
    assert list(store.leftovers("")) == []


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths that are flushed to the device, as they are."""
    paths: list[str] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    return paths


def test_what_is_synced_is_led_to_by_durable_folders(tmp_path: Path, flushed: list[str]) -> None:
    """After a power cut a file is lost with the folder that was made for it."""
    store = LocalStore(tmp_path / "new/store")
    store.create("runs/a/b/one", b"1")
    LocalStore(store.root).create("runs/a/b/two", b"1")  # by somebody who promises less

    store.sync(["runs/a/b/one"])
    first, flushed[:] = flushed[:], []
    store.create("runs/a/b/three", b"1")
    store.sync(["runs/a/b/three"])
    store.delete("runs/a/b/one")
    again, flushed[:] = flushed[:], []

    folders = [store.root / "runs/a/b", *(store.root / "runs/a/b").parents]
    assert first == [str(store.root / "runs/a/b/one"), *map(str, folders)]
    assert again == [str(store.root / "runs/a/b/three"), str(store.root / "runs/a/b")]


def test_folders_that_were_removed_are_made_durable_again(
    tmp_path: Path, flushed: list[str]
) -> None:
    store = LocalStore(tmp_path)
    store.create("runs/a/one", b"1")
    store.sync(["runs/a/one"])
    store.delete("runs/a/one")
    flushed.clear()
    store.create("runs/a/two", b"1")
    store.sync(["runs/a/two"])

    assert flushed[1:] == [str(tmp_path / "runs/a"), str(tmp_path / "runs"), str(tmp_path)]


def test_folders_that_somebody_else_removed_are_made_again(tmp_path: Path) -> None:
    ours, theirs = LocalStore(tmp_path), LocalStore(tmp_path)
    ours.create("runs/a/b/one", b"1")
    theirs.delete("runs/a/b/one")
    assert not (tmp_path / "runs").exists()

    ours.create("runs/a/b/two", b"2")

    assert theirs.read("runs/a/b/two") == b"2"


def test_what_cannot_be_listed_is_not_empty(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    with pytest.raises(StorageError):
        list(store.objects("x" * 300))  # no file system has such a name


def test_an_object_in_the_place_of_a_folder_is_no_conflict(tmp_path: Path) -> None:
    """Whoever is told of a conflict reads what is there; here is nothing to read."""
    store = LocalStore(tmp_path)
    store.create("runs/a", b"1")

    for call in (store.create, store.write):
        with pytest.raises(StorageError) as caught:
            call("runs/a/b", b"2")
        assert caught.value.kind is ErrorKind.STORE_REFUSED
    with pytest.raises(StorageError):
        store.write("runs", b"2")
    with pytest.raises(ConflictError):
        store.create("runs", b"2")
    assert store.read("runs/a") == b"1"
