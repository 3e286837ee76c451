"""A compacted run gives every reader what the run gave before, and is there whole or not at all."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import orjson
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from archive_schema.cli import application
from archive_schema.dtypes import is_text
from archive_schema.errors import ConflictError, ErrorKind, FormatError, StorageError
from archive_schema.generations import choose_cut
from archive_schema.layout import array_path, field_path, step_position
from archive_schema.records import RunRecords
from archive_schema.store import LocalStore, open_store
from recorder import TraceRecorder
from recorder.compaction import compact_run
from recorder.maintenance import repair_run, sweep_compacted_run, verify_run
from recorder.sealing import seal_run
from server.query import Archive
from tests.query.builder import Builder
from tests.query.strategies import RandomField, random_fields, selections
from tests.server_fixture import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from server.query import RunView

_NUMBERS = count()
STEPS: Final = 70
SAMPLES: Final = 25
BATCH: Final = 10
SHARD_NBYTES: Final = 8000
"""So small that a field has several shards."""


def record(where: str | Store, run_id: str = "r", *, seal: bool = True) -> None:
    """Record a run with a field of every kind, some of it missing."""
    random = np.random.default_rng(3)
    with TraceRecorder(where, run_id, steps=STEPS, samples=SAMPLES, seal_at_exit=seal) as rec:
        rec.declare("sequence", tokens=True)
        rec.declare("attention", every=4)
        rec.declare("total", dims=("part",))
        rec.inputs(label=np.arange(SAMPLES))
        rec.outputs(name=np.full(SAMPLES, "alpha"), nothing=np.zeros((SAMPLES, 0), np.float32))
        for start in range(0, SAMPLES, BATCH):
            samples = slice(start, min(start + BATCH, SAMPLES))
            size = samples.stop - start
            for step in range(STEPS):
                if start == BATCH and 30 < step < 50:
                    continue
                values = random.normal(size=(size, 6, 4)).cumsum(axis=1)
                fields: dict[str, Any] = {
                    "score": values.astype(np.float16) * (step + 1),
                    "sequence": random.integers(0, 4, (size, 9)),
                    "word": random.choice(np.array(["a", "bcd"]), size),
                    "finite": values[:, 0, 0] > 0,
                    "empty": np.zeros((size, 0), np.float32),
                }
                if step % 4 == 0:
                    fields["attention"] = random.normal(size=(size, 2, 3, 3)).astype(np.float32)
                rec.record(step, samples=samples, t=step / STEPS, **fields)
                if start == 0:
                    rec.record(step, loss=np.full((), step, np.float32), total=np.arange(3) + step)


def given_by(run: RunView) -> dict[str, Any]:
    """Return everything a run gives: values, what is recorded of them, and digests."""
    said: dict[str, Any] = {"version": run.version, "steps": run.steps, "samples": run.samples}
    for field in run.fields():
        chosen: list[dict[str, Any]] = [{}]
        if field.spec.sampled:
            chosen += [{"sample": 3}, {"sample": slice(20, 4, -3)}]
        if field.spec.place.stepped:
            chosen += [{"step": slice(None, None, -8)}, {"step": (8, 60, 8)}]
        for number, one in enumerate(chosen):
            taken = field.select(one, missing="mask")
            values = (taken.digest, taken.array().tobytes(), taken.recorded().tobytes())
            said[f"{field.path}/{number}"] = (taken.shape, *values)
    return said


def read(store: Store, run_id: str = "r") -> dict[str, Any]:
    """Return what a reader who opens the store now is given of the run."""
    with Archive(store, refresh_s=0) as archive:
        return given_by(archive.run(run_id))


def folders(store: Store, run_id: str = "r") -> set[str]:
    """Return the hierarchies that lie in the run."""
    return {name for name in store.folders(f"runs/{run_id}") if name.endswith(".zarr")}


@settings(max_examples=100, deadline=None)
@given(st.data(), random_fields(), st.sampled_from([64, 1000, 1 << 20]))
def test_any_selection_of_any_field_is_as_before(
    data: st.DataObject, field: RandomField, shard_nbytes: int
) -> None:
    """However the field is cut, and however it is cut anew; zarr-python reads the same."""
    store = open_store(f"memory://compact-{next(_NUMBERS)}")
    run = Builder(store, steps=field.run_steps, samples=field.samples or None)
    run.declare(field.spec)
    path = field_path(*field.spec.address)
    for (step, tile), values in field.values.items():
        run.put(path, values, step, tile)
    seal_run(RunRecords(store, "run"))
    spec, chosen = field.spec, data.draw(selections(field))

    def select() -> tuple[Any, ...]:
        view = Archive(store).run("run").field("x", layer=spec.layer, place=spec.place)
        taken = view.select(chosen, missing="mask")
        return taken.shape, taken.digest, taken.array().tobytes(), taken.recorded().tobytes()

    before = select()
    result = compact_run(store, "run", shard_nbytes=shard_nbytes)

    assert select() == before
    wrong = [one for one in verify_run(store, "run").found if "heartbeats" not in one.key]
    assert wrong == []  # but that the builder has no heartbeat
    positions = [step_position(run.manifest, spec, step) or 0 for step in field.steps]
    packs = choose_cut(spec, positions) is not None
    assert result.packed == ((path,) if packs else ())
    if packs:
        now, then = (
            _seen_by_zarr(store, one, array_path(spec)) for one in (result.zarr, "trace.zarr")
        )
        assert now == then


def _seen_by_zarr(store: Store, folder: str, path: str) -> bytes:
    """Return the values of an array by zarr-python."""
    prefix = f"runs/run/{folder}/{path}/"
    keys = [one.key for one in store.objects(prefix.rstrip("/"))]
    buffer = default_buffer_prototype().buffer
    objects = {key.removeprefix(prefix): buffer.from_bytes(store.read(key)) for key in keys}
    return np.asarray(zarr.open_array(MemoryStore(objects), mode="r")[...]).tobytes()


def test_every_kind_of_field_is_as_before_on_every_store(store: Store) -> None:
    """Texts, ragged shapes, inputs and empty arrays are copied; all others are packed."""
    record(store)
    before = read(store)

    result = compact_run(store, "r", shard_nbytes=SHARD_NBYTES)

    assert read(store) == before
    assert (result.generation, result.known) == (1, False)
    packed = {f"trace/{n}" for n in ("score", "sequence", "finite", "attention", "loss", "total")}
    assert set(result.packed) == packed
    assert "trace/word" in result.copied
    assert "inputs/label" in result.copied
    report = verify_run(store, "r")
    assert report.found == ()
    records = RunRecords(store, "r")
    assert records.seal is not None
    assert report.tiles == records.seal.tiles
    assert max(table.columns.shard[-1] for table in records.shards.values()) > 0


def plates(store: Store) -> list[bytes]:
    """Return what a ragged field holds at each step."""
    with Archive(store) as archive:
        field = archive.run("r").field("plate")
        return [field.select({"step": step}).array().tobytes() for step in range(5)]


def test_a_ragged_run_is_carried_along(folder_store: Store) -> None:
    """Its shapes differ from step to step: nothing lies side by side."""
    with TraceRecorder(folder_store, "r") as rec:
        rec.declare("plate", ragged=True)
        for step in range(5):
            rec.record(step, plate=np.arange(step + 2.0))
    before = [
        bytes(Archive(folder_store).run("r").field("plate").select({"step": n}).array())
        for n in range(5)
    ]

    result = compact_run(folder_store, "r")
    sweep_compacted_run(folder_store, "r", grace_s=0)

    assert result.copied == ("trace/plate",)
    after = [
        bytes(Archive(folder_store).run("r").field("plate").select({"step": n}).array())
        for n in range(5)
    ]
    assert after == before


def test_other_zarr_readers_open_a_compacted_run(tmp_path: Path) -> None:
    """zarr-python and TensorStore read what they read before."""
    record(str(tmp_path))
    store = open_store(tmp_path)
    fields = {
        path: field.spec
        for path, field in RunRecords(store, "r").ledger.fields.items()
        if not is_text(field.spec.stored_dtype)
    }

    def values(zarr_folder: str, path: str) -> tuple[bytes, bytes]:
        place = tmp_path / "runs/r" / zarr_folder / path
        array = zarr.open_array(place, mode="r")
        other = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{place}/"}}
        ).result()
        return np.asarray(array[...]).tobytes(), other[...].read().result().tobytes()

    before = {path: values("trace.zarr", array_path(spec)) for path, spec in fields.items()}
    result = compact_run(store, "r", shard_nbytes=SHARD_NBYTES)

    for path, spec in fields.items():
        assert values(result.zarr, array_path(spec)) == before[path]
        assert len(set(before[path])) == 1
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = xarray.open_zarr(tmp_path / "runs/r" / result.zarr, group="trace")
        assert tree["score"].sel(step=3).shape == (SAMPLES, 6, 4)
        assert tree["t"].to_numpy()[7] == 7 / STEPS


def test_a_sample_through_all_steps_is_one_read_a_shard(folder_store: Store) -> None:
    """That is what compacting is for."""

    class Counting(LocalStore):
        ranges = 0

        def read_range(self, key: str, start: int, stop: int) -> bytes:
            type(self).ranges += 1
            return super().read_range(key, start, stop)

    with TraceRecorder(folder_store, "r", steps=200, samples=8) as rec:
        for step in range(200):
            rec.record(step, samples=slice(0, 8), x=np.full((8, 500), step, np.float32))
    assert compact_run(folder_store, "r").packed == ("trace/x",)
    field = Archive(Counting(Path(folder_store.url.removeprefix("file://")))).run("r").field("x")

    values = field.select({"sample": 5}).array()

    assert np.array_equal(values, np.repeat(np.arange(200.0), 500).reshape(200, 500))
    assert Counting.ranges == 1


def test_who_seals_may_compact(folder_store: Store) -> None:
    """Said once, where the run is recorded."""
    with TraceRecorder(folder_store, "r", steps=40, samples=4, compact_at_seal=True) as rec:
        for step in range(40):
            rec.record(step, samples=slice(0, 4), x=np.full((4, 9), step, np.int32))

    assert RunRecords(folder_store, "r").generation is not None
    with Archive(folder_store) as archive:
        values = archive.run("r").field("x").select({"sample": 2}).array()
    assert np.array_equal(values, np.arange(40).repeat(9).reshape(40, 9))


def test_what_is_not_sealed_is_refused(folder_store: Store) -> None:
    """Its writers may still record."""
    record(folder_store, seal=False)

    with pytest.raises(ConflictError) as caught:
        compact_run(folder_store, "r")

    assert caught.value.kind is ErrorKind.RUN_NOT_SEALED
    assert folders(folder_store) == {"trace.zarr"}


def test_compacting_again_changes_nothing(folder_store: Store) -> None:
    """Whoever calls it from a timer may call it always."""
    record(folder_store)
    first = compact_run(folder_store, "r", shard_nbytes=SHARD_NBYTES)
    objects = {one.key: one.nbytes for one in folder_store.objects("runs/r")}

    again = compact_run(folder_store, "r", shard_nbytes=SHARD_NBYTES)

    assert again.known
    assert again.zarr == first.zarr
    assert {one.key: one.nbytes for one in folder_store.objects("runs/r")} == objects


@pytest.mark.parametrize("damage", ["lost", "flipped"])
def test_a_run_that_is_not_whole_stays_as_it_is(folder_store: Store, damage: str) -> None:
    """Nothing is packed that is not what was committed; the error names the object."""
    record(folder_store)
    key = "runs/r/trace.zarr/trace/score/c.3.1.0.0"
    data = folder_store.read(key)
    folder_store.delete(key)
    if damage == "flipped":
        folder_store.create(key, data[:40] + bytes([data[40] ^ 1]) + data[41:])

    with pytest.raises(FormatError, match=key) as caught:
        compact_run(folder_store, "r")

    assert caught.value.kind in (ErrorKind.TILE_LOST, ErrorKind.TILE_DAMAGED)
    assert folders(folder_store) == {"trace.zarr"}
    assert RunRecords(folder_store, "r").generation is None


def test_of_two_at_once_one_wins(folder_store: Store) -> None:
    """And the other takes away what it wrote."""
    record(folder_store)
    before = read(folder_store)
    begin = threading.Barrier(2)

    def compact(_: int) -> bool:
        begin.wait()
        return compact_run(folder_store, "r", shard_nbytes=SHARD_NBYTES).known

    with ThreadPoolExecutor(2) as pool:
        known = sorted(pool.map(compact, range(2)))

    assert known[0] is False
    assert folders(folder_store) == {"trace.zarr", RunRecords(folder_store, "r").zarr}
    assert read(folder_store) == before
    assert verify_run(folder_store, "r").found == ()


class _Deadly(LocalStore):
    """Kills its process at the n-th object, or around that which makes the rest current."""

    moment: int | str = 0

    def create(self, key: str, data: bytes) -> None:
        """Create an object, or die before or after."""
        decides = "/generations/" in key
        if isinstance(self.moment, int):
            self.moment -= 1
        if self.moment == 0 or (decides and self.moment == "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().create(key, data)
        if decides and self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    """The run is as it was until the generation is there, and whole after."""
    record(str(tmp_path))
    store = open_store(tmp_path)
    before = read(store)
    for moment in (1, 2, 9, 30, 60, "before", "after"):
        child = os.fork()
        if not child:
            deadly = _Deadly(tmp_path)
            deadly.moment = moment
            try:
                compact_run(deadly, "r", shard_nbytes=SHARD_NBYTES)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        assert read(store) == before

    generation = RunRecords(store, "r").generation
    assert generation is not None
    assert len(folders(store)) > 2  # what the dead left
    assert verify_run(store, "r").found == ()
    repair_run(store, "r", sweep_orphans=True, grace_s=0)
    assert folders(store) == {"trace.zarr", generation.zarr}
    assert read(store) == before


class _Full(LocalStore):
    """Has no room for more than so many objects."""

    room = 0

    def create(self, key: str, data: bytes) -> None:
        """Create an object if there is room."""
        type(self).room -= 1
        if self.room < 0:
            raise StorageError(ErrorKind.STORE_FULL, "no space left")
        super().create(key, data)


def test_a_full_disk_costs_nothing(tmp_path: Path) -> None:
    """What was written is taken away again, and the error says what is wrong."""
    record(str(tmp_path))
    before = read(open_store(tmp_path))
    _Full.room = 40

    with pytest.raises(StorageError) as caught:
        compact_run(_Full(tmp_path), "r", shard_nbytes=SHARD_NBYTES)

    assert caught.value.kind is ErrorKind.STORE_FULL
    assert folders(open_store(tmp_path)) == {"trace.zarr"}
    assert read(open_store(tmp_path)) == before


def test_readers_of_the_old_generation_finish(folder_store: Store) -> None:
    """A slice that was planned before is read where the values are, also once those are swept."""
    record(folder_store)
    with Archive(folder_store, cache_bytes=0) as archive:
        field = archive.run("r").field("score")
        planned = field.select({"sample": slice(0, 9)})
        pieces = planned.pieces(max_bytes=2000)
        begun = [next(pieces).tobytes() for _ in range(3)]

        compact_run(folder_store, "r", shard_nbytes=SHARD_NBYTES)
        begun += [next(pieces).tobytes() for _ in range(3)]
        assert sweep_compacted_run(folder_store, "r", grace_s=3600) == ()
        sweep_compacted_run(folder_store, "r", grace_s=0)
        begun += [piece.tobytes() for piece in pieces]

        assert b"".join(begun) == planned.array().tobytes()


def test_what_lay_there_before_is_swept_once_the_grace_is_over(store: Store) -> None:
    """The old place says where the run lies now, and shows no fill values."""
    record(store)
    before = read(store)
    result = compact_run(store, "r", shard_nbytes=SHARD_NBYTES)

    repaired = repair_run(store, "r", sweep_orphans=True, grace_s=0)

    assert repaired.lost == ()
    left = [one.key for one in store.objects("runs/r/trace.zarr")]
    assert left == ["runs/r/trace.zarr/zarr.json"]
    attributes = orjson.loads(store.read(left[0]))["attributes"]["trace_archive"]
    assert attributes["moved"] == result.zarr
    assert read(store) == before
    assert verify_run(store, "r").found == ()


@pytest.mark.parametrize("damage", ["lost", "flipped", "generation"])
def test_verify_finds_what_is_wrong_with_a_compacted_run(folder_store: Store, damage: str) -> None:
    """A shard that is lost or damaged is named, and so is the record of where shards lie."""
    record(folder_store)
    result = compact_run(folder_store, "r", shard_nbytes=SHARD_NBYTES)
    key = f"runs/r/{result.zarr}/trace/score/c.0.1.0.0"
    if damage == "generation":
        key = "runs/r/generations/000001.json"
    data = folder_store.read(key)
    folder_store.delete(key)
    if damage != "lost":
        folder_store.create(key, data[:40] + bytes([data[40] ^ 1]) + data[41:])

    found = [(one.finding.value, one.key) for one in verify_run(folder_store, "r").found]

    finding = {"lost": "tile-lost", "flipped": "tile-damaged"}.get(damage, "generation-damaged")
    assert (finding, key) in found
    with Archive(folder_store) as archive, pytest.raises(FormatError):
        archive.run("r").field("score").select({"sample": 12, "step": slice(0, 20)}).array()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """Serve a folder."""
    with served(tmp_path.as_uri()) as url:
        yield url


def test_a_server_answers_the_same_before_and_after(tmp_path: Path, service: str) -> None:
    """Values, files, lengths and ETags; only the raw Zarr is another, and says so."""
    record(str(tmp_path))
    paths = (
        "",
        "/fields/score?samples=3&format=npy",
        "/fields/score?steps=::7&samples=0:9&format=raw",
        "/steps/12/sequence?samples=0:8",
        "/fields/attention?reduce=mean&over=sample&samples=0:9",
        ".h5",
        ".npz",
        "/steps?format=csv",
        "/inputs/label",
    )

    def answers(client: httpx.Client) -> dict[str, tuple[int, str | None, bytes]]:
        found = [(path, client.get(f"/runs/r{path}")) for path in paths]
        return {
            path: (one.status_code, one.headers.get("etag"), one.content) for path, one in found
        }

    with httpx.Client(base_url=service, timeout=60) as client:
        before = answers(client)
        assert {status for status, _, _ in before.values()} == {200}
        opened = zarr.open_array(f"{service}/runs/r/zarr/trace/score", mode="r")
        store = open_store(tmp_path)
        compact_run(store, "r", shard_nbytes=SHARD_NBYTES)
        sweep_compacted_run(store, "r", grace_s=0)
        after = answers(client)

        assert after == before
        tag = client.get("/runs/r/zarr/trace/score/c.0.0.0.0")
        assert tag.status_code == 200
        gone = client.get("/runs/r/zarr/trace/score/c.69.0.0.0")
        assert (gone.status_code, gone.json()["kind"]) == (409, "run-compacted")
        with pytest.raises(ValueError, match=r"\w"):  # its index no longer fits
            opened[...]
        again = zarr.open_array(f"{service}/runs/r/zarr/trace/score", mode="r")
        assert (
            np.asarray(again[:, 3]).tobytes()
            == Archive(store).run("r").field("score").select({"sample": 3}).array().tobytes()
        )


def test_the_command_compacts_and_sweeps(tmp_path: Path) -> None:
    """It says how much smaller the run is, for people and for programs."""
    record(str(tmp_path))
    command = application(["compact"])
    arguments = ["compact", "r", "--store", str(tmp_path)]

    first = CliRunner().invoke(command, arguments)
    second = CliRunner().invoke(command, [*arguments, "--sweep", "--grace", "0", "--json"])

    assert first.exit_code == 0, first.output
    assert "run r compacted" in first.output
    told = orjson.loads(second.stdout)
    assert told["known"] is True
    assert [one["key"] for one in told["removed"]] == ["runs/r/trace.zarr"]
    assert verify_run(open_store(tmp_path), "r").sound
