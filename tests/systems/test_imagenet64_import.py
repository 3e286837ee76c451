"""ImageNet64's files: read once, recorded whole, and given back to the last byte."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from archive_schema.systems.imagenet import ClassOrder, class_book
from recorder.importers import import_file
from recorder.importers.imagenet64 import open_imagenet64
from server.exporters import MadeFile, export_tree
from server.query import Archive
from tests.systems.saved import savez, savez_compressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from archive_schema.store import Store
    from recorder.importers import ImportReport

REAL = Path(__file__).parents[1] / "data/imagenet64"
SIDE = 32
"""Of images that are made here: 4096 make up a tile."""
TILE = 4096


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def take(path: Path, store: Store, **how: Any) -> ImportReport:
    return import_file("imagenet64", path, store, "run", **how)


def arrays(rows: int, seed: int = 0, side: int = SIDE) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (rows, 3 * side * side), np.uint8)
    return {"data": data, "labels": rng.integers(1, 1001, rows), "mean": data.mean(axis=0)}


def batches(folder: Path, *sizes: int, save: Callable[..., None] = savez) -> Path:
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate(sizes, 1):
        save(folder / f"train_data_batch_{number}.npz", **arrays(rows, number))
    return folder


def given_back(store: Store) -> dict[str, bytes]:
    with Archive(store) as archive:
        tree = export_tree(archive.run("run"))
        return {file.path: b"".join(MadeFile(file).parts()) for file in tree.files}


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


def test_a_real_file_is_recorded_and_comes_back_to_the_last_byte(store: Store) -> None:
    report = take(REAL / "train_data_batch_1.npz", store)

    assert (report.samples, report.files, report.sealed, report.odd) == (64, 1, True, ())
    assert given_back(store) == files_in(REAL)
    with np.load(REAL / "train_data_batch_1.npz") as file, Archive(store) as archive:
        run = archive.run("run")
        image, label, mean = (run.field(n, place=Place.INPUTS) for n in ("image", "label", "mean"))
        coordinates = run.ledger.sample_coordinates
        names = [coordinates["class"].values[sample] for sample in range(64)]
        ids = coordinates["class_id"].array(range(64)).tolist()
        two = image.select({"sample": (57, 3)})
        assert image.dims == ("sample", "channel", "row", "column")
        np.testing.assert_array_equal(two.array().reshape(2, -1), file["data"][[57, 3]])
        np.testing.assert_array_equal(label.select({}).array(), file["labels"])
        np.testing.assert_array_equal(mean.select({}).array().reshape(-1), file["mean"])
        # A few images are a few blocks of two, whatever lies between them.
        assert two.read_nbytes <= 2 * 2 * 12288 + 64
    # As upstream turned the label of this file's first image, 174, into a class.
    assert (names[0], ids[0]) == ("tabby", 281)
    standard = class_book(ClassOrder.STANDARD)
    assert names == [standard.names[one] for one in ids]


def test_files_that_end_within_a_tile_are_one_run(store: Store, tmp_path: Path) -> None:
    folder = batches(tmp_path / "train", 3000, 100, 1500, save=savez_compressed)

    report = take(folder, store)

    assert (report.samples, report.files) == (4600, 3)
    assert given_back(store) == files_in(folder)
    ledger = RunRecords(store, "run").ledger.fields["inputs/image"]
    assert (ledger.spec.tile, ledger.count) == (TILE, 2)


def test_dtypes_order_and_what_a_file_lacks_come_back(store: Store, tmp_path: Path) -> None:
    """Small images here, as sets of 16 and of 8 pixels are."""
    one, two, three = (arrays(5, seed, side=8) for seed in range(3))
    savez(
        tmp_path / "train_data_batch_2.npz",
        labels=one["labels"].astype(np.int32),
        data=one["data"],
    )
    savez(tmp_path / "train_data_batch_10.npz", **two | {"mean": two["mean"].astype("f4")})
    savez_compressed(tmp_path / "train_data_batch_11.npz", **three)
    (tmp_path / "README").write_text("")

    report = take(tmp_path, store)

    assert given_back(store) == files_in(tmp_path)
    assert report.missing[0] == "train_data_batch_1.npz is not there"
    assert report.missing[-1] == "train_data_batch_2.npz has no mean"
    assert report.odd == ("README is no training batch: left out",)
    with Archive(store) as archive:
        labels = archive.run("run").field("label", place=Place.INPUTS).select({}).array()
    known = np.concatenate([part["labels"] for part in (one, two, three)])
    np.testing.assert_array_equal(labels, known)


def test_the_same_files_again_are_nothing_and_others_are_refused(
    store: Store, tmp_path: Path
) -> None:
    folder = batches(tmp_path / "train", 10, 10)
    take(folder, store)

    assert take(folder, store).known
    batches(folder, 10, 9)
    with pytest.raises(ConflictError) as caught:
        take(folder, store)
    assert caught.value.kind is ErrorKind.RUN_DIFFERS


_KILLED = """
import os, signal, sys
from archive_schema.store import open_store
from recorder.importers import import_file

