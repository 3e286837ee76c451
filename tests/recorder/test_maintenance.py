"""`verify` names every damage, and nothing else; `rm` leaves nothing."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from archive_schema.errors import ConflictError, ErrorKind, NotFoundError
from archive_schema.models import Codec
from archive_schema.records import run_ids
from archive_schema.store import open_store
from recorder import TraceRecorder
from recorder.maintenance import Finding, remove_run, verify_run
from tests.recorder.reading import objects

if TYPE_CHECKING:
    from archive_schema.store import Store

ZARR: Final = "runs/r/trace.zarr"
TILE: Final = f"{ZARR}/trace/x/c.1.1.0"


def record(store: Store) -> Store:
    """Seal a run of two tiles a step, with a layer, a ragged field and coordinates."""
    random = np.random.default_rng(3)
    with TraceRecorder(store, "r", steps=3, samples=5, tile=3) as rec:
        rec.declare("scores", dims=("plate",), ragged=True)
        for step in range(3):
            rec.record(step, scores=random.random(step), noise=step / 3)
            for at in (slice(0, 3), slice(3, 5)):
                values = random.normal(size=(at.stop - at.start, 400))
                rec.record(step, samples=at, x=values, note=np.arange(at.stop - at.start))
                rec.record(step, samples=at, layer="blocks.0", output=values.astype("float16"))
    return store


@pytest.fixture
def recorded(store: Store) -> Store:
    """Hold a sealed run, in a store of each kind."""
    return record(store)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Return every object of a sealed run."""
    return objects(record(open_store(f"memory://{uuid.uuid4().hex}")), "r")


@pytest.fixture
def copied(contents: dict[str, bytes]) -> Store:
    """Hold a copy of that run, where the kind of store does not matter."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for key, data in contents.items():
        store.write(f"runs/r/{key}", data)
    return store


def test_a_run_as_recorded_is_sound(recorded: Store) -> None:
    told: list[tuple[int, int]] = []

    report = verify_run(recorded, "r", lambda done, total: told.append((done, total)))

    assert report.sound
    assert report.found == ()
    # x, note and output have two tiles a step; scores has one, of nothing at step 0.
    assert report.tiles == 3 * (3 * 2 + 1)
    assert told[-1] == (report.tiles, report.tiles)


def test_every_flipped_byte_of_a_tile_is_found(copied: Store) -> None:
    """Also in the shard index, which our own reader never looks at, and others do."""
    sound = copied.read(TILE)
    places = {0, 1, 7, len(sound) // 2, *range(len(sound) - 40, len(sound))}

    for place in sorted(places):
        damaged = bytearray(sound)
        damaged[place] ^= 0x40
        copied.write(TILE, bytes(damaged))
        found = verify_run(copied, "r").found
        assert [(one.finding, one.key) for one in found] == [(Finding.TILE_DAMAGED, TILE)], place


def test_a_tile_in_the_place_of_another_is_found(recorded: Store) -> None:
    """Its own checksums all fit; only the checksum of its values tells."""
    key = "runs/{}/trace.zarr/trace/x/c.0.0.0"
    for name, value in (("twin", 0.0), ("other", 1.0)):
        with TraceRecorder(recorded, name, steps=1, samples=2) as rec:
            rec.declare("x", dims=("sample", "d"), codec=Codec(name="raw"))
            rec.record(0, x=np.full((2, 300), value))
    first, second = recorded.read(key.format("twin")), recorded.read(key.format("other"))
    assert len(first) == len(second)
    assert first != second

    recorded.write(key.format("twin"), second)

    found = verify_run(recorded, "twin").found
    assert [(one.finding, one.key) for one in found] == [(Finding.TILE_DAMAGED, key.format("twin"))]
    assert "other values" in found[0].detail


@pytest.mark.parametrize("length", [0, 1, 50, -1])
def test_a_truncated_tile_is_found(copied: Store, length: int) -> None:
    copied.write(TILE, copied.read(TILE)[:length])

    (found,) = verify_run(copied, "r").found

    assert (found.finding, found.key) == (Finding.TILE_DAMAGED, TILE)
    assert "bytes" in found.detail


@pytest.mark.parametrize(
    ("finding", "key"),
    [
        (Finding.TILE_LOST, TILE),
        (Finding.TILE_LOST, f"{ZARR}/ragged/trace/scores/2/scores/c.0"),
        (Finding.TILE_LOST, f"{ZARR}/layers/blocks.0/output/c.0.0.0"),
        (Finding.DOCUMENT_LOST, f"{ZARR}/trace/x/zarr.json"),
        (Finding.DOCUMENT_LOST, f"{ZARR}/trace/zarr.json"),
        (Finding.DOCUMENT_LOST, f"{ZARR}/zarr.json"),
        (Finding.COORDINATE_LOST, f"{ZARR}/trace/noise/c.0"),
        (Finding.COORDINATE_LOST, f"{ZARR}/trace/recorded/c.0.0"),
        (Finding.FIELD_LOST, "runs/r/fields/trace/x.json"),
        (Finding.MANIFEST_LOST, "runs/r/run.json"),
        (Finding.SEALING_LOST, "runs/r/sealing.json"),
        (Finding.CLAIM_LOST, "runs/r/commits/main/000000/claim.json"),
        (Finding.COMMIT_LOST, "runs/r/commits/main/000000/00000000.json"),
        (Finding.HEARTBEAT_LOST, "runs/r/heartbeats/main.json"),
    ],
)
def test_a_lost_object_is_named_and_nothing_else(copied: Store, finding: Finding, key: str) -> None:
    copied.delete(key)

    report = verify_run(copied, "r")

    assert [(one.finding, one.key) for one in report.found] == [(finding, key)]
    assert not report.sound


def test_an_object_that_no_commit_names_is_an_orphan_and_no_damage(copied: Store) -> None:
    orphan = f"{ZARR}/trace/x/c.9.0.0"
    copied.write(orphan, b"left by a dead writer")

    report = verify_run(copied, "r")

    assert [(one.finding, one.key) for one in report.found] == [(Finding.ORPHAN, orphan)]
    assert report.sound


def test_a_removed_run_leaves_nothing(recorded: Store) -> None:
    with TraceRecorder(recorded, "kept", steps=1) as rec:
        rec.record(0, x=np.zeros(3))

    assert remove_run(recorded, "r") > 10

    assert list(recorded.objects("runs/r")) == []
    assert verify_run(recorded, "kept").sound
    assert "kept" in run_ids(recorded)
    with pytest.raises(NotFoundError) as caught:
        remove_run(recorded, "r")
    assert caught.value.kind is ErrorKind.RUN_NOT_FOUND


def test_what_a_broken_removal_left_is_removed_by_another(recorded: Store) -> None:
    for key in ("runs/r/run.json", f"{ZARR}/zarr.json"):
        recorded.delete(key)
    (found, *_) = verify_run(recorded, "r").found
    assert (found.finding, found.repairable) == (Finding.MANIFEST_LOST, False)

    assert remove_run(recorded, "r") > 10
    assert list(recorded.objects("runs/r")) == []


def test_a_run_that_is_recorded_is_not_removed_unasked(store: Store) -> None:
    told: list[tuple[int, int]] = []
    with TraceRecorder(store, "r", steps=1, seal_at_exit=False) as rec:
        rec.record(0, x=np.zeros(3))
        rec.flush()

        with pytest.raises(ConflictError, match="recorded by main") as caught:
            remove_run(store, "r")

        assert caught.value.kind is ErrorKind.WRITER_ACTIVE
    count = remove_run(store, "r", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (count, count)
    assert list(store.objects("runs")) == []
