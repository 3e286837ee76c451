"""A store that fails is told loudly, costs bounded memory, and never what was acknowledged."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from archive_schema.errors import ErrorKind, StorageError
from archive_schema.layout import heartbeat_key
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import RecordingStoppedWarning, TraceRecorder
from tests.recorder.outage import await_that
from tests.recorder.reading import committed, objects, zarr_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from tests.s3_server import S3Server

STEPS: Final = 40
NOISE: Final = np.random.default_rng(5).integers(0, 2**32, (STEPS, 100, 250), np.uint32)
"""100 kB a step that no codec makes smaller."""

_LIMITED: Final = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from tests.recorder.test_failures import record_noise
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
record_noise(sys.argv[1])
"""


def record_noise(store: Store | str, **options: Any) -> int:
    """Record until something fails; return the steps that the sampler got through."""
    steps = 0
    with TraceRecorder(store, "r", steps=STEPS, samples=100, **options) as rec:
        for n in range(STEPS):
            rec.record(n, small=np.full(100, n, np.float32), noise=NOISE[n])
            steps += 1
    return steps


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def assert_whole(store: Store) -> None:
    """Check that what is committed is right, and that the run says it is not complete."""
    tiles = committed(store, "r")
    for (path, step, _), values in tiles.items():
        expected = NOISE[step] if path == "trace/noise" else np.full(100, step, np.float32)
        np.testing.assert_array_equal(values, expected)
    assert RunRecords(store, "r").status() is RunStatus.INCOMPLETE
    assert not [key for key in objects(store, "r") if ".partial" in key]


# Only root may mount; the limit of a file's size anybody can lower.
if os.geteuid() == 0:

    def test_a_full_disk_is_told_and_what_fitted_stays(small_disk: Path) -> None:
        with pytest.raises(StorageError, match="No space left") as caught:
            record_noise(str(small_disk))

        assert caught.value.kind is ErrorKind.STORE_FULL
        store = open_store(small_disk)
        assert_whole(store)
        assert len(committed(store, "r")) >= 10

    def test_a_sampler_may_go_on_without_recording(small_disk: Path) -> None:
        """It is warned when recording stops and at the end; the run cannot be sealed."""
        options: dict[str, Any] = {"samples": 100, "on_error": "ignore"}
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with TraceRecorder(str(small_disk), "r", steps=STEPS, **options) as rec:
                for n in range(STEPS):
                    rec.record(n, noise=NOISE[n])
                    rec.flush()
                assert len(warned) == 1
                with pytest.raises(StorageError, match="No space left"):
                    rec.seal()

        assert [one.category for one in warned] == [RecordingStoppedWarning] * 2
        assert all("No space left" in str(one.message) for one in warned)
        assert_whole(open_store(small_disk))


