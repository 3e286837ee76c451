"""BATCHIE's trees: what goes in comes out, equal in everything that its loaders could see."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import h5py
import numpy as np
import pytest

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder.importers import import_file
from server.exporters import MadeFile, export_tree, zip_parts
from server.output import write_tree
from server.query import Archive
from tests.importers.batchie_files import (
    SCREEN,
    encoded,
    gzipped,
    plate_folder,
    write_distances,
    write_metadata,
    write_plate,
    write_scores,
    write_screen,
    write_thetas,
)
from tests.importers.strict import hdf5_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archive_schema.store import Store
    from recorder.importers import ImportReport
    from server.query import RunView
    from tests.s3_server import S3Server

REAL = Path(__file__).parents[1] / "data/batchie/retrospective_sim"


def tree_of(root: Path) -> dict[str, Any]:
    """Return every file below *root*: an HDF5 file's whole content, the bytes of any other."""
    return {
        str(path.relative_to(root)): content(path.name, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def content(name: str, data: bytes) -> Any:
    return hdf5_content(data) if name.endswith(".h5") else data


def exported(run: RunView) -> dict[str, Any]:
    tree = export_tree(run)
    return {f.path: content(f.path, b"".join(MadeFile(f).parts())) for f in tree.files}


def take(root: Path | str, store: Store, run: str = "run", **how: Any) -> ImportReport:
    return import_file("batchie", root, store, run, **how)


@pytest.fixture(scope="module")
def real() -> Iterator[tuple[ImportReport, RunView]]:
    """Return the real simulation as a run, and what was said of its import."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    report = take(REAL, store)
    with Archive(store) as archive:
        yield report, archive.run("run")


def test_every_real_file_comes_back_equal(real: tuple[ImportReport, RunView]) -> None:
    report, run = real

    assert (report.files, report.steps, report.samples, report.sealed) == (44, 4, 8, True)
    assert report.missing == ()
    (odd,) = report.odd
    assert odd.startswith("iter_1/plate_0: the model is evaluated on the rows of iter_0/plate_0/")
    assert exported(run) == tree_of(REAL)


def test_the_tree_is_a_folder_and_a_zip_with_the_same_files(
    real: tuple[ImportReport, RunView], tmp_path: Path
) -> None:
    tree = export_tree(real[1])

    write_tree(tree, str(tmp_path / "out"))
    data = b"".join(zip_parts(tree))

    assert tree_of(tmp_path / "out") == tree_of(REAL)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        assert {n: content(n, opened.read(n)) for n in opened.namelist()} == tree_of(REAL)
    assert b"".join(zip_parts(tree)) == data
    with pytest.raises(ConflictError) as caught:
        write_tree(tree, str(tmp_path / "out"))
    assert caught.value.kind is ErrorKind.OUTPUT_EXISTS
    write_tree(tree, str(tmp_path / "out"), overwrite=True)


def test_steps_cut_the_tree(real: tuple[ImportReport, RunView]) -> None:
    tree = export_tree(real[1], steps=slice(1, 3))

    assert {f.path.split("/")[1] for f in tree.files} == {"plate_1", "plate_2"}


def test_steps_are_plate_folders_in_the_order_of_their_numbers(
    store: Store, tmp_path: Path
) -> None:
    for iteration, plate in ((0, 10), (0, 2), (10, 0), (2, 0)):
        write_metadata(plate_folder(tmp_path, iteration, plate), unobserved=1)

    take(tmp_path, store)

    known = RunRecords(store, "run").ledger.step_coordinates
    places = [(known["iter"].values[n], known["plate"].values[n]) for n in range(4)]
    assert places == [(0, 2), (0, 10), (2, 0), (10, 0)]


def test_experiments_are_samples_with_their_names(real: tuple[ImportReport, RunView]) -> None:
    _, run = real
    with h5py.File(REAL / "iter_0/plate_1/unmasked_screen/advanced_screen.h5") as file:
        mask, values = file["observation_mask"][()], file["observations"][()]

    names = run.ledger.sample_coordinates["plate_name"].array(range(8)).tolist()
    assert names[:3] == ["plate_D", "plate_C", "plate_E"]
    assert np.array_equal(run.field("observation_mask").select({"step": 1}).array(), mask)
    assert np.array_equal(run.field("observations").select({"step": 1}).array(), values)


def odd_thetas(folder: Path) -> None:
    write_thetas(folder / "thetas_0.h5", 12, capacity=20, drifting=True)


def ragged_thetas(folder: Path) -> None:
    write_thetas(folder / "thetas_0.h5", 3)
    with h5py.File(folder / "thetas_0.h5", "a") as file:
        del file["private_params/1/W"]
        gzipped(file["private_params/1"], W=np.zeros((5, 5)), extra=encoded(["ü", "long text"]))


def old_distances(folder: Path) -> None:
    pairs = [(row, column) for row in range(3) for column in range(3)]
    write_distances(folder / "distance_matrix.h5", 3, pairs, chunks=None)


def no_scores(folder: Path) -> None:
    write_scores(folder / "score_chunk_0.h5", {})


def experiment_space(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "space.h5", "w") as file:
        file["treatment_names"] = encoded(["ä", "b"])
        file["treatment_ids"] = np.array([0, 1], ">i4")
        file["samples"] = np.zeros((0, 2), np.float32)
        file["one/value"] = np.float64(2.5)
        file["one"].attrs["flags"] = np.array([True, False])
        file["one/value"].attrs["texts"] = ["ä", "b"]


def large_screen(folder: Path) -> None:
    """Screens of more than one chunk, with text wider than the first that came."""
    write_screen(folder / "first.screen.h5", ["p"])
    write_screen(folder / "advanced_screen.h5", [f"plate number {n:040d} é" for n in range(700)])


@pytest.mark.parametrize(
    "write",
    [odd_thetas, ragged_thetas, old_distances, no_scores, experiment_space, large_screen],
)
def test_odd_files_come_back_equal(
    store: Store, archive: Archive, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(plate_folder(tmp_path, 0, 0))

    report = take(tmp_path, store)

    assert not report.sealed
    assert exported(archive.run("run")) == tree_of(tmp_path)


def test_what_changes_from_step_to_step_comes_back_equal(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """Later files have wider text, other shapes, other floats and another number of axes."""
    for plate, name in enumerate(("p", "a plate with a long name, ü", "q" * 200)):
        folder = plate_folder(tmp_path, 0, plate)
        write_screen(folder / "advanced_screen.h5", [name] * (plate + 1))
        write_thetas(folder / "thetas_0.h5", 1 + plate, drifting=plate == 1)
        with h5py.File(folder / "more.h5", "w") as file:
            file["x"] = np.zeros((2,) * plate, [np.float32, np.float64, np.int16][plate])

    report = take(tmp_path, store)

    assert exported(archive.run("run")) == tree_of(tmp_path)
    assert sum("other experiments than the first" in sentence for sentence in report.odd) == 2


def test_the_report_names_what_is_missing_and_what_is_odd(store: Store, tmp_path: Path) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_plate(folder)
    for name in ("distance_matrix_chunk_0.h5", "thetas_0.h5", "screen_metadata.json"):
        (folder / name).unlink()
    write_thetas(folder / "thetas_1.h5", 2, capacity=5, drifting=True)
    whole = (folder / "model_evaluation.h5").read_bytes()
    (folder / "model_evaluation.h5").write_bytes(whole[:-100])
    (folder / "notes.txt").write_text("mine")

    report = take(tmp_path, store)

    at = "iter_0/plate_0: "
    assert report.missing == (
        at + "not finished: no screen_metadata.json",
        at + "no thetas 0",
        at + "no distances 0",
        at + "no evaluation",
        at + "3 of 6 distances",
    )
    odd = "\n".join(report.odd)
    assert "alpha is float32 and float64 from entry to entry" in odd
    assert "thetas_1.h5 has room for 5 thetas and holds 2" in odd
    assert "model_evaluation.h5 is not whole: " in odd
    assert "left out: notes.txt" in odd
    assert not report.sealed


def test_masked_observations_can_be_left_out(real: tuple[ImportReport, RunView]) -> None:
    tree = export_tree(real[1], "batchie-tree-masked")

    for file in tree.files:
        if file.path.endswith("screen.h5"):
            with h5py.File(io.BytesIO(b"".join(MadeFile(file).parts()))) as opened:
                mask = opened["observation_mask"][()]
                assert np.array_equal(np.isnan(opened["observations"][()]), ~mask)


def test_the_same_tree_again_is_nothing_and_another_is_refused(
    store: Store, tmp_path: Path
) -> None:
    write_plate(plate_folder(tmp_path, 0, 0), unobserved=0)
    first = take(tmp_path, store)
    before = {found.key: store.read(found.key) for found in store.objects("runs")}

    again = take(tmp_path, store)

    assert (first.known, first.sealed, again.known, again.files) == (False, True, True, 12)
    write_thetas(plate_folder(tmp_path, 0, 0) / "thetas_1.h5", 2, seed=7)
    with pytest.raises(ConflictError) as caught:
        take(tmp_path, store)
    assert caught.value.kind is ErrorKind.RUN_DIFFERS
    (plate_folder(tmp_path, 0, 0) / "thetas_1.h5").unlink()
    with pytest.raises(ConflictError):
        take(tmp_path, store)
    assert {found.key: store.read(found.key) for found in store.objects("runs")} == before


def test_an_import_that_broke_off_goes_on(store: Store, archive: Archive, tmp_path: Path) -> None:
    for plate in range(2):
        write_plate(plate_folder(tmp_path, 0, plate), seed=plate, unobserved=1 - plate)

    def interrupt(done: int, total: int) -> None:
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(tmp_path, store, progress=interrupt)
    report = take(tmp_path, store)

    assert (report.steps, report.sealed, report.known) == (2, True, False)
    assert exported(archive.run("run")) == tree_of(tmp_path)


def test_a_tree_of_several_screens_wants_one_named(store: Store, tmp_path: Path) -> None:
    for screen in ("one", "two"):
        write_scores(tmp_path / "iter_0/plate_0" / screen / "score_chunk_0.h5", {0: 1.0})

    with pytest.raises(InvalidInputError, match="expected one screen, found one, two"):
        take(tmp_path, store)

    assert take(tmp_path, store, part="two").files == 1
    assert RunRecords(store, "run").manifest.metadata["screen"] == "two"


def test_trees_are_read_from_a_bucket_and_written_to_one(
    store: Store, archive: Archive, tmp_path: Path, s3: S3Server
) -> None:
    write_thetas(plate_folder(tmp_path, 0, 0) / "thetas_0.h5", 2)
    write_metadata(plate_folder(tmp_path, 0, 0), unobserved=0)
    url = s3.fresh_url()
    filesystem, there = fsspec.core.url_to_fs(url)
    filesystem.put(f"{tmp_path}/", f"{there}/out/", recursive=True)

    report = take(f"{url}/out", store)
    write_tree(export_tree(archive.run("run")), f"{url}/again")

    assert (report.files, report.sealed) == (3, True)
    assert take(f"{url}/again", store, "other").files == 3
    assert exported(archive.run("other")) == tree_of(tmp_path)


def test_a_folder_that_is_no_tree_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected a tree of files of batchie"):
        take(tmp_path, store)
    with pytest.raises(InvalidInputError, match="nowhere: there is no such file or folder"):
        take(tmp_path / "nowhere", store)


def test_nothing_that_a_file_names_is_imported(store: Store, tmp_path: Path) -> None:
    write_thetas(plate_folder(tmp_path, 0, 0) / "thetas_0.h5", 1)
    (tmp_path / "a_module.py").write_text("raise SystemExit")

    assert take(tmp_path, store).files == 1


def test_links_out_of_a_file_are_refused(store: Store, tmp_path: Path) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_thetas(folder / "thetas_0.h5", 1)
    with h5py.File(folder / "thetas_0.h5", "a") as file:
        file["private_params/0/V9"] = h5py.ExternalLink("/etc/passwd", "/")

    report = take(tmp_path, store)

    assert report.files == 0
    assert any("only what lies in the file is imported" in sentence for sentence in report.odd)


def test_metadata_is_of_the_step(store: Store, tmp_path: Path) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_metadata(folder, unobserved=3, selected=-1)
    (folder / "screen_metadata.json").write_text(json.dumps({"n_plates": 3, "note": "text"}))

    report = take(tmp_path, store)

    known = RunRecords(store, "run").ledger.step_coordinates
    assert {name: known[name].values[0] for name in ("n_plates", "selected_plate")} == {
        "n_plates": 3,
        "selected_plate": -1,
    }
    assert any("note is no number" in sentence for sentence in report.odd)
    assert RunRecords(store, "run").manifest.metadata["screen"] == SCREEN
