"""A sealed run is whole for readers that know only Zarr, and sealing happens once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.errors import ConflictError, ErrorKind, StorageError
from archive_schema.models import RunStatus, Seal
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder
from recorder.maintenance import verify_run
from recorder.sealing import seal_run
from tests.recorder.reading import committed, objects, zarr_array, zarr_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from archive_schema.store import Store, StoredObject


def record(store: Store, **options: Any) -> None:
    """Record a run of 3 steps and 4 samples with holes, and leave it unsealed."""
    declared = {"steps": 3, "samples": 4, "seal_at_exit": False, **options}
    with TraceRecorder(store, "r", **declared) as rec:
        rec.record(0, samples=slice(0, 2), x=np.zeros((2, 5)), y=np.ones(2), t=0.5)
        rec.record(0, samples=slice(2, 4), x=np.zeros((2, 5)))
        rec.record(2, samples=slice(0, 2), x=np.zeros((2, 5)), y=np.ones(2))
        rec.record(1, layer="a", out=np.zeros((4, 2)))
        rec.sample_coordinates(samples=slice(1, 3), label=[7, 8])


def test_masks_tell_absent_from_zero(store: Store) -> None:
    """One for each group, and one for a field of another coverage."""
    record(store)
    seal_run(RunRecords(store, "r"))

    full, half = [True, True, True, True], [True, True, False, False]
    none = [False] * 4
    assert zarr_array(store, "r", "trace/recorded").tolist() == [full, none, half]
    assert zarr_array(store, "r", "trace/y_recorded").tolist() == [half, none, half]
    assert "trace/x_recorded" not in zarr_root(store, "r")
    assert zarr_array(store, "r", "layers/a/recorded").tolist() == [none, full, none]
    assert zarr_array(store, "r", "trace/x")[0].tolist() == np.zeros((4, 5)).tolist()
    assert np.isnan(zarr_array(store, "r", "trace/x")[1]).all()
    labels = zarr_array(store, "r", "trace/label")
    assert labels[1:3].tolist() == [7, 8]
    assert np.isnan(labels[[0, 3]]).all()


def test_a_seal_names_an_index_that_says_the_same(store: Store) -> None:
    record(store)
    before = committed(store, "r")
    live = RunRecords(store, "r")

    seal = seal_run(RunRecords(store, "r"))

    index = objects(store, "r")[seal.index]
    assert crc32c(index) == seal.index_crc32c
    assert (seal.samples, seal.tiles) == (4, len(before))
    sealed = RunRecords(store, "r")
    assert sealed.status() is RunStatus.SEALED
    assert sealed.ledger.index() == live.ledger.index()
    after = committed(store, "r")
    assert {key: value.tobytes() for key, value in after.items()} == {
        key: value.tobytes() for key, value in before.items()
    }


def test_sealing_again_changes_nothing(store: Store) -> None:
    record(store)
    first = seal_run(RunRecords(store, "r"))
    before = objects(store, "r")

    assert seal_run(RunRecords(store, "r")) == first
    assert objects(store, "r") == before


def test_of_two_who_seal_one_wins_and_both_know(store: Store) -> None:
    record(store)
    ready = threading.Barrier(4, timeout=60)
    seals: list[Seal] = []

    def seal() -> None:
        records = RunRecords(store, "r")
        ready.wait()
        seals.append(seal_run(records))

    threads = [threading.Thread(target=seal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seals) == 4
    assert len(set(map(Seal.model_dump_json, seals))) == 1
    assert seals[0] == RunRecords(store, "r").seal


class PowerCutError(Exception):
    """What ends a `StoreThatLosesPower`."""


class StoreThatLosesPower:
    """A real store that takes so many more changes, and none after."""

    def __init__(self, store: Store, changes: int) -> None:
        self.url = store.url
        self._store = store
        self._left = changes

    def _change(self) -> Store:
        if not self._left:
            raise PowerCutError
        self._left -= 1
        return self._store

    def read(self, key: str) -> bytes:
        """Do as the store does."""
        return self._store.read(key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Do as the store does."""
        return self._store.read_range(key, start, stop)

    def size(self, key: str) -> int:
        """Do as the store does."""
        return self._store.size(key)

    def write(self, key: str, data: bytes) -> None:
        """Do as the store does."""
        self._change().write(key, data)

    def create(self, key: str, data: bytes) -> None:
        """Do as the store does."""
        self._change().create(key, data)

    def delete(self, key: str) -> None:
        """Do as the store does."""
        self._change().delete(key)

    def folders(self, prefix: str) -> list[str]:
        """Do as the store does."""
        return self._store.folders(prefix)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Do as the store does."""
        return self._store.objects(prefix)

    def sync(self, keys: Iterable[str]) -> None:
        """Do as the store does."""
        self._store.sync(keys)


def test_a_sealing_that_is_cut_off_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    """After any number of its changes the run is not sealed, and whoever opens it seals it."""
    changes, cut = 0, True
    while cut:
        store = open_store(tmp_path / str(changes))
        record(store)
        try:
            seal_run(RunRecords(StoreThatLosesPower(store, changes), "r"))
            cut = False
        except PowerCutError:
            records = RunRecords(store, "r")
            assert records.seal is None
            if records.is_sealing():
                with pytest.raises(ConflictError, match="was sealed at"):
                    TraceRecorder(store, "r", steps=3, samples=4).__enter__()
            else:
                seal_run(records)
        opened = xr.open_datatree(
            tmp_path / str(changes) / "runs/r/trace.zarr", engine="zarr", consolidated=True
        )
        assert "y_recorded" in opened["trace"]
        assert opened["trace/recorded"].to_numpy().sum() == 6
        unlisted = xr.open_zarr(
            tmp_path / str(changes) / "runs/r/trace.zarr", group="trace", consolidated=False
        )
        assert unlisted.sizes == {"step": 3, "sample": 4, "dim_5": 5}
        assert verify_run(store, "r").sound
        changes += 1
    assert changes > 20


def test_a_run_without_declared_lengths_is_cut_to_what_was_recorded(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r") as rec:
        rec.record(100, x=np.ones((3, 2)))

    assert zarr_array(folder_store, "r", "trace/x").shape == (101, 3, 2)
    assert zarr_array(folder_store, "r", "trace/recorded").sum() == 3


def test_a_run_of_coordinates_alone_has_them(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", steps=2) as rec:
        rec.record(1, t=0.25)

    times = zarr_array(folder_store, "r", "trace/t")
    assert times[1] == 0.25
    assert np.isnan(times[0])


def test_an_empty_run_is_sealed_too(store: Store) -> None:
    with TraceRecorder(store, "r"):
        pass

    assert RunRecords(store, "r").status() is RunStatus.SEALED
    assert list(zarr_root(store, "r").groups()) == []


def test_leaving_the_block_may_leave_the_run_open(folder_store: Store) -> None:
    record(folder_store)

    records = RunRecords(folder_store, "r")
    assert records.seal is None
    assert records.status() is RunStatus.INCOMPLETE


def test_a_group_whose_arrays_have_no_samples_has_a_mask_of_steps(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", steps=3) as rec:
        rec.declare("loss", dims=())
        rec.record(1, loss=np.array(0.5))

    assert zarr_array(folder_store, "r", "trace/recorded").tolist() == [False, True, False]


def test_a_failed_seal_is_told(folder_store: Store) -> None:
    """Leaving the block raises it; the run can be sealed later."""

    class Full(StoreThatLosesPower):
        def write(self, key: str, data: bytes) -> None:
            if "/index-" in key:
                raise StorageError(ErrorKind.STORE_FULL, "no room")
            super().write(key, data)

    with pytest.raises(StorageError, match="no room"):
        with TraceRecorder(Full(folder_store, 10**6), "r", steps=1, samples=2) as rec:
            rec.record(0, x=np.zeros(2))

    assert RunRecords(folder_store, "r").seal is None
    assert seal_run(RunRecords(folder_store, "r")).tiles == 1