def test_an_object_that_the_system_refuses_is_told(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]

    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path), str(root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "StorageError: recording stopped: file://" in done.stderr
    assert "File too large" in done.stderr
    assert_whole(open_store(tmp_path))


def test_a_folder_that_cannot_be_written_is_told_at_once() -> None:
    """Nobody may make a folder there, root included."""
    with pytest.raises(StorageError, match="/sys/trace-archive") as caught:
        record_noise("/sys/trace-archive")

    assert caught.value.kind is ErrorKind.STORE_READ_ONLY


def test_a_store_that_hangs_costs_a_deadline_and_nothing_that_was_acknowledged(
    s3: S3Server,
) -> None:
    """Without a spool the sampler waits, then hears of it; later the run goes on."""
    url = s3.fresh_url()
    options: dict[str, Any] = {
        "steps": STEPS, "samples": 100, "max_bytes": 1_000_000, "spool": False,
    }  # fmt: skip
    with TraceRecorder(url, "r", **options, deadline_s=2.0, seal_at_exit=False) as rec:
        rec.record(0, noise=NOISE[0])
        rec.flush()
        with s3.paused():
            with pytest.raises(StorageError, match="within 2 s") as caught:
                for n in range(1, STEPS):
                    rec.record(n, noise=NOISE[n])
            assert rec.budget.peak <= 1_000_000
            with pytest.raises(StorageError, match="recording stopped"):
                rec.record(1, noise=NOISE[1])
            with pytest.raises(StorageError, match="recording stopped"):
                rec.close()
    # Whichever is first to lose patience: who waits for memory, or who waits for the answer.
    assert caught.value.kind in (ErrorKind.DEADLINE_PASSED, ErrorKind.STORE_UNREACHABLE)

    with TraceRecorder(url, "r", **options) as rec:
        assert rec.recorded().has(0)
        for n in range(STEPS):
            rec.record(n, noise=NOISE[n])

    np.testing.assert_array_equal(zarr_array(open_store(url), "r", "trace/noise"), NOISE)


def test_memory_stays_within_the_budget(folder_store: Store) -> None:
    """Also when tiles come faster than they are stored; one larger tile goes alone."""
    limit = 500_000
    with TraceRecorder(folder_store, "r", steps=STEPS, samples=100, max_bytes=limit) as rec:
        for n in range(STEPS):
            rec.record(n, noise=NOISE[n])
        rec.flush()
        assert 200_000 <= rec.budget.peak <= limit
        rec.declare("large", dims=("row", "column"))
        rec.record(0, large=np.zeros((1000, 1000)))
        rec.flush()
        assert rec.budget.peak == 2 * 8_000_000

    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/noise"), NOISE)


def test_what_is_flushed_outlives_a_failing_sampler(folder_store: Store) -> None:
    """The run is incomplete, its last word is the error, and the error itself goes on."""
    with pytest.raises(ZeroDivisionError), TraceRecorder(folder_store, "r", samples=100) as rec:
        rec.record(0, noise=NOISE[0])
        rec.record(1, noise=NOISE[1] * (1 / 0))

    assert set(committed(folder_store, "r")) == {("trace/noise", 0, 0)}
    assert RunRecords(folder_store, "r").status() is RunStatus.INCOMPLETE
    heartbeat = objects(folder_store, "r")["heartbeats/main.json"]
    assert b'"failed"' in heartbeat
    assert b"ZeroDivisionError: division by zero" in heartbeat


def test_a_failure_while_a_sampler_fails_is_a_note_on_its_error(folder_store: Store) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        with TraceRecorder(folder_store, "r", system="d3-dna", samples=1) as rec:
            rec.record(0, sequence=np.array([[999]]))
            raise KeyboardInterrupt

    (note,) = caught.value.__notes__
    assert "token ids" in note


def test_a_failure_is_raised_at_each_call_until_the_end(folder_store: Store) -> None:
    with pytest.raises(ValueError, match="token ids"):
        with TraceRecorder(folder_store, "r", system="d3-dna", samples=1) as rec:
            rec.record(0, sequence=np.array([[999]]))
            for call in (
                rec.flush, lambda: rec.record(1, x=np.zeros(1)), lambda: rec.inputs(y=np.zeros(1)),
                lambda: rec.sample_coordinates(z=[1]), rec.flush,
            ):  # fmt: skip
                with pytest.raises(ValueError, match=r"recording stopped: .*token ids"):
                    call()
    assert RunRecords(folder_store, "r").status() is RunStatus.INCOMPLETE


def test_going_on_without_recording_still_refuses_wrong_calls(folder_store: Store) -> None:
    """A wrong argument is a mistake in the program, not a failing store."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with TraceRecorder(folder_store, "r", samples=2, on_error="ignore") as rec:
            with pytest.raises(ValueError, match="expected a number"):
                rec.record(0, x=None)
            rec.record(0, x=np.zeros(2))

    assert RunRecords(folder_store, "r").status() is RunStatus.SEALED


def test_what_was_acknowledged_can_be_flushed_to_the_device(folder_store: Store) -> None:
    """The power cut itself cannot be tried; that nothing else changes can."""
    assert record_noise(folder_store, durability="disk") == STEPS

    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/noise"), NOISE)


def test_a_writer_that_saves_commits_still_says_that_it_is_there(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recorder.commits.HEARTBEAT_S", 0.01)
    with TraceRecorder(folder_store, "r", steps=2, samples=1, commit_interval_s=3600) as rec:
        rec.record(0, x=np.zeros((1, 8)))
        await_that(lambda: "trace.zarr/trace/x/c.0.0.0" in objects(folder_store, "r"), "its object")
        beats = set[bytes]()

        def beats_on() -> bool:
            beats.add(folder_store.read(heartbeat_key("r", "main")))
            return len(beats) > 3  # one may have been under way

        await_that(beats_on, "heartbeats")
        assert not committed(folder_store, "r")
        rec.flush()
        assert len(committed(folder_store, "r")) == 1


def test_nothing_but_the_interval_keeps_tiles_from_their_commit(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first object is there before the other fields are declared."""
    monkeypatch.setattr("recorder.commits.HEARTBEAT_S", 3600.0)  # which wakes who commits, too
    fields: dict[str, Any] = {f"x{n}": np.full((1, 8), n) for n in range(8)}
    with TraceRecorder(folder_store, "r", steps=1, samples=1, commit_interval_s=0.0) as rec:
        rec.record(0, **fields)
        await_that(lambda: len(committed(folder_store, "r")) == len(fields), "the commits")
