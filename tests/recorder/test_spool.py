"""Files of a spool outlive their process, belong to one at a time, and are never half there."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from archive_schema.errors import ErrorKind, FormatError, StorageError
from archive_schema.models import StepColumn
from recorder.opening import manifest_of
from recorder.spool import Spool, Spooled, SpoolSession, leftovers

if TYPE_CHECKING:
    from pathlib import Path

STORE = "s3://bucket/archive"
MANIFEST = manifest_of("r", system="generic", metadata={}, tags=(), steps=3, samples=2)


def session(**other: Any) -> SpoolSession:
    """Return whose a spool is."""
    given: dict[str, Any] = {
        "store": STORE,
        "manifest": MANIFEST,
        "writer": "main",
        "host": "here",
        "process": 1,
        "time": datetime.now(UTC),
    }
    return SpoolSession(**(given | other))


def opened(place: Path, **options: Any) -> Spool:
    """Return a spool that is in use."""
    spool = Spool(place, store=STORE, run="r", writer="main", **options)
    spool.begin(session())
    return spool


def coordinates(step: int) -> Spooled:
    """Return something to keep."""
    return Spooled(steps=(StepColumn(name="t", dtype="int64", step=(step,), value=(step,)),))


def step_of(spool: Spool) -> int | None:
    """Take the oldest file and return its step."""
    entry = spool.take()
    return None if entry is None else spool.read(entry)[0].steps[0].step[0]


@pytest.mark.parametrize("durable", [False, True])
def test_files_come_back_in_order(tmp_path: Path, *, durable: bool) -> None:
    with opened(tmp_path, durable=durable) as spool:
        for step in range(3):
            spool.line(spool.keep(coordinates(step)))
        first = spool.take()
        assert first is not None
        spool.give_back(first)

        assert [step_of(spool) for _ in range(4)] == [0, 1, 2, None]


def test_what_a_dead_process_left_is_taken_over_once(tmp_path: Path) -> None:
    """By the same writer of the same run in the same store, before what is new."""
    with opened(tmp_path) as dead:
        dead.line(dead.keep(coordinates(1)))
        dead.keep(coordinates(2))
        others = [
            Spool(tmp_path, store=store, run=run, writer=writer)
            for store, run, writer in (
                (STORE, "r", "main"),  # its process is alive
                (STORE, "r", "other"), (STORE, "s", "main"), ("s3://other", "r", "main"),
            )
        ]  # fmt: skip
        assert not any(other.dead for other in others)

    with opened(tmp_path) as spool:
        spool.line(spool.keep(coordinates(3)))
        assert [step_of(spool) for _ in range(4)] == [1, 2, 3, None]
        assert not Spool(tmp_path, store=STORE, run="r", writer="main").dead
    assert [one.files for one in leftovers(tmp_path)] == [3]


def test_another_run_of_that_name_takes_nothing_over(tmp_path: Path) -> None:
    with opened(tmp_path) as dead:
        dead.line(dead.keep(coordinates(1)))
    again = manifest_of("r", system="generic", metadata={}, tags=(), steps=3, samples=2)

    with Spool(tmp_path, store=STORE, run="r", writer="main") as spool:
        spool.begin(session(manifest=again))

        assert spool.take() is None
    assert [one.files for one in leftovers(tmp_path)] == [1]


def test_a_spool_is_bounded(tmp_path: Path) -> None:
    """What does not fit leaves nothing behind, and there is room again for what is removed."""
    with opened(tmp_path) as spool:
        first = spool.keep(coordinates(0))
        spool.max_bytes = 2 * first.nbytes
        spool.keep(coordinates(1))
        with pytest.raises(StorageError, match="has no room for") as caught:
            spool.keep(coordinates(2))
        assert caught.value.kind is ErrorKind.STORE_FULL
        spool.remove(first)
        spool.keep(coordinates(2))

        assert spool.nbytes == spool.max_bytes
        assert len(list(spool.folder.glob("kept/*"))) == 2


def test_an_empty_spool_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.remove(spool.keep(coordinates(0)))

    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_what_is_refused_stays_with_its_reason(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.refuse(spool.keep(coordinates(0)), FormatError(ErrorKind.TILE_DAMAGED, "no good"))
        assert spool.empty

    (left,) = leftovers(tmp_path)
    assert (left.files, len(left.refused)) == (0, 1)
    assert "no good" in left.refused[0]


def test_damage_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        entry = spool.keep(coordinates(0))
        path = spool.folder / entry.key
        path.write_bytes(path.read_bytes().replace(b"[0]", b"[1]", 1))

        with pytest.raises(FormatError, match="damaged"):
            spool.read(entry)


def test_a_child_that_forks_off_does_not_keep_a_spool(tmp_path: Path) -> None:
    """Workers that load data outlive a killed sampler by seconds."""
    ready, tell_ready = os.pipe()
    ended, tell_end = os.pipe()
    spool = opened(tmp_path)
    spool.keep(coordinates(0))
    child = os.fork()
    if not child:
        os.write(tell_ready, b"x")
        os.read(ended, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        spool.close()

        assert Spool(tmp_path, store=STORE, run="r", writer="main").dead
    finally:
        os.write(tell_end, b"x")
        os.waitpid(child, 0)
        for end in (ready, tell_ready, ended, tell_end):
            os.close(end)


def test_a_folder_whose_owner_nobody_can_tell_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.keep(coordinates(0))
        (spool.folder / "session.json").write_bytes(b"{}")
        folder = spool.folder
    (folder / "session.json").write_bytes(b"{}")

    (left,) = leftovers(tmp_path)

    assert (left.session, left.files) == (None, 1)
