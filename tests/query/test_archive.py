"""Runs grow, end, vanish and come back, while many readers look at them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.layout import commits_prefix, run_prefix
from archive_schema.models import Heartbeat, Place, RunStatus, StepColumn
from archive_schema.records import put_heartbeat
from archive_schema.store import LocalStore
from server.query import Archive
from tests.query.builder import NOW, Builder, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archive_schema.store import Store

VALUES = np.arange(80, dtype=np.float32).reshape(10, 8)


def started_run(store: Store, uid: str = "u1", factor: float = 1) -> Builder:
    run = Builder(store, uid=uid)
    run.declare(spec_of("x", VALUES, tile=10, block=(5, 8)))
    return run.put("trace/x", factor * VALUES, 0)


def remove(store: Store, run_id: str = "run") -> None:
    """Remove a run, its manifest first, so that no reader takes the rest for a run."""
    keys = [found.key for found in store.objects(run_prefix(run_id))]
    for key in sorted(keys, key=lambda key: not key.endswith("run.json")):
        store.delete(key)


def until(holds: Callable[[], bool], deadline_s: float = 20) -> None:
    """Ask until something holds."""
    end_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_a_commit_is_seen_by_the_next_call(store: Store, archive: Archive) -> None:
    """A viewer that polls sees a step as soon as it is acknowledged."""
    run = started_run(store)
    first = archive.run("run")
    again = archive.run("run")
    steps = first.steps
    run.put("trace/x", VALUES + 1, 7)

    grown = archive.run("run")

    assert first is again
    assert (steps, grown.steps) == ((0,), (0, 7))
    assert grown.field("x").select({"step": -1}).array().tolist() == (VALUES + 1).tolist()
    assert first.version != grown.version


def test_sealing_is_seen_and_changes_nothing_else(store: Store, archive: Archive) -> None:
    """Whoever holds a view of the live run can go on reading it."""
    run = started_run(store)
    live = archive.run("run")
    run.seal()

    sealed = archive.run("run")

    assert (live.sealed, sealed.sealed) == (False, True)
    assert sealed.status is RunStatus.SEALED
    assert (sealed.steps, sealed.samples) == (live.steps, live.samples)
    assert np.array_equal(live.field("x").select({}).array(), [VALUES])
    assert live.field("x").select({}).digest == sealed.field("x").select({}).digest


@pytest.mark.parametrize("sealed", [False, True], ids=["live", "sealed"])
def test_a_run_that_takes_the_place_of_another_is_noticed(
    store: Store,
    sealed: bool,  # noqa: FBT001
) -> None:
    """Blocks of the run before it are still in memory, under the same keys."""
    archive = Archive(store, refresh_s=0)
    run = started_run(store)
    if sealed:
        run.seal()
    old = archive.run("run")
    old.field("x").select({}).array()
    remove(store)
    new = started_run(store, uid="u2", factor=-1)
    if sealed:
        new.seal()

    until(lambda: archive.run("run").manifest.uid == "u2")

    view = archive.run("run")
    assert np.array_equal(view.field("x").select({}).array(), [-VALUES])
    assert view.version != old.version
    assert view.field("x").select({}).digest != old.field("x").select({}).digest


def test_tiles_of_a_removed_run_are_not_called_lost(store: Store, archive: Archive) -> None:
    """Whoever asks for a run that was just removed gets a 404, not a 500."""
    started_run(store).seal()
    view = archive.run("run")
    remove(store)

    with pytest.raises(NotFoundError, match="has no run 'run'") as caught:
        view.field("x").select({}).array()

    assert caught.value.kind is ErrorKind.RUN_NOT_FOUND
    started_run(store, uid="u2")
    store.delete(run_prefix("run") + "/trace.zarr/trace/x/c.0.0.0")
    with pytest.raises(NotFoundError, match="another has its id now"):
        view.field("x").select({}).array()
    assert archive.run("run").manifest.uid == "u2"


def test_unknown_runs_fields_and_layers_are_named(store: Store, archive: Archive) -> None:
    """The message of a 404 says what there is."""
    run = started_run(store)
    run.declare(
        spec_of("output", VALUES, place=Place.LAYERS, layer="blocks.1"),
        spec_of("label", VALUES[0], place=Place.INPUTS),
    )
    run.put("layers/blocks.1/output", VALUES, 0).put("inputs/label", VALUES[0])
    view = archive.run("run")

    assert archive.run_ids() == ["run"]
    assert view.layers() == ["blocks.1"]
    assert [field.path for field in view.fields()] == [
        "trace/x",
        "layers/blocks.1/output",
        "inputs/label",
    ]
    asked: list[tuple[Callable[[], Any], ErrorKind, str]] = [
        (lambda: archive.run("other"), ErrorKind.RUN_NOT_FOUND, "no run 'other'"),
        (lambda: view.field("y"), ErrorKind.FIELD_NOT_FOUND, "'y' in its trace; expected one of x"),
        (
            lambda: view.field("output", layer="blocks.2"),
            ErrorKind.LAYER_NOT_FOUND,
            "no layer 'blocks.2'; expected one of blocks.1",
        ),
        (
            lambda: view.field("mlp", layer="blocks.1"),
            ErrorKind.FIELD_NOT_FOUND,
            "'mlp' in layer 'blocks.1'; expected one of output",
        ),
        (
            lambda: view.field("label", place=Place.OUTPUTS),
            ErrorKind.FIELD_NOT_FOUND,
            "'label' in its outputs; it has none",
        ),
    ]
    for ask, kind, message in asked:
        with pytest.raises(NotFoundError, match=message) as caught:
            ask()
        assert caught.value.kind is kind
    with pytest.raises(InvalidInputError) as invalid:
        archive.run("../run")
    assert invalid.value.kind is ErrorKind.INVALID_NAME


def test_the_status_follows_the_writers_last_word(store: Store) -> None:
    """A run whose writer failed is incomplete until another writer resumes it."""
    archive = Archive(store, refresh_s=0)
    started_run(store)
    put_heartbeat(store, "run", Heartbeat(writer="main", epoch=0, time=NOW))
    assert archive.run("run").status is RunStatus.RECORDING

    put_heartbeat(store, "run", Heartbeat(writer="main", epoch=0, time=NOW, state="failed"))

    until(lambda: archive.run("run").status is RunStatus.INCOMPLETE)


def test_the_sample_axis_is_as_declared_or_as_far_as_recorded(store: Store) -> None:
    """Fields that are recorded less far have the same axis."""
    Builder(store, "declared", samples=30)
    run = Builder(store, "open")
    for name in ("x", "y"):
        run.declare(spec_of(name, VALUES, tile=10))
    run.put("trace/x", VALUES, 0, 2).put("trace/y", VALUES[:3], 0)
    archive = Archive(store)

    assert archive.run("declared").samples == 30
    assert archive.run("open").samples == 30
    assert archive.run("open").field("y").shape == (1, 30, 8)
    recorded = archive.run("open").field("y").select({}, missing="mask").recorded()
    assert np.flatnonzero(recorded[0]).tolist() == [0, 1, 2]


def test_changes_tell_what_is_new_since_a_version(store: Store, archive: Archive) -> None:
    """Following a run costs what is new in it, not what is in it."""
    run = started_run(store)
    run.declare(spec_of("label", VALUES[0], place=Place.INPUTS))
    since = archive.run("run").version
    run.put("inputs/label", VALUES[0])
    second = archive.run("run")
    column = StepColumn(name="t", dtype="float64", step=(5,), value=(0.5,))
    run.commit(run.columns("trace/x", 3, 0, VALUES), coordinates=(column,))
    view = archive.run("run")

    assert view.changes(view.version).fields == ()
    assert view.changes(view.version).steps == ()
    assert second.changes(since).fields == ("inputs/label",)
    assert second.changes(since).steps == ()
    assert view.changes(second.version).steps == (3, 5)
    assert view.changes(since).fields == ("inputs/label", "trace/x")
    assert view.changes(since).version == view.version
    run.seal()
    sealed = archive.run("run")
    assert sealed.changes(view.version).steps == ()
    assert sealed.changes(second.version).steps == (3, 5)
    assert sealed.changes(sealed.version).fields == ()


def test_changes_since_another_life_are_everything(store: Store, archive: Archive) -> None:
    """A client that slept through a removal must drop all that it holds."""
    run = started_run(store)
    old = archive.run("run").version
    remove(store)
    run = started_run(store, uid="u2")
    for step in range(1, 4):
        run.put("trace/x", VALUES, step)

    view = archive.run("run")

    assert view.changes(old).steps == (0, 1, 2, 3)
    assert view.changes(old).fields == ("trace/x",)
    for rubbish in ("~x", "a~main", "a~main.0", "a~main.0.x", "a~sealed.1.2.3"):
        with pytest.raises(InvalidInputError, match="is no version") as caught:
            view.changes(rubbish)
        assert caught.value.kind is ErrorKind.INVALID_PARAMETER


def test_changes_of_a_sealed_run_without_its_commits_are_everything(store: Store) -> None:
    """They may have been cleaned away; then it cannot be told what is new."""
    run = started_run(store)
    since = Archive(store).run("run").version
    run.put("trace/x", VALUES, 1).put("trace/x", VALUES, 2).seal()
    for found in list(store.objects(commits_prefix("run"))):
        store.delete(found.key)

    changes = Archive(store).run("run").changes(since)

    assert changes.steps == (0, 1, 2)


def test_memory_for_blocks_is_bounded(store: Store) -> None:
    """A server reads for weeks."""
    run = started_run(store)
    for step in range(1, 40):
        run.put("trace/x", VALUES + step, step)
    block_nbytes = 5 * 8 * 4
    archive = Archive(store, cache_bytes=20 * block_nbytes)
    field = archive.run("run").field("x")

    for _ in range(2):
        for step in range(40):
            assert np.array_equal(field.select({"step": step}).array(), VALUES + step)
            assert archive.reader.cache.nbytes <= 20 * block_nbytes
    assert archive.reader.cache.nbytes == 20 * block_nbytes
    small = Archive(store, cache_bytes=15 * block_nbytes)
    small.run("run").field("x").select({}).array()
    assert small.reader.cache.nbytes == 0


def test_many_threads_read_what_one_thread_reads(store: Store) -> None:
    """Also while the run grows, and blocks are driven out of memory."""
    run = started_run(store)
    errors: list[BaseException] = []
    done = threading.Event()

    def write() -> None:
        for step in range(1, 60):
            run.put("trace/x", VALUES + step, step)
        done.set()

    with Archive(store, cache_bytes=16 * 200, reads_in_flight=3, refresh_s=0) as archive:

        def read(seed: int) -> int:
            rng = np.random.default_rng(seed)
            count = 0
            while not done.is_set() or count < 20:
                view = archive.run("run")
                field = view.field("x")
                step = int(rng.choice(view.steps))
                start, stop = sorted(rng.integers(0, 11, 2).tolist())
                chosen = field.select({"step": step, "sample": slice(start, stop)})
                assert np.array_equal(chosen.array(), (VALUES + step)[start:stop])
                column = field.select({"step": slice(0, step + 1), "sample": 4, "axis0": 2})
                assert column.array().tolist() == [VALUES[4, 2] + n for n in range(step + 1)]
                assert field.shape == (len(view.steps), 10, 8)
                count += 1
            return count

        with ThreadPoolExecutor(6) as pool:
            writing = pool.submit(write)
            reading = [pool.submit(read, seed) for seed in range(5)]
            errors += [error for future in reading if (error := future.exception())]
            writing.result()

        assert errors == []
        assert archive.run("run").steps == tuple(range(60))


class CountingStore(LocalStore):
    """A folder that remembers what was read, but for looks at whether the run is there."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[tuple[str, int, int]] = []

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        if not key.endswith("run.json"):
            self.asked.append((key, 0, -1))
        return super().read(key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``."""
        self.asked.append((key, start, stop))
        return super().read_range(key, start, stop)


def test_samples_of_one_block_cost_one_range(tmp_path: Path) -> None:
    """On S3 each range is a round trip; neither metadata nor a shard index may add another."""
    store = CountingStore(tmp_path)
    run = started_run(store).seal()
    archive = Archive(store)
    field = archive.run("run").field("x")
    entry = field.ledger.tile(0)
    assert entry is not None
    key = run.key("trace/x", 0)
    for samples, start, stop in (
        (slice(0, 4), 0, entry.ends[0]),
        (slice(6, 7), entry.ends[0], entry.ends[1]),
        (slice(3, 7), 0, entry.ends[1]),
    ):
        fresh = Archive(store)
        fresh.run("run")
        store.asked.clear()

        chosen = fresh.run("run").field("x").select({"step": 0, "sample": samples})
        assert store.asked == []
        chosen.array()
        assert store.asked == [(key, start, stop)]
        assert chosen.read_nbytes == stop - start
        fresh.run("run").field("x").select({"step": 0, "sample": samples}).array()

        assert len(store.asked) == 1
