"""`repair` rebuilds what can be rebuilt, gives up nothing that was readable, and sweeps no more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_schema.documents import read_document
from archive_schema.errors import ArchiveError, ConflictError, ErrorKind, FormatError, NotFoundError
from archive_schema.layout import claim_key, commit_key, heartbeat_key
from archive_schema.models import Claim, Codec, Commit, Sealing
from archive_schema.records import RunRecords, begin_sealing, put_commit
from archive_schema.store import open_store
from recorder import TraceRecorder
from recorder.maintenance import Finding, Repair, repair_run, verify_run
from recorder.repair_lock import RepairLock
from server.query import Archive
from tests.recorder.reading import committed, objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive_schema.store import Store

RUN: Final = "runs/r"
ZARR: Final = f"{RUN}/trace.zarr"
TILE: Final = f"{ZARR}/trace/x/c.1.1.0"
COMMIT: Final = commit_key("r", "main", 0, 1)
KILLED: Final = Path(__file__).parent / "killed_sampler.py"


def values(step: int, samples: slice) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(step * 100 + samples.start)
    return random.normal(size=(samples.stop - samples.start, 40))


def record(
    store: Store, *, seal: bool, parts: tuple[slice, ...] = (slice(0, 3), slice(3, 5)), **more: Any
) -> None:
    """Record a run of two tiles a step, each step in commits of its own."""
    with TraceRecorder(
        store, "r", steps=3, samples=5, tile=3, seal_at_exit=seal, commit_interval_s=0.0, **more
    ) as rec:
        rec.declare("scores", dims=("plate",), ragged=True)
        for step in range(3):
            rec.record(step, scores=np.arange(float(step)), noise=step / 3)
            rec.flush()
            for at in parts:
                rec.record(step, samples=at, x=values(step, at))
                rec.record(step, samples=at, layer="b.0", out=values(step, at).astype("float16"))
            rec.flush()


def seen(store: Store) -> dict[tuple[object, ...], bytes | ErrorKind]:
    """Return what a reader gets of every sample of every tile: values, or the kind of an error."""
    found: dict[tuple[object, ...], bytes | ErrorKind] = {}
    with Archive(store) as archive:
        try:
            run = archive.run("r")
        except ArchiveError as error:
            return {(): error.kind}
        for field in run.fields():
            for step in range(3):
                for sample in range(5) if field.spec.tile else (None,):
                    chosen = {"step": step} | ({} if sample is None else {"sample": sample})
                    try:
                        part = field.select(chosen).array().tobytes()
                    except ArchiveError as error:
                        found[field.path, step, sample] = error.kind
                    else:
                        found[field.path, step, sample] = part
    return found


def findings(store: Store) -> list[tuple[Finding, str]]:
    return [(one.finding, one.key) for one in verify_run(store, "r").found]


def copied(contents: dict[str, bytes]) -> Store:
    """Return a store of its own with a copy of a run."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for key, data in contents.items():
        store.write(f"{RUN}/{key}", data)
    return store


