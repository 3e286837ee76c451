"""Importing again: the same file is nothing, another is refused, a broken import goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.records import RunRecords
from recorder.importers import import_file, importable_systems
from tests.importers.d3_files import evaluated, npz_bytes, sampled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archive_schema.store import Store


def stored(store: Store) -> dict[str, bytes]:
    return {found.key: store.read(found.key) for found in store.objects("runs")}


@pytest.mark.parametrize("name", ["sampling_visualization_data", "evaluation_visualization_data"])
def test_the_same_file_again_is_nothing(store: Store, real_files: Path, name: str) -> None:
    first = import_file("d3-dna", real_files / f"{name}.h5", store, "run")
    before = stored(store)

    again = import_file("d3-dna", real_files / f"{name}.h5", store, "run")

    assert (first.known, again.known) == (False, True)
    assert again.steps == first.steps == 32
    assert stored(store) == before


def change_value(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["steps/step_0002/prob_matrix"][1, 2, 3] += 1


def change_coordinate(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["steps/step_0002"].attrs["noise_level"] = 0.25


def change_metadata(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["metadata"].attrs["architecture"] = "convolutional"


def remove_step(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/step_0003"]


def remove_field(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/step_0003/oracle_mse"]


def add_field(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["steps/step_0003/more"] = np.arange(3)


def change_labels(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["metadata/dataset_indices"][0] = 1000


@pytest.mark.parametrize(
    "change",
    [
        change_value,
        change_coordinate,
        change_metadata,
        remove_step,
        remove_field,
        add_field,
        change_labels,
    ],
)
def test_another_content_is_refused_and_changes_nothing(
    store: Store, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = evaluated().write_hdf5(tmp_path / "file.h5")
    import_file("d3-dna", path, store, "run")
    before = stored(store)
    change(path)

    with pytest.raises(ConflictError) as caught:
        import_file("d3-dna", path, store, "run")

    assert caught.value.kind is ErrorKind.RUN_DIFFERS
    assert "is not this file" in str(caught.value)
    assert stored(store) == before


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_an_import_that_broke_off_goes_on(store: Store, tmp_path: Path, ending: str) -> None:
    """What was taken over stays, and the rest is added."""
    run = sampled(6, samples=4)
    path = tmp_path / f"file.{ending}"
    (run.write_hdf5 if ending == "h5" else run.write_npz)(path)

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file("d3-dna", path, store, "run", progress=interrupt)
    broken = RunRecords(store, "run")
    report = import_file("d3-dna", path, store, "run")

    assert broken.seal is None
    assert not report.known
    assert RunRecords(store, "run").seal is not None
    assert import_file("d3-dna", path, store, "run").known


def test_a_damaged_archive_is_found_out_before_anything_is_recorded(
    store: Store, tmp_path: Path
) -> None:
    """Its wrong values would stand in the way of the right ones."""
    whole = npz_bytes(sampled(6, samples=40).npz_members())
    path = tmp_path / "file.npz"
    at = whole.rindex(b"PK\x03\x04")  # the last member
    damaged = bytearray(whole)
    damaged[at + 2000 : at + 2100] = bytes(100)
    path.write_bytes(damaged)

    with pytest.raises(InvalidInputError) as caught:
        import_file("d3-dna", path, store, "run")

    assert caught.value.kind is ErrorKind.FILE_INVALID
    assert "prob_matrices" in str(caught.value)
    assert stored(store) == {}


def test_a_system_without_an_importer_is_named_with_those_that_have_one(
    store: Store, tmp_path: Path
) -> None:
    assert "d3-dna" in importable_systems()
    with pytest.raises(InvalidInputError, match="d3-dna") as caught:
        import_file("no-such-system", tmp_path, store, "run")

    assert caught.value.kind is ErrorKind.INVALID_PARAMETER
