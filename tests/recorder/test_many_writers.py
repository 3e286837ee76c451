"""Ranks, hosts and array tasks record one run without a word between them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder, part
from tests.command import trace_archive
from tests.recorder.rank_process import (
    DECLARED,
    LAYERS,
    SAMPLES,
    STEPS,
    TILE,
    Words,
    main,
    record_samples,
    record_step,
)
from tests.recorder.reading import objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from archive_schema.ledger import Ledger
    from archive_schema.store import Store
    from tests.s3_server import S3Server

RANKS: Final = 4
# From one process that has all modules already, a rank starts in a moment.
_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.recorder.rank_process"])


class Rank:
    """A process of `rank_process.py`, which waits at every word until it is told to go on."""

    def __init__(self, url: str, writer: str, **options: Any) -> None:
        self.writer = writer
        self.lines: list[str] = []
        self._words, told = multiprocessing.Pipe(duplex=False)
        waiting, self._going_on = multiprocessing.Pipe(duplex=False)
        ours = ("AWS_", "TRACE_ARCHIVE_")
        environment = {key: value for key, value in os.environ.items() if key.startswith(ours)}
        arguments = (url, writer, options, environment, Words(told, waiting))
        self.process = _PROCESSES.Process(target=main, args=arguments, daemon=True)
        self.process.start()
        # Their ends are theirs alone, so that nothing more comes from them once they are dead.
        told.close()
        waiting.close()

    @property
    def number(self) -> int:
        """Return the number of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def await_line(self, start: str) -> None:
        """Return once the process says a line that begins so."""
        while not (self.lines and self.lines[-1].startswith(start)):
            try:
                self.lines.append(self._words.recv())
            except EOFError:
                message = f"{self.writer} said {self.lines} and ended before {start!r}"
                raise AssertionError(message) from None

    def go_to(self, start: str) -> None:
        """Let it go on until it waits with a line that begins so."""
        self.go_on()
        self.await_line(start)

    def go_on(self) -> None:
        """Let it go on from where it waits."""
        self._going_on.send("go on")

    def release(self) -> None:
        """Let it go on to its end, wherever it waits until then."""
        self._going_on.close()

    def finish(self) -> list[str]:
        """Let it come to its end, and return what it had to warn of."""
        lines = self._rest()
        assert "left" in self.lines, self.lines
        return lines

    def fail(self) -> str:
        """Let it come to its end, and return why the archive refused it."""
        self._rest()
        (refusal,) = [line for line in self.lines if line.startswith("refused")]
        return refusal

    def kill(self) -> None:
        """End it by `kill -9`."""
        self.process.kill()
        self.process.join()

    def _rest(self) -> list[str]:
        self.release()
        with suppress(EOFError):
            while True:
                self.lines.append(self._words.recv())
        self.process.join()
        return [line for line in self.lines if line.startswith("warned")]


@contextmanager
def ranks(url: str, **options: Any) -> Iterator[list[Rank]]:
    """Start the ranks of a job, each with its part, up to where they would open the run."""
    with ExitStack() as stack:
        started = []
        for number in range(RANKS):
            own = part(SAMPLES, TILE, number, RANKS)
            rank = Rank(url, f"rank-{number}", owns=[own.start, own.stop], **options)
            stack.callback(rank.kill)
            started.append(rank)
        for rank in started:
            rank.await_line("ready")
        yield started


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store that processes share."""
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    server: S3Server = request.getfixturevalue("s3")
    return server.fresh_url()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Record what one process records that does it all."""
    store = open_store(tmp_path_factory.mktemp("alone"))
    with TraceRecorder(store, "r", **DECLARED) as rec:
        for step in range(STEPS):
            record_step(rec, step, slice(0, SAMPLES), range(LAYERS), np.float32(0))
        record_samples(rec, slice(0, SAMPLES))
    return store


def check_equal(store: Store, alone: Store) -> None:
    """Hold a run of many writers to that of one: values, coordinates and Zarr documents."""
    many, one = RunRecords(store, "r"), RunRecords(alone, "r")
    assert many.status() is RunStatus.SEALED
    assert many.seal is not None
    assert one.seal is not None
    assert (many.seal.tiles, many.seal.samples) == (one.seal.tiles, one.seal.samples)
    assert told(many.ledger) == told(one.ledger)
    assert zarr_objects(store) == zarr_objects(alone)


def told(ledger: Ledger) -> dict[str, Any]:
    """Return all that a ledger says, in an order of its own."""
    return {
        "fields": {path: field.spec for path, field in ledger.fields.items()},
        "tiles": {path: field.columns(path) for path, field in ledger.fields.items()},
        "steps": {c.name: dict(sorted(c.values.items())) for c in ledger.step_coordinates.values()},
        "samples": {
            c.name: dict(sorted(c.values.items())) for c in ledger.sample_coordinates.values()
        },
    }


def zarr_objects(store: Store) -> dict[str, Any]:
    """Return every object of the Zarr hierarchy; documents parsed, tiles as they are."""
    found: dict[str, Any] = {
        key: json.loads(data) if key.endswith(".json") else data
        for key, data in objects(store, "r").items()
        if key.startswith("trace.zarr/")
    }
    # A copy of the run's declaration, with its uid and time.
    del found["trace.zarr/zarr.json"]["attributes"]["trace_archive"]["declaration"]
    return found


