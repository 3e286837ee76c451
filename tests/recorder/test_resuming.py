"""A run goes on where it stood, and nobody's tile is ever replaced by another's."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    NotFoundError,
    StorageError,
)
from archive_schema.layout import claim_key, manifest_key, tile_key
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import LocalStore, open_store
from recorder import RunNotSealedWarning, TraceRecorder
from recorder.maintenance import verify_run
from recorder.sealing import seal_run
from server.query import Archive
from tests.recorder.reading import committed, objects, zarr_array

if TYPE_CHECKING:
    from pathlib import Path

    from archive_schema.store import Store

STEPS, SAMPLES, BATCH = 6, 25, 10
VALUES: Final = np.random.default_rng(3).normal(size=(STEPS, SAMPLES, 3)).astype("float32")
DECLARED: Final[dict[str, Any]] = {
    "system": "generic", "steps": STEPS, "samples": SAMPLES,
    "metadata": {"a": 1, "nested": [1.5, None, {"b": "c"}]},
}  # fmt: skip


class SamplerError(Exception):
    """What a sampler may raise."""


def sample(rec: TraceRecorder, *, stop_at: tuple[int, int] | None = None) -> int:
    """Sample batch by batch, passing over what is recorded; return the calls made."""
    done = rec.recorded()
    calls = 0
    for start in range(0, SAMPLES, BATCH):
        samples = slice(start, min(start + BATCH, SAMPLES))
        if done.has_all(samples):
            continue
        for n in range(STEPS):
            if (start, n) == stop_at:
                raise SamplerError
            if not done.has(n, samples):
                rec.record(n, samples=samples, x=VALUES[n, samples], t=n / 10)
                calls += 1
    return calls


def test_a_run_goes_on_where_it_stood(store: Store) -> None:
    """The sampler asks which tiles exist, and records only the others."""
    with pytest.raises(SamplerError), TraceRecorder(store, "r", **DECLARED) as rec:
        sample(rec, stop_at=(10, 2))
    records = RunRecords(store, "r")
    assert records.status() is RunStatus.INCOMPLETE
    assert len(committed(store, "r")) == STEPS + 2

    with TraceRecorder(store, "r", **DECLARED) as rec:
        done = rec.recorded()
        assert done.has_all(slice(0, 10))
        assert not done.has_all(slice(10, 20))
        assert not done.has_all()
        assert done.has(1, slice(10, 20))
        assert not done.has(2, slice(10, 20))
        assert done.fields["trace/x"].tiles == {(n, 0, 10) for n in range(STEPS)} | {
            (0, 10, 20), (1, 10, 20),
        }  # fmt: skip
        assert sample(rec) == 2 * STEPS - 2
        rec.flush()
        assert rec.recorded().has_all()

    np.testing.assert_array_equal(zarr_array(store, "r", "trace/x"), VALUES)
    assert RunRecords(store, "r").status() is RunStatus.SEALED


def test_the_same_again_is_nothing(store: Store) -> None:
    """In one opening and over several; a second commit of a tile would say the same."""
    with TraceRecorder(store, "r", **DECLARED, seal_at_exit=False) as rec:
        for _ in range(2):
            rec.record(0, samples=slice(0, 10), x=VALUES[0, :10], t=0.5)
        rec.flush()
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10], t=0.5)
    before = objects(store, "r")
    with TraceRecorder(store, "r", **DECLARED, seal_at_exit=False) as rec:
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10], t=0.5)

    after = objects(store, "r")
    assert {key for key in after if "/00000" in key and "json" in key} - set(before) == {
        "commits/main/000001/claim.json", "commits/main/000001/00000000.json",
    }  # fmt: skip
    assert len(committed(store, "r")) == 1


def test_other_values_are_a_conflict_and_the_first_stay(store: Store) -> None:
    with TraceRecorder(store, "r", **DECLARED, seal_at_exit=False) as rec:
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])
        rec.flush()

    with pytest.raises(ConflictError, match="trace/x, step 0, tile 0") as caught:
        with TraceRecorder(store, "r", **DECLARED) as rec:
            rec.record(0, samples=slice(0, 10), x=VALUES[1, :10])

    assert caught.value.kind is ErrorKind.TILE_DIFFERS
    (tile,) = committed(store, "r").values()
    np.testing.assert_array_equal(tile, VALUES[0, :10])
    assert RunRecords(store, "r").status() is RunStatus.INCOMPLETE


def test_two_contents_in_one_breath_are_a_conflict(folder_store: Store) -> None:
    """Before anything of it is committed, too."""
    with pytest.raises(ConflictError) as caught:
        with TraceRecorder(folder_store, "r", steps=1, samples=400_000) as rec:
            rec.record(0, x=np.random.default_rng(0).normal(size=400_000))
            rec.record(0, x=np.zeros(400_000))

    assert caught.value.kind is ErrorKind.TILE_DIFFERS


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 7}, "steps 6, now 7"),
        ({"steps": list(range(6))}, r"steps 6, now \(0, 1, 2"),
        ({"samples": None}, "samples 25, now None"),
        ({"system": "d3-dna"}, "system 'generic', now 'd3-dna'"),
        ({"metadata": {"a": 2}}, "metadata"),
    ],
)
def test_another_declaration_is_another_run(
    folder_store: Store, changed: dict[str, Any], message: str
) -> None:
    with TraceRecorder(folder_store, "r", **DECLARED, seal_at_exit=False):
        pass

    with pytest.raises(ConflictError, match=message) as caught:
        with TraceRecorder(folder_store, "r", **{**DECLARED, **changed}):
            pass

    assert caught.value.kind is ErrorKind.RUN_DIFFERS
    assert "commits/main/000001/claim.json" not in objects(folder_store, "r")


def test_a_run_is_resumed_only_if_it_may_be(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", **DECLARED, resume=False, seal_at_exit=False):
        pass

    with pytest.raises(ConflictError) as caught:
        with TraceRecorder(folder_store, "r", **DECLARED, resume=False):
            pass

    assert caught.value.kind is ErrorKind.RUN_EXISTS


def test_a_sealed_run_takes_nothing(store: Store) -> None:
    with TraceRecorder(store, "r", **DECLARED) as rec:
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])

    with pytest.raises(ConflictError, match="was sealed at") as caught:
        with TraceRecorder(store, "r", **DECLARED):
            pass

    assert caught.value.kind is ErrorKind.RUN_SEALED


def test_a_tile_goes_aside_where_a_dead_writer_left_another(store: Store) -> None:
    """Its object was never committed; it may not be overwritten, and nobody ever sees it."""
    with TraceRecorder(store, "r", **DECLARED, seal_at_exit=False) as rec:
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])
    (field,) = RunRecords(store, "r").ledger.fields.values()
    home = tile_key("r", field.spec, 1, 0)
    store.create(home, b"left by a writer that died")

    with TraceRecorder(store, "r", **DECLARED, seal_at_exit=False) as rec:
        sample(rec)

    (field,) = RunRecords(store, "r").ledger.fields.values()
    assert field.aside(1, 0) == "displaced/main/000001/trace/x/c.1.0.0"
    assert store.read(home) == b"left by a writer that died"
    archive = Archive(store)
    np.testing.assert_array_equal(archive.run("r").field("x").select({}).array(), VALUES)
    seal_run(RunRecords(store, "r"))
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/x"), VALUES)
    np.testing.assert_array_equal(Archive(store).run("r").field("x").select({}).array(), VALUES)
    assert verify_run(store, "r").sound


class StoreThatDies(LocalStore):
    """Declares one field and no other, as if the process had been killed then."""

    def create(self, key: str, data: bytes) -> None:
        """Store anything but the declaration of y."""
        if key.endswith("fields/trace/y.json"):
            raise StorageError(ErrorKind.STORE_UNREACHABLE, "killed")
        super().create(key, data)


def test_a_step_is_not_taken_for_recorded_while_one_of_its_fields_is_unknown(
    tmp_path: Path,
) -> None:
    """Whoever resumes would skip it, and the run would be sealed with a hole."""
    with pytest.raises(StorageError):
        with TraceRecorder(
            StoreThatDies(tmp_path), "r", **DECLARED, commit_interval_s=0, deadline_s=1
        ) as rec:
            rec.record(0, samples=slice(0, 10), x=VALUES[0, :10], y=VALUES[0, :10])

    assert not committed(open_store(tmp_path), "r")
    with TraceRecorder(tmp_path, "r", **DECLARED) as rec:
        assert not rec.recorded().has(0, slice(0, 10))


def test_a_call_that_is_refused_does_not_hold_up_the_others(folder_store: Store) -> None:
    """It named a field that nobody else records, and that is never declared."""
    with TraceRecorder(folder_store, "r", **DECLARED) as rec:
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10], t=0.5)
        with pytest.raises(ConflictError, match="'t' at step 0"):
            rec.record(0, samples=slice(0, 10), x=VALUES[0, :10], y=VALUES[0, :10], t=0.7)
        rec.flush()

    assert set(committed(folder_store, "r")) == {("trace/x", 0, 0)}


def test_of_two_who_differ_the_one_that_closes_later_is_told(folder_store: Store) -> None:
    """Also if the first was so slow to commit that the second took it for dead."""
    first = TraceRecorder(
        folder_store, "r", **DECLARED, writer="one", commit_interval_s=3600, seal_at_exit=False
    ).__enter__()
    first.record(0, samples=slice(0, 10), x=VALUES[0, :10])
    first.flush()
    first.record(1, samples=slice(0, 10), x=VALUES[1, :10])
    (field,) = RunRecords(folder_store, "r").ledger.fields.values()
    home = tile_key("r", field.spec, 1, 0)
    while not folder_store_has(folder_store, home):
        time.sleep(0.01)
    with TraceRecorder(folder_store, "r", **DECLARED, writer="two", seal_at_exit=False) as second:
        second.record(1, samples=slice(0, 10), x=VALUES[2, :10])

    with pytest.raises(ConflictError, match="step 1, tile 0: another writer") as caught:
        first.close()

    assert caught.value.kind is ErrorKind.TILE_DIFFERS
    np.testing.assert_array_equal(
        Archive(folder_store)
        .run("r")
        .field("x")
        .select({"step": 1, "sample": slice(0, 10)})
        .array(),
        VALUES[1, :10],
    )


def folder_store_has(store: Store, key: str) -> bool:
    try:
        return store.size(key) > 0
    except NotFoundError:
        return False


def test_writers_of_one_run_need_no_word_between_them(store: Store) -> None:
    """Each records its own samples; the last to leave seals."""
    entered = threading.Barrier(3, timeout=60)
    failures: list[BaseException] = []

    def rank(number: int) -> None:
        start = BATCH * number
        samples = slice(start, min(start + BATCH, SAMPLES))
        try:
            with TraceRecorder(store, "r", **DECLARED, tile=10, writer=f"rank-{number}") as rec:
                entered.wait()
                for n in range(STEPS):
                    rec.record(n, samples=samples, x=VALUES[n, samples], t=n / 10)
        except BaseException as error:  # noqa: BLE001  told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/x"), VALUES)
    records = RunRecords(store, "r")
    assert records.status() is RunStatus.SEALED
    assert len(committed(store, "r")) == 3 * STEPS


def test_a_tile_that_another_writer_has_yet_to_commit_is_theirs(folder_store: Store) -> None:
    """Its object is there, its commit is not: it is waited for, not replaced."""
    options: dict[str, Any] = {**DECLARED, "seal_at_exit": False}
    with TraceRecorder(folder_store, "r", **options, writer="slow", commit_interval_s=1.5) as slow:
        slow.record(0, samples=slice(0, 10), x=VALUES[0, :10])
        slow.flush()
        slow.record(1, samples=slice(0, 10), x=VALUES[1, :10])
        key = "trace.zarr/trace/x/c.1.0.0"
        while key not in objects(folder_store, "r"):
            time.sleep(0.01)

        with pytest.raises(ConflictError) as caught:
            with TraceRecorder(folder_store, "r", **options, writer="quick") as quick:
                quick.record(1, samples=slice(0, 10), x=VALUES[2, :10])

    assert caught.value.kind is ErrorKind.TILE_DIFFERS
    np.testing.assert_array_equal(committed(folder_store, "r")["trace/x", 1, 0], VALUES[1, :10])


def test_a_writer_that_was_replaced_stops(store: Store) -> None:
    """A process thought dead must not commit tiles that its successor may have replaced."""
    with pytest.raises(ConflictError, match="need a writer name each") as caught:
        with TraceRecorder(store, "r", **DECLARED) as zombie:
            zombie.record(0, samples=slice(0, 10), x=VALUES[0, :10])
            zombie.flush()
            with TraceRecorder(store, "r", **DECLARED, seal_at_exit=False) as successor:
                successor.record(1, samples=slice(0, 10), x=VALUES[1, :10])
            zombie.record(2, samples=slice(0, 10), x=VALUES[2, :10])

    assert caught.value.kind is ErrorKind.WRITER_REPLACED
    assert {step for _, step, _ in committed(store, "r")} == {0, 1}
    assert store.read(claim_key("r", "main", 1))


def test_a_writer_is_told_that_the_run_was_sealed_without_its_last(folder_store: Store) -> None:
    with pytest.raises(ConflictError, match="was sealed while writer") as caught:
        with TraceRecorder(folder_store, "r", **DECLARED) as rec:
            rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])
            rec.flush()
            seal_run(RunRecords(folder_store, "r"))
            rec.record(1, samples=slice(0, 10), x=VALUES[1, :10])

    assert caught.value.kind is ErrorKind.RUN_SEALED
    assert {step for _, step, _ in committed(folder_store, "r")} == {0}


def test_a_run_is_not_sealed_while_another_writer_records(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", **DECLARED, writer="one") as one:
        with TraceRecorder(folder_store, "r", **DECLARED, writer="two") as two:
            with pytest.raises(ConflictError, match="still recorded by one") as caught:
                two.seal()
        assert caught.value.kind is ErrorKind.WRITER_ACTIVE
        with TraceRecorder(folder_store, "r", **DECLARED, writer="three"):
            pass
        assert RunRecords(folder_store, "r").seal is None
        one.record(0, samples=slice(0, 10), x=VALUES[0, :10])
        seal = one.seal()

    assert seal.tiles == 1
    assert RunRecords(folder_store, "r").seal == seal


def test_a_run_that_another_writer_left_is_not_sealed_behind_its_back(store: Store) -> None:
    """A rank that failed is started again, and finds the run open."""
    options: dict[str, Any] = {**DECLARED, "tile": 10}
    with pytest.raises(SamplerError), TraceRecorder(store, "r", **options, writer="one") as one:
        one.record(0, samples=slice(0, 10), x=VALUES[0, :10])
        raise SamplerError
    with pytest.warns(RunNotSealedWarning, match=r"were lost: one \(.*\): failed SamplerError"):
        with TraceRecorder(store, "r", **options, writer="two") as two:
            two.record(0, samples=slice(10, 20), x=VALUES[0, 10:20])
    assert RunRecords(store, "r").seal is None

    with TraceRecorder(store, "r", **options, writer="one") as one:
        one.record(1, samples=slice(0, 10), x=VALUES[1, :10])

    assert RunRecords(store, "r").status() is RunStatus.SEALED
    assert len(committed(store, "r")) == 3


def test_what_is_left_of_a_removed_run_is_no_beginning(folder_store: Store) -> None:
    """Old commits would be taken for those of the new run."""
    with TraceRecorder(folder_store, "r", **DECLARED, seal_at_exit=False) as rec:
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])
    folder_store.delete(manifest_key("r"))

    with pytest.raises(ConflictError, match="trace-archive rm r") as caught:
        with TraceRecorder(folder_store, "r", **DECLARED):
            pass

    assert caught.value.kind is ErrorKind.RUN_EXISTS


def test_a_resumed_field_keeps_its_declaration(folder_store: Store) -> None:
    """Tile, codec and axes are those of its first opening, whatever the batch is now."""
    with TraceRecorder(folder_store, "r", steps=2, samples=20, seal_at_exit=False) as rec:
        rec.declare("x", dims=("sample", "width"), block=(1, 3))
        rec.record(0, samples=slice(0, 5), x=VALUES[0, :5])

    with TraceRecorder(folder_store, "r", steps=2, samples=20) as rec:
        rec.record(1, x=VALUES[1, :20], new=VALUES[1, :20])
        with pytest.raises(ArchiveError, match="float32, got float64"):
            rec.record(1, x=VALUES[1, :20].astype("float64"))

    fields = {f.spec.name: f for f in RunRecords(folder_store, "r").ledger.fields.values()}
    assert fields["x"].spec.dims == ("step", "sample", "width")
    assert fields["x"].spec.block == (1, 3)
    assert fields["x"].spec.tile == fields["new"].spec.tile == 5
    assert fields["x"].count == 1 + 4
    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/x")[1], VALUES[1, :20])


def test_a_new_field_takes_the_tiles_of_others(folder_store: Store) -> None:
    """Its first batch may be the short one, or all samples at once."""
    with TraceRecorder(folder_store, "r", steps=2, samples=25) as rec:
        rec.inputs(samples=slice(0, 25), original=VALUES[0])
        rec.record(0, samples=slice(0, 10), x=VALUES[0, :10])
        rec.record(0, samples=slice(20, 25), late=VALUES[0, 20:])
        rec.record(0, samples=slice(10, 20), late=VALUES[0, 10:20])

    fields = {f.spec.name: f.spec for f in RunRecords(folder_store, "r").ledger.fields.values()}
    assert {name: spec.tile for name, spec in fields.items()} == {
        "original": 25, "x": 10, "late": 10,
    }  # fmt: skip


def test_a_resumed_run_of_unknown_length_goes_on_growing(folder_store: Store) -> None:
    for first in (0, 70, 140):
        with TraceRecorder(folder_store, "r", seal_at_exit=first == 140) as rec:
            for n in range(first, first + 70):
                rec.record(n, samples=slice(first, first + 10), x=np.full((10,), n, "int32"))

    values = zarr_array(folder_store, "r", "trace/x")
    assert values.shape == (210, 150)
    assert (values[:70, :10] == np.arange(70)[:, None]).all()
    assert (values[140:, 140:] == np.arange(140, 210)[:, None]).all()
    assert zarr_array(folder_store, "r", "trace/recorded").sum() == 3 * 70 * 10


def test_a_short_tile_ends_the_samples_of_later_openings_too(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", seal_at_exit=False) as rec:
        rec.record(0, samples=slice(0, 10), x=np.zeros(10))
        rec.record(0, samples=slice(10, 15), x=np.zeros(5))

    with TraceRecorder(folder_store, "r") as rec:
        with pytest.raises(ArchiveError, match="last of which ends at 15") as caught:
            rec.record(1, samples=slice(10, 20), x=np.zeros(10))
        rec.record(1, samples=slice(10, 15), x=np.zeros(5))

    assert caught.value.kind is ErrorKind.TILE_MISALIGNED
    assert zarr_array(folder_store, "r", "trace/x").shape == (2, 15)
