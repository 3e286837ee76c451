"""While the store is away a sampler goes on, and nothing that it recorded is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    StorageError,
    StoreRefusedError,
)
from archive_schema.models import Codec, RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import StoreOptions, open_store
from recorder import NoSpoolWarning, SpooledWarning, TraceRecorder
from recorder.drain import Target, drain
from tests.recorder.outage import (
    NOISE,
    STEPS,
    TILES,
    Valve,
    assert_complete,
    await_that,
    declaration,
    flush_at_last,
    record,
)
from tests.recorder.reading import committed, objects

if TYPE_CHECKING:
    from archive_schema.store import Store
    from recorder.drain import Drained
    from tests.s3_server import S3Server

ROOT = Path(__file__).parents[2]
AWAY = ErrorKind.STORE_UNREACHABLE
KILLS = 6

_COMMAND = "from archive_schema.cli import main; main()"
_DRAIN = """
import sys
from pathlib import Path
from recorder.drain import Target, drain
options = {"seal": False, "forget": False, "deadline_s": 30, "progress": lambda *_: None}
print("ready", flush=True)
sys.stdin.readline()
print([one.state for one in drain(Path(sys.argv[1]), Target(), **options)])
"""
_SMALL_FILES = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from tests.recorder.test_outages import record_into_the_void
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
record_into_the_void(sys.argv[1])
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder for spools."""
    return tmp_path / "spool"


@pytest.fixture
def valve(folder_store: Store) -> Valve:
    """Return a store that can be shut."""
    return Valve(folder_store)


def drained(place: Path, **options: Any) -> list[Drained]:
    """Drain in this process."""
    given: dict[str, Any] = {"seal": False, "forget": False, "deadline_s": 30.0, **options}
    return drain(place, Target(), progress=lambda *_: None, **given)


def left_behind(valve: Valve, place: Path, steps: range = range(STEPS), **options: Any) -> None:
    """Record a run of which all but the beginning ends up in the spool."""
    given: dict[str, Any] = {"deadline_s": 1.0, "spool": place, **options}
    with pytest.raises(StorageError) as caught, TraceRecorder(
        valve, "r", **declaration(), **given
    ) as rec:  # fmt: skip
        for n in steps:
            if n == 3:
                flush_at_last(rec)
                valve.shut(AWAY)
            record(rec, n)
    assert caught.value.kind is ErrorKind.SPOOLED
    assert f"trace-archive drain {place}" in str(caught.value)
    valve.open()


def record_into_the_void(folder: str) -> None:
    """Record into a store that is away from the first step."""
    valve = Valve(open_store(Path(folder) / "store"))
    options: dict[str, Any] = {"spool": Path(folder) / "spool", "max_bytes": 30_000}
    with TraceRecorder(valve, "r", **declaration(), **options, deadline_s=1.0) as rec:
        valve.shut(AWAY)
        for n in range(STEPS):
            record(rec, n)


def test_a_sampler_does_not_notice_an_outage(valve: Valve, place: Path) -> None:
    """Neither do new fields and coordinates; it never waits for as long as its deadline."""
    with TraceRecorder(valve, "r", **declaration(), spool=place, deadline_s=8) as rec:
        assert rec.spool is not None
        for n in range(STEPS):
            if n == 5:
                rec.flush()
                valve.shut(AWAY)
            record(rec, n)
        await_that(lambda: rec.spool and rec.spool.tiles >= TILES - 10, "the spool fills")
        assert rec.recorded().has(STEPS - 1)
        valve.open()
        rec.flush()
        assert rec.spool.empty
        assert rec.spool.tiles == rec.spool.nbytes == 0

    assert rec.budget.waited_s == 0
    assert_complete(open_store(valve.url))
    assert [path.name for path in place.iterdir()] == ["lock"]