def kill(done, total):
    if done > 4096:
        os.kill(os.getpid(), signal.SIGKILL)

import_file("imagenet64", sys.argv[1], open_store(sys.argv[2]), "run", progress=kill)
"""


def test_an_import_that_was_killed_goes_on_with_the_file_it_was_in(
    folder_store: Store, tmp_path: Path
) -> None:
    """A file whose labels are recorded is not read again, which shows as it is damaged now."""
    folder = batches(tmp_path / "train", TILE, 6000)
    whole = files_in(folder)
    url = folder_store.url
    killed = subprocess.run([sys.executable, "-c", _KILLED, folder, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    # It may have died before the first commit; one that is interrupted commits what it accepted.
    with pytest.raises(KeyboardInterrupt):
        take(folder, folder_store, progress=_interrupt_after(TILE))
    known = RunRecords(folder_store, "run")
    assert known.seal is None
    assert known.ledger.fields["inputs/label"].samples == TILE
    _damage(folder / "train_data_batch_1.npz", at=7)

    report = take(folder, folder_store)

    assert (report.known, report.sealed) == (False, True)
    assert given_back(folder_store) == whole
    for path, data in whole.items():
        (folder / path).write_bytes(data)
    assert take(folder, folder_store).known


def _interrupt_after(rows: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        del total
        if done > rows:
            raise KeyboardInterrupt

    return progress


def _damage(path: Path, at: int) -> None:
    """Change a byte of the image *at* of a file that is not compressed."""
    data = bytearray(path.read_bytes())
    data[1000 + at * 3 * SIDE * SIDE] ^= 1
    path.write_bytes(data)


def test_a_damaged_file_leaves_images_without_labels_and_no_sealed_run(
    store: Store, tmp_path: Path
) -> None:
    """Its checksum lies at its end, when its first images are recorded already."""
    folder = batches(tmp_path / "train", 100, 5000)
    _damage(folder / "train_data_batch_2.npz", at=7)

    with pytest.raises(InvalidInputError, match=r"train_data_batch_2\.npz.*data.*CRC") as caught:
        take(folder, store)

    records = RunRecords(store, "run")
    assert caught.value.kind is ErrorKind.FILE_INVALID
    assert records.seal is None
    assert "inputs/label" not in records.ledger.fields
    assert given_back(store) == {}


def test_images_are_counted_without_reading_them(tmp_path: Path) -> None:
    """Upstream inflates 1.6 GB for each file to know how many images it has."""
    folder = batches(tmp_path / "train", 300, save=savez_compressed)
    path = folder / "train_data_batch_1.npz"
    data = bytearray(path.read_bytes())
    data[10_000:200_000] = bytes(190_000)
    path.write_bytes(data)

    with open_imagenet64(str(folder)) as source:
        assert source.samples == 300


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data": np.zeros((4, 12), np.float32)}, "expected data of uint8"),
        ({"data": np.zeros((4, 13), np.uint8)}, "expected data of uint8"),
        ({"data": np.zeros((0, 12), np.uint8)}, "expected data of uint8"),
        ({"data": np.zeros(12, np.uint8)}, "expected data of uint8"),
        ({"data": np.zeros((12, 4), np.uint8).T}, "Fortran order"),
        ({"labels": np.zeros(3, np.int64)}, r"expected labels of integers, shape \(4,\)"),
        ({"labels": np.zeros(4)}, "expected labels of integers"),
        ({"mean": np.zeros(11)}, r"expected mean of floats, shape \(12,\)"),
        ({"labels": np.array([1, 2, 3, None])}, "never unpickled"),
    ],
)
def test_what_is_no_batch_is_refused_by_name(
    store: Store, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "train_data_batch_1.npz"
    np.savez(path, **arrays(4, side=2) | change)

    with pytest.raises(InvalidInputError, match=expected) as caught:
        take(path, store)

    assert caught.value.kind is ErrorKind.FILE_INVALID
    assert not list(store.objects("runs"))


def test_a_set_that_fits_not_together_or_is_none_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="found none of them"):
        take(tmp_path, store)
    savez(tmp_path / "train_data_batch_1.npz", **arrays(4, side=2))
    savez(tmp_path / "train_data_batch_2.npz", **arrays(4, side=4))
    with pytest.raises(InvalidInputError, match="expected images of side 2"):
        take(tmp_path, store)
    (tmp_path / "train_data_batch_1.npz").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(InvalidInputError, match="expected an NPZ file"):
        take(tmp_path, store)
    savez(tmp_path / "other.npz", data=np.zeros((4, 12), np.uint8))
    with pytest.raises(InvalidInputError, match="expected the arrays data and labels"):
        take(tmp_path / "other.npz", store)


def test_labels_that_are_none_of_the_set_are_kept_and_said(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "val_data.npz"
    savez(path, **arrays(4, side=2) | {"labels": np.array([0, 1, 2, 3]), "more": np.zeros(3)})

    report = take(path, store)

    assert report.odd == (
        "labels are from 0 to 3, not from 1 to 1000: no image is given a class",
        "val_data.npz: more is left out",
    )
    assert not RunRecords(store, "run").ledger.sample_coordinates