def recorded_at_once(job: Sequence[Rank]) -> list[str]:
    """Let all ranks open the run, then record at once; return the lines that they say."""
    for rank in job:
        rank.go_on()
    for rank in job:
        rank.await_line("open")
    for rank in job:
        rank.release()
    for rank in job:
        assert not rank.finish()
    return [line for rank in job for line in rank.lines]


def test_four_processes_record_what_one_would(place: str, alone: Store) -> None:
    """All at once, with 24 layers: the run is created once, sealed once, and equal."""
    with ranks(place) as job:
        lines = recorded_at_once(job)

    assert lines.count("created run.json") == 1
    assert lines.count("created seal.json") == 1
    assert lines.count("left") == RANKS
    check_equal(open_store(place), alone)


def test_a_rank_that_is_killed_is_named_and_its_part_recorded_by_another(
    tmp_path: Path, alone: Store
) -> None:
    """The last to leave tells of it, the run waits, and whoever takes the part finishes it."""
    store = open_store(tmp_path)
    with ranks(tmp_path.as_uri()) as job:
        for rank in job:
            rank.go_to("open")
        job[2].go_to("safe 0")
        job[2].kill()
        for rank in job[:2]:
            assert not rank.finish()
        age(tmp_path, "rank-2")
        (warned,) = job[3].finish()
    process = job[2].number
    assert warned.startswith("warned RunNotSealedWarning run 'r' is not sealed")
    assert f"process {process}, samples [4, 6)): lost" in warned
    assert RunRecords(store, "r").seal is None
    lost = shown(tmp_path)["rank-2"]
    assert (lost["state"], lost["process"], lost["samples"]) == ("lost", process, [4, 6])
    assert lost["host"] == socket.gethostname()
    assert lost["tiles"] >= 1 + LAYERS

    substitute = Rank(tmp_path.as_uri(), "substitute", owns=[4, 6])
    assert not substitute.finish()

    assert "created seal.json" in substitute.lines
    check_equal(store, alone)


def test_a_rank_that_is_killed_goes_on_under_its_name_at_once(s3: S3Server, alone: Store) -> None:
    url = s3.fresh_url()
    with ranks(url) as job:
        for rank in job:
            rank.go_to("open")
        job[1].go_to("safe 0")
        job[1].go_to("safe 1")
        job[1].kill()
        for rank in (job[0], *job[2:]):
            rank.finish()
    assert RunRecords(open_store(url), "r").seal is None

    again = Rank(url, "rank-1", owns=[2, 4])
    assert not again.finish()

    assert "created seal.json" in again.lines
    check_equal(open_store(url), alone)


def test_a_rank_that_wakes_up_after_its_part_was_taken_over_harms_nothing(
    tmp_path: Path, alone: Store
) -> None:
    """It has other values by then, which nobody ever sees, and is told."""
    with ranks(tmp_path.as_uri(), noise=0) as job:
        zombie = job[3]
        for rank in job:
            rank.go_to("open")
        zombie.go_to("safe 0")
        os.kill(zombie.number, signal.SIGSTOP)
        for rank in job[:3]:
            rank.finish()
        age(tmp_path, "rank-3")
        substitute = Rank(tmp_path.as_uri(), "substitute", owns=[6, 7])
        substitute.await_line("ready")
        substitute.go_to("open")
        os.kill(zombie.number, signal.SIGCONT)
        told_zombie = zombie.fail()
        assert not substitute.finish()

    assert "refused writer-replaced" in told_zombie
    assert "its samples were taken over by substitute" in told_zombie
    check_equal(open_store(tmp_path), alone)


def shown(folder: Path) -> dict[str, Any]:
    """Return what `trace-archive show` says of the writers, by their names."""
    command = ("show", "r", "--store", folder)
    table = trace_archive(*command).stdout
    document = trace_archive(*command, "--json").stdout
    writers = {one["name"]: one for one in json.loads(document)["writers"]}
    for writer in writers.values():
        words = next(line.split() for line in table.splitlines() if writer["name"] in line)
        assert {writer["state"], writer["host"], str(writer["process"])} <= set(words)
    return writers


def age(folder: Path, writer: str) -> None:
    """Let two minutes pass since a writer was heard of, by the clock of a folder."""
    beat = folder / "runs/r/heartbeats" / f"{writer}.json"
    then_s = beat.stat().st_mtime - 120
    os.utime(beat, (then_s, then_s))


def test_eight_processes_that_come_at_once_make_one_run(tmp_path: Path) -> None:
    """One of them creates it, and all record it, also those that have no samples."""
    url = tmp_path.as_uri()
    with ExitStack() as stack:
        job = [
            Rank(url, f"rank-{n}", owns=[0, 0 if n else SAMPLES], layers=[0, 1], writers=8)
            for n in range(8)
        ]
        for rank in job:
            stack.callback(rank.kill)
        for rank in job:
            rank.await_line("ready")
        lines = recorded_at_once(job)

    assert lines.count("created run.json") == 1
    assert lines.count("created seal.json") == 1