def test_a_store_that_comes_and_goes_loses_nothing(valve: Valve, place: Path) -> None:
    with TraceRecorder(valve, "r", **declaration(), spool=place, deadline_s=8) as rec:
        for n in range(STEPS):
            if n % 4 == 1:
                valve.shut(ErrorKind.STORE_FULL if n % 8 == 1 else ErrorKind.STORE_BUSY)
            if n % 4 == 3:
                await_that(lambda: rec.spool and rec.spool.tiles, "the spool fills")
                valve.open()
            record(rec, n)
        valve.open()

    assert_complete(open_store(valve.url))


def test_a_server_that_hangs_does_not_hold_the_sampler(s3: S3Server, place: Path) -> None:
    """Its calls end with what patience there is, and memory stays within the budget."""
    url = s3.fresh_url()
    options: dict[str, Any] = {"spool": place, "deadline_s": 4.0, "max_bytes": 60_000}
    with TraceRecorder(url, "r", **declaration(), **options) as rec:
        record(rec, 0)
        flush_at_last(rec)
        with s3.paused():
            for n in range(1, STEPS):
                record(rec, n)
            await_that(lambda: rec.spool and rec.spool.tiles >= STEPS, "the spool fills")
        flush_at_last(rec)

    assert rec.budget.peak <= 60_000
    assert_complete(open_store(url))


def test_a_server_that_dies_is_drained_to_by_another_process(s3: S3Server, place: Path) -> None:
    """The error says by which command; what it seals is what would have been recorded."""
    url = s3.fresh_url()
    with pytest.raises(StorageError) as caught, TraceRecorder(
        url, "r", **declaration(), spool=place, deadline_s=2.0
    ) as rec:  # fmt: skip
        for n in range(STEPS):
            if n == 4:
                flush_at_last(rec)
                s3.kill()
            record(rec, n)
    assert caught.value.kind is ErrorKind.SPOOLED
    command = [sys.executable, "-c", _COMMAND, "drain", str(place), "--json"]
    (away,) = drained(place, deadline_s=1.0)
    s3.restart()
    assert RunRecords(open_store(url), "r").status() is not RunStatus.SEALED

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert away.state == "left"
    assert (done.returncode, done.stderr) == (0, "")
    assert '"state": "sealed"' in done.stdout
    assert_complete(open_store(url))
    assert [path.name for path in place.iterdir()] == ["lock"]


