"""A part of a run has one writer at a time, and the run is whole when all parts are."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from operator import and_
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import pytest

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import RunNotSealedWarning, TraceRecorder, part
from tests.recorder.reading import committed, objects, zarr_array
from tests.server_fixture import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from archive_schema.store import Store

SAMPLES, TILE = 35, 10
DECLARED: Final[dict[str, Any]] = {"steps": 2, "samples": SAMPLES, "commit_interval_s": 0.0}
VALUES: Final = np.random.default_rng(4).normal(size=(2, SAMPLES, 3)).astype("float32")


class SamplerError(Exception):
    """What a sampler may raise."""


def record(rec: TraceRecorder, samples: slice) -> None:
    """Record some samples of the whole run."""
    for step in range(2):
        for start in range(samples.start, samples.stop, TILE):
            batch = slice(start, min(start + TILE, samples.stop))
            rec.record(step, samples=batch, t=step / 2, x=VALUES[step, batch])


def together(work: Callable[[Any], object], of: Iterable[Any]) -> list[Any]:
    """Do some work at once for each of several, and return what came of it."""
    items = list(of)
    with ThreadPoolExecutor(len(items)) as pool:
        return [future.result() for future in [pool.submit(work, one) for one in items]]


def status(store: Store) -> RunStatus:
    """Return the status of the run."""
    return RunRecords(store, "r").status()


def test_eight_writers_that_come_at_once_make_one_run(store: Store) -> None:
    ready = threading.Barrier(8, timeout=60)

    def rank(number: int) -> str:
        recorder = TraceRecorder(store, "r", steps=8, writer=f"rank-{number}", writers=8)
        ready.wait()
        with recorder as rec:
            rec.record(number, t=0.5)
            return rec.run_id

    together(rank, range(8))

    assert status(store) is RunStatus.SEALED
    assert zarr_array(store, "r", "trace/t").tolist() == [0.5] * 8


def test_sixteen_writers_with_other_first_batches_declare_the_same_fields(store: Store) -> None:
    """How well a codec does follows from the batch; whoever declares first settles it for all."""
    ready = threading.Barrier(16, timeout=60)
    values = np.zeros((160, 60), "float32")
    values[::20] = np.random.default_rng(0).normal(size=(8, 60))

    def rank(number: int) -> None:
        own = part(160, 5, number, 16)
        middle = own.start + 5
        batches = [slice(middle, own.stop), slice(own.start, middle)]
        with TraceRecorder(
            store, "r", steps=1, samples=160, tile=5, writer=f"rank-{number}", owns=own
        ) as rec:
            ready.wait()
            for samples in [own] if number % 2 else batches:
                rec.record(0, samples=samples, x=values[samples], y=values[samples, 0] > 0)

    together(rank, range(16))

    assert status(store) is RunStatus.SEALED
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/x")[0], values)
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/y")[0], values[:, 0] > 0)


def test_a_writer_records_no_samples_but_its_own(folder_store: Store) -> None:
    """And nothing of a call that has others."""
    with TraceRecorder(folder_store, "r", **DECLARED, owns=slice(10, 20)) as rec:
        for samples in (slice(0, 10), slice(10, 30), None):
            batch = VALUES[0, samples or slice(None)]
            with pytest.raises(InvalidInputError, match=r"'x': expected samples within \[10, 20\)"):
                rec.record(0, samples=samples, x=batch, t=0.5)
        with pytest.raises(InvalidInputError) as caught:
            rec.inputs(samples=slice(20, 30), original=VALUES[0, 20:30])
        record(rec, slice(10, 20))
        rec.outputs(weights=np.ones(4))

    assert caught.value.kind is ErrorKind.SELECTION_OUT_OF_BOUNDS
    assert set(committed(folder_store, "r")) == {
        ("trace/x", 0, 1), ("trace/x", 1, 1), ("outputs/weights", 0, 0),
    }  # fmt: skip
    assert RunRecords(folder_store, "r").ledger.step_coordinates["t"].values == {0: 0.0, 1: 0.5}


def test_a_part_of_half_a_tile_is_refused_at_once(folder_store: Store) -> None:
    """Before anything is written, where the size of a tile is said."""
    with pytest.raises(
        InvalidInputError, match=r"whole tiles of 10 .* such as \[0, 20\)"
    ) as caught:
        TraceRecorder(folder_store, "r", **DECLARED, tile=10, owns=slice(5, 15))

    assert caught.value.kind is ErrorKind.TILE_MISALIGNED
    assert not list(folder_store.objects("runs"))


def test_a_part_of_half_a_tile_is_refused_by_the_fields_that_there_are(folder_store: Store) -> None:
    """Whoever is refused holds its part no longer, and comes again with the right one."""
    with TraceRecorder(folder_store, "r", **DECLARED, owns=slice(0, 20)) as rec:
        record(rec, slice(0, 20))

    with pytest.raises(InvalidInputError, match=r"field 'x': .* such as \[20, 35\)") as caught:
        TraceRecorder(folder_store, "r", **DECLARED, writer="two", owns=slice(25, 35)).__enter__()
    assert caught.value.kind is ErrorKind.TILE_MISALIGNED
    with TraceRecorder(folder_store, "r", **DECLARED, writer="two", owns=slice(20, 35)) as rec:
        record(rec, slice(20, 35))

    assert status(folder_store) is RunStatus.SEALED


def test_a_part_of_half_a_tile_is_refused_when_a_field_is_declared(folder_store: Store) -> None:
    """By the first batch, or by name."""
    with TraceRecorder(folder_store, "r", **DECLARED, owns=slice(10, 25)) as rec:
        with pytest.raises(InvalidInputError, match=r"such as \[10, 30\)") as caught:
            rec.record(0, samples=slice(10, 20), x=VALUES[0, 10:20])
        with pytest.raises(InvalidInputError, match="'y': expected to own whole tiles of 10"):
            rec.declare("y", tile=10)
        rec.record(0, samples=slice(10, 15), x=VALUES[0, 10:15])

    assert caught.value.kind is ErrorKind.TILE_MISALIGNED
    assert set(committed(folder_store, "r")) == {("trace/x", 0, 2)}


def test_samples_that_another_writer_records_are_taken(store: Store) -> None:
    """Until it has closed; then whoever has more to record there may."""
    with TraceRecorder(store, "r", **DECLARED, tile=TILE, writer="one", owns=slice(0, 20)) as one:
        record(one, slice(0, 20))
        for writer, owns in (("two", slice(10, 30)), ("three", slice(0, 35))):
            wrong = TraceRecorder(store, "r", **DECLARED, tile=TILE, writer=writer, owns=owns)
            with pytest.raises(ConflictError, match=r"while one \(.*\[0, 20\)\) records") as caught:
                wrong.__enter__()
            assert caught.value.kind is ErrorKind.PART_TAKEN
    assert RunRecords(store, "r").seal is None

    with TraceRecorder(store, "r", **DECLARED, tile=TILE, writer="two", owns=slice(0, 35)) as two:
        record(two, slice(0, 35))

    assert status(store) is RunStatus.SEALED
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/x"), VALUES)


def test_of_two_that_want_the_same_samples_at_once_at_most_one_gets_them(store: Store) -> None:
    """Each looks for the other after it has said what it wants."""
    meet = threading.Barrier(2, timeout=60)

    def rank(writer: str) -> list[bool]:
        got = []
        for attempt in range(3):
            recorder = TraceRecorder(
                store, f"r{attempt}", **DECLARED, writer=writer, owns=slice(SAMPLES)
            )
            meet.wait()
            try:
                recorder.__enter__()
            except ConflictError as error:
                assert error.kind is ErrorKind.PART_TAKEN  # noqa: PT017
                meet.wait()
                got.append(False)
            else:
                meet.wait()
                recorder.close()
                got.append(True)
        return got

    one, two = together(rank, ["one", "two"])
    assert not any(map(and_, one, two))


def test_the_part_of_a_writer_that_failed_is_free(folder_store: Store) -> None:
    """Whoever records it instead lets the run be sealed."""
    parts = [part(SAMPLES, TILE, number, 2) for number in range(2)]
    with pytest.raises(SamplerError):
        with TraceRecorder(folder_store, "r", **DECLARED, writer="one", owns=parts[0]) as rec:
            rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])
            raise SamplerError
    with pytest.warns(RunNotSealedWarning, match=r"one \(.*\[0, 20\)\): failed SamplerError"):
        with TraceRecorder(folder_store, "r", **DECLARED, writer="two", owns=parts[1]) as rec:
            record(rec, parts[1])

    with TraceRecorder(folder_store, "r", **DECLARED, writer="three", owns=parts[0]) as rec:
        assert rec.recorded().has(0, slice(0, 10))
        record(rec, parts[0])

    assert status(folder_store) is RunStatus.SEALED
    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/x"), VALUES)


def test_a_writer_that_was_thought_lost_is_told_who_has_its_part(tmp_path: Path) -> None:
    """It is ended before another begins, so nothing of it comes after."""
    store = open_store(tmp_path)
    options: dict[str, Any] = {**DECLARED, "owns": slice(0, 35), "seal_at_exit": False}
    with pytest.raises(ConflictError, match="its samples were taken over by two on") as caught:
        with TraceRecorder(store, "r", **options, writer="one") as one:
            one.record(0, samples=slice(0, 10), x=VALUES[0, :10])
            one.flush()
            two = TraceRecorder(store, "r", **options, writer="two")
            enter_once_lost(two, tmp_path / "runs/r/heartbeats/one.json")
            assert two.recorded().has(0, slice(0, 10))
            one.record(0, samples=slice(10, 20), x=VALUES[1, 10:20])
            with pytest.raises(ConflictError):
                one.flush()
            record(two, slice(0, 35))
            two.close()

    assert caught.value.kind is ErrorKind.WRITER_REPLACED
    np.testing.assert_array_equal(committed(store, "r")["trace/x", 0, 1], VALUES[0, 10:20])


def enter_once_lost(recorder: TraceRecorder, heartbeat: Path) -> None:
    """Let two minutes pass since a writer was heard of, by the clock of a folder.

    Again, if it has another word in between.
    """
    while True:
        then_s = heartbeat.stat().st_mtime - 120
        os.utime(heartbeat, (then_s, then_s))
        try:
            recorder.__enter__()
        except ConflictError as error:
            assert error.kind is ErrorKind.PART_TAKEN  # noqa: PT017
        else:
            return


def test_who_starts_late_finds_the_run_open(store: Store) -> None:
    """Array tasks need not overlap: the run is whole when all samples had their writer."""
    for number in (2, 0, 3, 1):
        assert number == 2 or RunRecords(store, "r").seal is None
        own = part(SAMPLES, TILE, number, 4)
        with TraceRecorder(
            store, "r", **DECLARED, tile=TILE, writer=f"task-{number}", owns=own
        ) as rec:
            record(rec, own)

    assert status(store) is RunStatus.SEALED
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/x"), VALUES)


def test_a_reader_sees_who_records(store: Store) -> None:
    """As long as the run is not sealed: then nobody does."""
    options: dict[str, Any] = {**DECLARED, "tile": TILE, "writers": 2}
    with served(store.url) as url:
        with TraceRecorder(store, "r", **options, writer="one", owns=slice(0, 20)) as one:
            record(one, slice(0, 20))
            one.flush()
            live = httpx.get(f"{url}/runs/r").json()
        with TraceRecorder(store, "r", **options, writer="two", owns=slice(20, 35)) as two:
            record(two, slice(20, 35))
        # The service looks for what is new at most a few times a second.
        while (sealed := httpx.get(f"{url}/runs/r").json())["status"] != "sealed":
            time.sleep(0.05)

    (writer,) = live["writers"]
    assert live["declared_writers"] == 2
    assert (writer["name"], writer["state"], writer["samples"]) == ("one", "recording", [0, 20])
    assert (writer["host"], writer["process"]) == (socket.gethostname(), os.getpid())
    assert writer["tiles"] == 4
    assert writer["opened"] <= writer["heard"]
    assert (sealed["status"], sealed["writers"]) == ("sealed", [])


def test_layers_may_be_shared_out_instead_of_samples(store: Store) -> None:
    """Each stage of a pipeline has its own layers of all samples; the number of stages is said."""
    for stage in range(3):
        assert stage == 0 or RunRecords(store, "r").seal is None
        with TraceRecorder(store, "r", **DECLARED, writer=f"stage-{stage}", writers=3) as rec:
            for step in range(2):
                for layer in (2 * stage, 2 * stage + 1):
                    rec.record(step, layer=f"blocks.{layer}", output=VALUES[step] + layer)

    assert status(store) is RunStatus.SEALED
    for layer in range(6):
        read = zarr_array(store, "r", f"layers/blocks.{layer}/output")
        np.testing.assert_array_equal(read, VALUES + layer)


def test_the_number_of_writers_is_part_of_the_declaration(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", **DECLARED, writers=2, writer="one"):
        pass

    with pytest.raises(ConflictError, match="writers 2, now 3") as caught:
        TraceRecorder(folder_store, "r", **DECLARED, writers=3, writer="two").__enter__()

    assert caught.value.kind is ErrorKind.RUN_DIFFERS
    with pytest.raises(InvalidInputError, match="writers"):
        TraceRecorder(folder_store, "r", **DECLARED, writers=0)


def test_a_writer_that_another_replaced_is_not_waited_for(folder_store: Store) -> None:
    """Where the number of writers is said, one that failed and one that did its work are one."""
    options: dict[str, Any] = {**DECLARED, "tile": TILE, "writers": 2}
    with pytest.raises(SamplerError), TraceRecorder(folder_store, "r", **options, writer="one"):
        raise SamplerError
    with pytest.warns(RunNotSealedWarning, match="one"):
        with TraceRecorder(folder_store, "r", **options, writer="two") as rec:
            record(rec, slice(0, 20))

    with TraceRecorder(folder_store, "r", **options, writer="one-again") as rec:
        record(rec, slice(20, 35))

    assert status(folder_store) is RunStatus.SEALED


def test_a_writer_with_an_empty_part_has_only_to_leave(folder_store: Store) -> None:
    """There are more ranks than tiles."""
    for number in range(6):
        own = part(SAMPLES, TILE, number, 6)
        with TraceRecorder(
            folder_store, "r", **DECLARED, tile=TILE, writer=f"rank-{number}", owns=own, writers=6
        ) as rec:
            record(rec, own)
        assert (RunRecords(folder_store, "r").seal is not None) is (number == 5)

    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/x"), VALUES)


def test_of_writers_that_leave_at_the_same_instant_one_seals(store: Store) -> None:
    """Whoever looks last sees that all have closed; nobody is waited for."""
    ready = threading.Barrier(4, timeout=60)

    def rank(number: int) -> None:
        for attempt in range(3):
            with TraceRecorder(store, f"r{attempt}", steps=4, writer=f"rank-{number}") as rec:
                rec.record(number, t=number / 4)
                rec.flush()
                ready.wait()

    together(rank, range(4))

    for attempt in range(3):
        records = RunRecords(store, f"r{attempt}")
        assert records.status() is RunStatus.SEALED
        assert records.ledger.steps == (0, 1, 2, 3)


def test_a_zombie_that_leaves_quietly_does_not_seal_what_its_successor_records(
    folder_store: Store,
) -> None:
    with TraceRecorder(folder_store, "r", **DECLARED, tile=TILE) as zombie:
        record(zombie, slice(0, 20))
        zombie.flush()
        successor = TraceRecorder(folder_store, "r", **DECLARED, tile=TILE)
        successor.__enter__()
    assert RunRecords(folder_store, "r").seal is None

    record(successor, slice(20, 35))
    successor.__exit__(None, None, None)

    assert status(folder_store) is RunStatus.SEALED
    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/x"), VALUES)


@pytest.mark.parametrize("declared", [DECLARED, {}])
def test_a_zombie_leaves_a_sealed_run_as_it_is(store: Store, declared: dict[str, Any]) -> None:
    """Its documents too, which a writer puts with the first tile of a field."""
    zombie = TraceRecorder(store, "r", **declared)
    zombie.__enter__()
    with TraceRecorder(store, "r", **declared) as rec:
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])
    assert status(store) is RunStatus.SEALED
    sealed = objects(store, "r")

    zombie.record(1, samples=slice(10, 20), x=VALUES[1, 10:20])
    with pytest.raises(ConflictError) as caught:
        zombie.close()

    assert caught.value.kind is ErrorKind.WRITER_REPLACED
    now = objects(store, "r")
    assert {key for key in sealed if now.get(key) != sealed[key]} <= {"heartbeats/main.json"}