def damage(store: Store, key: str, how: str) -> None:
    sound = store.read(key)
    if how == "lose":
        store.delete(key)
    elif how == "cut":
        store.write(key, sound[: len(sound) // 2])
    elif how == "lengthen":
        store.write(key, sound + b"more")
    else:
        flipped = bytearray(sound)
        flipped[len(sound) // 3] ^= 0x81
        store.write(key, bytes(flipped))


DOCUMENTS: Final = {
    "manifest": f"{RUN}/run.json",
    "field": f"{RUN}/fields/trace/x.json",
    "claim": claim_key("r", "main", 0),
    "commit": COMMIT,
    "heartbeat": heartbeat_key("r", "main"),
    "sealing": f"{RUN}/sealing.json",
    "index": f"{RUN}/index-",
    "seal": f"{RUN}/seal.json",
    "document": f"{ZARR}/trace/x/zarr.json",
    "coordinate": f"{ZARR}/trace/step/c.0",
}
UNSEALED: Final = [name for name in DOCUMENTS if name not in ("sealing", "index", "seal")]


@pytest.mark.parametrize(("kind", "how"), [("file", "lose"), ("file", "flip"), ("s3", "flip")])
def test_every_document_of_a_run_is_rebuilt(
    kind: str, how: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each is repeated somewhere: no single loss makes a run unreadable for good."""
    for seal in (False, True):
        if kind == "s3" and not seal:
            continue  # the same documents, and three more, are in a run that is sealed
        url = tmp_path / f"{seal}" if kind == "file" else request.getfixturevalue("s3").fresh_url()
        store = open_store(url)
        record(store, seal=seal)
        sound = seen(store)
        for name, start in DOCUMENTS.items() if seal else ((n, DOCUMENTS[n]) for n in UNSEALED):
            if name == "seal" and how == "lose":
                continue  # told apart from a sealing that was cut off by nothing
            key = next(o.key for o in store.objects(RUN) if o.key.startswith(start))
            damage(store, key, how)
            word = "lost" if how == "lose" else "damaged"
            assert findings(store) == [(Finding(f"{name}-{word}"), key)]
            assert [action.key for action in repair_run(store, "r").done] == [key]

        assert verify_run(store, "r").found == ()
        assert seen(store) == sound


@pytest.mark.parametrize("sealed", [False, True], ids=["recording", "sealed"])
@pytest.mark.parametrize("how", ["lose", "flip"])
def test_a_damaged_tile_is_named_and_read_as_what_it_is(
    store: Store, how: str, *, sealed: bool
) -> None:
    """Never as zeros; and whatever is still readable of it stays so."""
    check_damaged_tile(store, how, sealed=sealed)


@pytest.mark.parametrize("sealed", [False, True], ids=["recording", "sealed"])
@pytest.mark.parametrize("how", ["cut", "lengthen"])
def test_so_is_one_of_another_length(folder_store: Store, how: str, *, sealed: bool) -> None:
    check_damaged_tile(folder_store, how, sealed=sealed)


def check_damaged_tile(store: Store, how: str, *, sealed: bool) -> None:
    record(store, seal=sealed)
    sound = seen(store)
    damage(store, TILE, how)
    kind = {"lose": ErrorKind.TILE_LOST}.get(how, ErrorKind.TILE_DAMAGED)
    before = seen(store)

    assert findings(store) == [(Finding(kind.value), TILE)]
    repaired = repair_run(store, "r")

    after = seen(store)
    for tile, given_back in before.items():
        assert given_back in (sound[tile], kind)
        assert after[tile] == given_back or after[tile] == sound[tile]
    if how == "lengthen":
        assert after == sound
        assert [action.key for action in repaired.done] == [TILE]
    else:
        assert [(found.finding, found.key) for found in repaired.lost] == [
            (Finding(kind.value), TILE)
        ]


def test_a_tile_that_is_lost_can_be_recorded_again(store: Store) -> None:
    """It is withdrawn, because whoever wants the run complete has to say so."""
    record(store, seal=False)
    sound = seen(store)
    damage(store, TILE, "flip")
    with Archive(store, refresh_s=0) as archive:
        field = archive.run("r").field("x")
        with pytest.raises(FormatError):
            field.select({"step": 1, "sample": 4}).array()

        repaired = repair_run(store, "r", withdraw=True)

        assert (repaired.lost, [action.key for action in repaired.done]) == ((), [TILE])
        assert verify_run(store, "r").sound
        with pytest.raises(NotFoundError) as caught:
            archive.run("r").field("x").select({"step": 1, "sample": 4})
        assert caught.value.kind is ErrorKind.NOT_RECORDED
        with TraceRecorder(store, "r", steps=3, samples=5, tile=3, seal_at_exit=False) as rec:
            assert not rec.recorded().has(1, slice(3, 5))
            rec.record(1, samples=slice(3, 5), x=values(1, slice(3, 5)))
        assert archive.run("r").field("x").select({"step": 1, "sample": 4}).array() is not None
    assert seen(store) == sound
    with TraceRecorder(store, "r", steps=3, samples=5, tile=3) as rec:
        assert rec.recorded().has(1)
    assert verify_run(store, "r").sound
    assert seen(store) == sound


def test_what_is_withdrawn_from_a_live_recorder_is_not_sealed(folder_store: Store) -> None:
    """It learns of it when it seals, at the latest; and so does who records the tile again."""
    with TraceRecorder(folder_store, "r", steps=2, samples=1, seal_at_exit=False) as rec:
        rec.record(0, x=np.zeros((1, 9)))
        rec.record(1, x=np.ones((1, 9)))
        rec.flush()
        folder_store.delete(f"{ZARR}/trace/x/c.1.0.0")
        repair_run(folder_store, "r", withdraw=True)
        seal = rec.seal()

    assert seal.tiles == 1
    assert verify_run(folder_store, "r").found == ()


def test_tiles_in_each_others_places_are_put_back(folder_store: Store) -> None:
    """All their checksums fit; only the checksums of their values tell."""
    with TraceRecorder(folder_store, "r", steps=1, samples=4, tile=2) as rec:
        rec.declare("x", dims=("sample", "d"), codec=Codec(name="raw"))
        rec.record(0, x=np.arange(400.0).reshape(4, 100))
    sound = objects(folder_store, "r")
    one, other = f"{ZARR}/trace/x/c.0.0.0", f"{ZARR}/trace/x/c.0.1.0"
    first, second = folder_store.read(one), folder_store.read(other)
    folder_store.write(one, second)
    folder_store.write(other, first)

    assert findings(folder_store) == [(Finding.TILE_DAMAGED, one), (Finding.TILE_DAMAGED, other)]
    assert not repair_run(folder_store, "r").lost
    assert objects(folder_store, "r") == sound


def test_nothing_is_changed_by_a_rehearsal(folder_store: Store) -> None:
    record(folder_store, seal=False)
    for name in UNSEALED:
        damage(folder_store, DOCUMENTS[name], "flip")
    damage(folder_store, TILE, "lose")
    before = objects(folder_store, "r")

    told = repair_run(folder_store, "r", dry_run=True, withdraw=True, sweep_orphans=True, grace_s=0)
    assert objects(folder_store, "r") == before

    done = repair_run(folder_store, "r", withdraw=True)
    assert [action.key for action in told.done] == [action.key for action in done.done]


def test_of_lost_commits_their_tiles_are_found_again(folder_store: Store) -> None:
    """Every object says what its commit said; of the coordinates, the loss is told."""
    record(folder_store, seal=False)
    sound = seen(folder_store)
    numbers = RunRecords(folder_store, "r").marks["main", 0]
    for number in range(1, numbers - 1):
        damage(folder_store, commit_key("r", "main", 0, number), "lose" if number % 2 else "cut")

    repaired = repair_run(folder_store, "r")

    assert len(repaired.done) == numbers - 2
    assert seen(folder_store) == sound
    assert ["coordinate 'noise' of step" in found.detail for found in repaired.lost] == [True]
    assert verify_run(folder_store, "r").found == ()


def test_no_epoch_is_ended_before_what_it_committed(folder_store: Store) -> None:
    """An end in the place of a lost commit would hide every later one, and a seal all of them."""
    record(folder_store, seal=False)
    sound = seen(folder_store)
    folder_store.delete(COMMIT)

    with pytest.raises(FormatError, match="trace-archive repair"):
        TraceRecorder(folder_store, "r", steps=3, samples=5, tile=3).__enter__()

    # As a recorder of another make might do it all the same:
    end = Commit(
        writer="main", epoch=0, sequence=1, time=read_document(
            folder_store, claim_key("r", "main", 0), Claim).time, end="replaced", reason="early",
    )  # fmt: skip
    put_commit(folder_store, "r", end)
    assert (Finding.COMMIT_DAMAGED, COMMIT) in findings(folder_store)
    repair_run(folder_store, "r")
    assert seen(folder_store) == sound


def test_a_sealing_that_was_cut_off_is_finished(store: Store) -> None:
    record(store, seal=False)
    sound = seen(store)
    begin_sealing(store, "r", Sealing(time=RunRecords(store, "r").manifest.created))
    assert findings(store) == [(Finding.SEALING_UNFINISHED, f"{RUN}/sealing.json")]
    assert verify_run(store, "r").sound

    repaired = repair_run(store, "r")

    assert [action.finding for action in repaired.done] == [Finding.SEALING_UNFINISHED]
    assert RunRecords(store, "r").seal is not None
    assert verify_run(store, "r").found == ()
    assert seen(store) == sound


def test_of_two_who_repair_one_does(folder_store: Store) -> None:
    record(folder_store, seal=False)
    with RepairLock(folder_store, "r"):
        with pytest.raises(ConflictError) as caught:
            repair_run(folder_store, "r")
    assert caught.value.kind is ErrorKind.WRITER_ACTIVE
    assert repair_run(folder_store, "r").done == ()
    assert verify_run(folder_store, "r").found == ()


def test_the_lock_of_a_dead_repairer_is_taken_over(folder_store: Store, tmp_path: Path) -> None:
    record(folder_store, seal=False)
    RepairLock(folder_store, "r").__enter__()
    (lock,) = (tmp_path / "store" / RUN / "maintenance").iterdir()
    os.utime(lock, (0, 0))

    repair_run(folder_store, "r")

    assert not lock.parent.exists()


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_what_a_killed_recorder_left_is_swept(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """And nothing else: not what it committed, and nothing while it may still commit."""
    url = str(tmp_path / "store") if kind == "file" else request.getfixturevalue("s3").fresh_url()
    store = open_store(url)
    _record_until_killed(url)
    known = committed(store, "r")
    left = [f"{ZARR}/trace/x/c.59.2.0", f"{ZARR}/trace/tokens/c.58.2.0", f"{RUN}/displaced/a/b"]
    left[2] = f"{RUN}/displaced/main/000000/trace/x/c.57.2.0"
    for key in left:
        store.write(key, b"put and never committed")
    if kind == "file":
        partial = tmp_path / "store" / ZARR / "trace/x/.partial-0123"
        partial.write_bytes(b"half")

    # It may only sleep.
    assert repair_run(store, "r", sweep_orphans=True, grace_s=0).done == ()
    repaired = repair_run(store, "r", sweep_orphans=True, fence=True, grace_s=0)

    gone = [action.key for action in repaired.done if action.finding is Finding.ORPHAN]
    assert {*left} <= {*gone}
    assert Finding.WRITER_LOST in {action.finding for action in repaired.done}
    assert verify_run(store, "r").found == ()
    assert committed(store, "r").keys() == known.keys()
    if kind == "file":
        assert not partial.exists()


def test_a_displaced_tile_serves_until_it_is_swept(folder_store: Store) -> None:
    """Sealing brings it home; what is left aside is a spare copy, and then an orphan."""
    home = f"{ZARR}/trace/x/c.1.0.0"
    aside = f"{RUN}/displaced/main/000001/trace/x/c.1.0.0"
    for step in range(2):
        with TraceRecorder(folder_store, "r", steps=2, samples=1, seal_at_exit=False) as rec:
            rec.record(step, x=np.full((1, 8), float(step)))
        if not step:
            folder_store.write(home, b"left by a dead writer")
    assert findings(folder_store) == [(Finding.TILE_ASIDE, aside), (Finding.ORPHAN, home)]

    repair_run(folder_store, "r", sweep_orphans=True, grace_s=0)
    assert findings(folder_store) == [(Finding.TILE_ASIDE, aside)]

    with TraceRecorder(folder_store, "r", steps=2, samples=1) as rec:
        rec.seal()
    assert findings(folder_store) == [(Finding.ORPHAN, aside)]
    folder_store.write(home, b"damaged")
    repaired = repair_run(folder_store, "r", sweep_orphans=True)
    assert [action.key for action in repaired.done] == [home, aside]
    assert verify_run(folder_store, "r").found == ()


def test_nothing_young_is_swept(folder_store: Store) -> None:
    record(folder_store, seal=False)
    folder_store.write(f"{ZARR}/trace/x/c.9.9.0", b"young")

    assert repair_run(folder_store, "r", sweep_orphans=True, grace_s=60).done == ()
    assert findings(folder_store) == [(Finding.ORPHAN, f"{ZARR}/trace/x/c.9.9.0")]


def test_a_live_writer_loses_nothing_to_a_sweep(store: Store) -> None:
    """However often it is swept, beside the leftovers of the writer's life before."""
    first = np.zeros((1, 8))
    with pytest.raises(ZeroDivisionError), TraceRecorder(store, "r", steps=400, samples=1) as rec:
        rec.record(0, x=first)
        rec.flush()
        raise ZeroDivisionError
    shape = store.read(f"{ZARR}/trace/x/c.0.0.0")
    for step in range(1, 60, 3):
        # What the sampler will give again: equal bytes, and other ones.
        store.write(f"{ZARR}/trace/x/c.{step}.0.0", shape if step % 2 else b"other bytes")
    swept: list[Repair] = []
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            swept.append(repair_run(store, "r", sweep_orphans=True, grace_s=0))

    with TraceRecorder(
        store, "r", steps=400, samples=1, commit_interval_s=0.0, seal_at_exit=False
    ) as rec:
        thread = threading.Thread(target=sweep)
        thread.start()
        for step in range(60):
            rec.record(step, x=first)
            rec.flush()
        stop.set()
        thread.join()

    report = verify_run(store, "r")
    assert report.sound
    assert report.tiles == 60
    assert swept
    with TraceRecorder(store, "r", steps=400, samples=1) as rec:
        rec.seal()
    repair_run(store, "r", sweep_orphans=True, grace_s=0)
    assert verify_run(store, "r").found == ()
    with Archive(store) as archive:
        read = archive.run("r").field("x").select({"step": slice(0, 60)}).array()
    assert np.array_equal(read, np.zeros((60, 1, 8)))


def _record_until_killed(url: str) -> None:
    sampler = subprocess.Popen(
        [sys.executable, str(KILLED), url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert sampler.stdin is not None
    assert sampler.stdout is not None
    with sampler:
        for _ in range(6):
            sampler.stdout.readline()
            sampler.stdin.write("\n")
            sampler.stdin.flush()
        sampler.send_signal(signal.SIGKILL)


class Contents(dict[str, bytes]):
    """The objects of a run, by key below the run."""

    def __repr__(self) -> str:
        return f"{len(self)} objects"


@pytest.fixture(scope="module")
def runs() -> list[Contents]:
    """Return the objects of a run that is not sealed, and of one that is."""
    contents = []
    for seal in (False, True):
        store = open_store(f"memory://{uuid.uuid4().hex}")
        record(store, seal=seal)
        contents.append(Contents(objects(store, "r")))
    return contents


class Damage(NamedTuple):
    """What is done to one object of a run.

    The places are shares of what there is, so that no draw depends on what a run came to be.
    """

    which: float
    how: str
    at: float

    def do(self, store: Store) -> None:
        """Damage one object of the run."""
        keys = sorted(objects(store, "r"))
        key = f"{RUN}/{chosen(keys, self.which)}"
        sound = store.read(key)
        at = int(self.at * len(sound))
        if self.how == "lose":
            store.delete(key)
        elif self.how == "cut":
            store.write(key, sound[:at])
        elif self.how == "flip" and sound:
            store.write(key, sound[:at] + bytes([sound[at] ^ 0x80]) + sound[at + 1 :])
        elif self.how == "replace":
            store.write(key, store.read(f"{RUN}/{chosen(keys, self.at)}"))
        else:
            store.write(key, sound + b"x")


def chosen(among: Sequence[str], share: float) -> str:
    return among[int(share * len(among))]


SHARES: Final = st.floats(0, 1, exclude_max=True)
DAMAGES: Final = st.builds(
    Damage, SHARES, st.sampled_from(["lose", "cut", "flip", "replace", "lengthen"]), SHARES
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(which=st.integers(0, 1), damages=st.lists(DAMAGES, min_size=1, max_size=2))
def test_any_damage_is_found_and_no_repair_makes_it_worse(
    runs: list[Contents], which: int, damages: list[Damage]
) -> None:
    """Everything that was readable stays equal, and is found damaged by no later check."""
    contents = runs[which]
    store = copied(contents)
    sound = seen(store)
    for damage in damages:
        damage.do(store)
    damaged = objects(store, "r")
    changed = {key for key, value in contents.items() if damaged.get(key) != value}
    before = seen(store)

    with contextlib.suppress(FormatError):  # a damaged number of the format's version
        report = verify_run(store, "r")
        repaired = repair_run(store, "r")
        after = seen(store)

        assert report.found or not changed or before == sound
        assert report.sound or report.found
        for tile, given_back in before.items():
            if isinstance(given_back, bytes) and given_back == sound.get(tile):
                assert after[tile] == given_back
        if not repaired.lost:
            assert verify_run(store, "r").sound
            # What a commit told is in one other place: lost there too, nobody knows that it was.
            if len(changed) == 1 or not any(key.startswith("commits/") for key in changed):
                assert after == sound