def test_a_killed_recorder_leaves_its_spool_to_the_next(s3: S3Server, place: Path) -> None:
    """Which takes its tiles for recorded, and does not ask the sampler for them again."""
    url = s3.fresh_url()
    command = [sys.executable, str(ROOT / "tests/recorder/spooling_sampler.py"), url, str(place)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"
        s3.kill()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "spooled\n"
        process.kill()
    s3.restart()

    with TraceRecorder(url, "r", **declaration(), spool=place) as rec:
        known = rec.recorded().fields["trace/noise"]
        again = [n for n in range(STEPS) if not known.has(n, 0, 20)]
        for n in again:
            record(rec, n)

    assert again == list(range(20, STEPS))
    assert_complete(open_store(url))
    assert [path.name for path in place.iterdir()] == ["lock"]


def test_flush_tells_what_is_safe_and_not_in_the_archive(valve: Valve, place: Path) -> None:
    with TraceRecorder(valve, "r", **declaration(), spool=place, deadline_s=0.5) as rec:
        valve.shut(AWAY)
        record(rec, 0)
        for _ in range(2):
            with pytest.raises(StorageError, match=r"2 tiles .* are kept in the spool") as caught:
                rec.flush()
            assert caught.value.kind is ErrorKind.SPOOLED
        valve.open()
        for n in range(1, STEPS):
            record(rec, n)
        flush_at_last(rec)

    assert_complete(open_store(valve.url))


def test_a_sampler_that_ignores_errors_is_warned_of_a_spool(valve: Valve, place: Path) -> None:
    """And goes on recording."""
    options: dict[str, Any] = {"spool": place, "deadline_s": 0.5, "on_error": "ignore"}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with TraceRecorder(valve, "r", **declaration(), **options) as rec:
            valve.shut(AWAY)
            for n in range(STEPS):
                record(rec, n)
            rec.flush()

    assert [one.category for one in warned] == [SpooledWarning] * 2
    valve.open()
    assert [one.state for one in drained(place)] == ["sealed"]
    assert_complete(open_store(valve.url))


def test_readers_hear_of_a_spool_that_was_left(valve: Valve, place: Path) -> None:
    """If the store is there to be told: here it refuses tiles only."""
    with pytest.raises(StorageError), TraceRecorder(
        valve, "r", **declaration(), spool=place, deadline_s=0.5
    ) as rec:  # fmt: skip
        record(rec, 0)
        flush_at_last(rec)
        valve.shut(ErrorKind.STORE_REFUSED, StoreRefusedError)
        record(rec, 1)
        await_that(lambda: rec.spool and rec.spool.tiles == 2, "the tiles are spooled")
        valve.open()

    store = open_store(valve.url)
    assert RunRecords(store, "r").status() is RunStatus.INCOMPLETE
    assert b"2 tiles are in the spool of host" in objects(store, "r")["heartbeats/main.json"]


def test_a_store_that_refuses_ends_the_recording_and_costs_nothing(
    valve: Valve, place: Path
) -> None:
    """An expired key, say: all that was accepted is kept, and drained when there is another."""
    with pytest.raises(StorageError, match="are kept in the spool") as caught, TraceRecorder(
        valve, "r", **declaration(), spool=place, deadline_s=5
    ) as rec:  # fmt: skip
        accepted = 0
        valve.shut(ErrorKind.STORE_REFUSED, StoreRefusedError)
        for n in range(STEPS):
            record(rec, n)
            accepted = n
    assert caught.value.kind is ErrorKind.STORE_REFUSED
    valve.open()

    (done,) = drained(place)

    assert done.state == "drained"
    tiles = committed(open_store(valve.url), "r")
    assert {("trace/noise", n, tile) for n in range(accepted) for tile in (0, 1)} <= set(tiles)


def test_a_full_spool_is_told_after_the_deadline(valve: Valve, place: Path) -> None:
    """With what is kept, and where; what was accepted and fitted is not lost."""
    options: dict[str, Any] = {"spool": place, "max_spool_bytes": 40_000, "max_bytes": 30_000}
    with pytest.raises(StorageError, match=r"kept in the spool .*/r-main-") as caught:
        with TraceRecorder(valve, "r", **declaration(), **options, deadline_s=0.5) as rec:
            valve.shut(AWAY)
            for n in range(STEPS):
                record(rec, n)
    assert caught.value.kind is ErrorKind.DEADLINE_PASSED
    assert rec.spool is not None
    assert 0 < rec.spool.nbytes <= 40_000
    assert rec.budget.peak <= 30_000
    valve.open()

    with TraceRecorder(valve, "r", **declaration(), spool=place) as rec:
        assert rec.recorded().fields["trace/noise"].tiles
        for n in range(STEPS):
            record(rec, n)

    assert_complete(open_store(valve.url))


def test_a_spool_whose_disk_is_full_is_told_after_the_deadline(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_FILES, str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "StorageError: recording stopped: the store did not take" in done.stderr


def test_a_spool_with_room_again_goes_on(valve: Valve, place: Path) -> None:
    """The store comes back while the sampler waits for it."""
    options: dict[str, Any] = {"spool": place, "max_spool_bytes": 40_000, "max_bytes": 30_000}
    with TraceRecorder(valve, "r", **declaration(), **options, deadline_s=8) as rec:
        valve.shut(AWAY)
        for n in range(STEPS):
            if n == 4:
                await_that(lambda: rec.spool and rec.spool.tiles >= 7, "the spool fills")
                valve.open()
            record(rec, n)

    assert_complete(open_store(valve.url))


def test_a_damaged_file_is_named_and_the_others_drain(valve: Valve, place: Path) -> None:
    left_behind(valve, place)
    tiles = sorted(place.glob("r-main-*/kept/*.tile"))
    for path, at in ((tiles[3], 10), (tiles[7], -10)):
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    (done,) = drained(place)
    again = drained(place)

    assert done.state == "refused"
    assert ["damaged" in done.remarks[0], "checksum" in done.remarks[1]] == [True, True]
    assert done.tiles == len(tiles) - 2
    assert len(committed(open_store(valve.url), "r")) == TILES - 2
    assert [(one.state, len(one.remarks)) for one in again] == [("refused", 2)]
    assert [one.state for one in drained(place, forget=True)] == ["drained"]
    assert drained(place) == []


def test_what_contradicts_the_archive_ends_the_recording_and_is_kept(
    valve: Valve, place: Path
) -> None:
    """Another writer was quicker: its tile stays, and the late one is named, by `drain` too."""
    with pytest.raises(ConflictError, match="1 files are set aside in") as caught, TraceRecorder(
        valve, "r", **declaration(), spool=place, deadline_s=30, seal_at_exit=False
    ) as rec:  # fmt: skip
        valve.shut(AWAY)
        record(rec, 0)
        record(rec, 1)
        await_that(lambda: rec.spool and rec.spool.tiles == 4, "the tiles are spooled")
        other = TraceRecorder(
            open_store(valve.url), "r", **declaration(), writer="other", seal_at_exit=False
        )
        with other:
            other.record(0, samples=slice(0, 10), noise=NOISE[9, :10])
        valve.open()
        rec.flush()
    assert caught.value.kind is ErrorKind.TILE_DIFFERS

    results = drained(place)

    assert "refused" in {one.state for one in results}
    assert "other values are recorded" in "".join(r for one in results for r in one.remarks)
    tiles = committed(open_store(valve.url), "r")
    np.testing.assert_array_equal(tiles["trace/noise", 0, 0], NOISE[9, :10])
    np.testing.assert_array_equal(tiles["trace/noise", 1, 1], NOISE[1, 10:])


def test_a_field_that_another_writer_declared_first_is_encoded_again(
    valve: Valve, place: Path
) -> None:
    """Its choices of codec and block hold for all."""
    with TraceRecorder(valve, "r", **declaration(), spool=place, deadline_s=8) as rec:
        valve.shut(AWAY)
        for n in range(STEPS):
            record(rec, n)
        await_that(lambda: rec.spool and rec.spool.tiles == TILES, "it spools")
        other = TraceRecorder(
            open_store(valve.url), "r", **declaration(), writer="other", seal_at_exit=False
        )
        with other:
            other.declare("noise", tile=10, codec=Codec(name="blosc"), block=(2, 25))
            other.record(0, samples=slice(0, 10), noise=NOISE[0, :10])
        valve.open()

    store = open_store(valve.url)
    assert_complete(store)
    assert RunRecords(store, "r").ledger.fields["trace/noise"].spec.block == (2, 25)


def test_two_drains_at_once_do_it_once(valve: Valve, place: Path) -> None:
    """The second leaves it to the first, and does not take it for dead."""
    left_behind(valve, place)
    command = [sys.executable, "-c", _DRAIN, str(place)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes: list[Any] = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"

    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].strip() for process in processes]

    assert sorted(said) in (
        ["['in use']", "['sealed']"], ["['sealed']", "[]"],
    )  # fmt: skip
    assert_complete(open_store(valve.url))


def test_a_drain_may_be_killed_at_any_moment(valve: Valve, place: Path) -> None:
    """What is left is drained by the next, which also seals."""
    left_behind(valve, place)
    chance = random.Random(4)
    command = [sys.executable, "-c", _DRAIN, str(place)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    for _ in range(KILLS):
        with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == b"ready\n"
            process.stdin.write(b"\n")
            process.stdin.flush()
            time.sleep(chance.uniform(0, 0.12))
            process.kill()

    results = drained(place)

    assert {one.state for one in results} <= {"sealed"}
    assert_complete(open_store(valve.url))
    assert [path.name for path in place.iterdir()] == ["lock"]


def test_a_live_recorder_keeps_its_spool(valve: Valve, place: Path) -> None:
    """Neither `drain` nor another opening by the same writer takes it."""
    with TraceRecorder(valve, "r", **declaration(), spool=place, deadline_s=8) as rec:
        valve.shut(AWAY)
        record(rec, 0)
        await_that(lambda: rec.spool and rec.spool.tiles == 2, "the tiles are spooled")
        assert [one.state for one in drained(place)] == ["in use"]
        valve.open()
        for n in range(1, STEPS):
            record(rec, n)

    assert_complete(open_store(valve.url))


def test_what_was_sealed_meanwhile_is_compared(valve: Valve, place: Path) -> None:
    """What the run holds is forgotten here; what it was sealed without is set aside."""
    left_behind(valve, place, range(6))
    with TraceRecorder(open_store(valve.url), "r", **declaration(), spool=False) as rec:
        for n in range(5):
            record(rec, n)
        rec.seal()

    results = drained(place)

    (done,) = results
    assert done.state == "refused"
    assert all("was sealed without it" in remark for remark in done.remarks)
    assert len([remark for remark in done.remarks if ".tile" in remark]) == 2


def test_a_run_that_was_removed_is_not_made_anew(valve: Valve, place: Path) -> None:
    left_behind(valve, place, range(5))
    store = open_store(valve.url)
    for found in list(store.objects("runs/r")):
        store.delete(found.key)

    (gone,) = drained(place)
    with TraceRecorder(store, "r", **declaration(), spool=place):
        pass
    (other,) = drained(place)

    assert (gone.state, gone.left) == ("left", 4)
    assert "has no run 'r' any more" in gone.remarks[0]
    assert "is another one" in other.remarks[0]


def test_no_secret_gets_into_a_spool(s3: S3Server, place: Path) -> None:
    """Neither the keys of the options nor those of the environment."""
    secret = s3.environment["AWS_SECRET_ACCESS_KEY"]
    options = StoreOptions(
        endpoint_url=s3.endpoint_url,
        access_key_id=s3.environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=secret,
    )
    with TraceRecorder(
        s3.fresh_url(), "r", **declaration(), spool=place, deadline_s=2.0, store_options=options,
        seal_at_exit=False,
    ) as rec:  # fmt: skip
        record(rec, 0)
        flush_at_last(rec)
        with s3.paused():
            record(rec, 1)
            await_that(lambda: rec.spool and rec.spool.tiles == 2, "the tiles are spooled")
            content = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())

    assert s3.endpoint_url.encode() in content
    assert secret.encode() not in content
    assert options.access_key_id is not None
    assert options.access_key_id.encode() not in content


def test_a_spool_that_cannot_be_is_told_at_once(valve: Valve, s3: S3Server) -> None:
    """As a warning, if nobody asked for it."""
    with pytest.raises(StorageError, match="the spool /sys/nowhere cannot be used"):
        with TraceRecorder(valve, "r", spool="/sys/nowhere"):
            pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACE_ARCHIVE_SPOOL", "/sys/nowhere")
        unspooled = TraceRecorder(s3.fresh_url(), "r", samples=1)
    with pytest.warns(NoSpoolWarning, match="/sys/nowhere"):
        unspooled.__enter__()
    assert unspooled.spool is None
    unspooled.record(0, x=np.zeros(1))
    unspooled.close()


def test_a_store_that_is_away_from_the_beginning_is_told(s3: S3Server, place: Path) -> None:
    """Nothing has been computed yet, and nothing is left behind."""
    url = s3.fresh_url()
    with s3.paused(), pytest.raises(StorageError) as caught:
        with TraceRecorder(url, "r", samples=1, spool=place, deadline_s=1.0):
            pass

    assert caught.value.kind is AWAY
    assert drained(place) == []
