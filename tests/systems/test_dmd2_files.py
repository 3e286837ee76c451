"""DMD2's data folders: what goes in comes out, and nothing odd in them is guessed away."""

from __future__ import annotations

import json
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archive_schema.errors import ArchiveError, ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from recorder.importers import Following, import_file
from server.exporters import MadeFile, export, export_tree
from server.query import Archive
from tests.systems.dmd2_files import (
    FEATURES,
    LAYERS,
    MODEL,
    REAL,
    activations,
    sample,
    write_info,
    write_json,
    write_npz,
    write_picture,
    write_set,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from archive_schema.store import Store
    from recorder.importers import ImportReport
    from server.query import RunView


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def archive(store: Store) -> Iterator[Archive]:
    with Archive(store) as archive:
        yield archive


def take(root: Path, store: Store, **how: Any) -> ImportReport:
    return import_file("dmd2", root, store, "run", **how)


def files_below(root: Path, *parts: str) -> dict[str, bytes]:
    """Return every file below *root* that has one of *parts* in its path."""
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    wanted = {name: path for name, path in found.items() if any(f"{p}" in name for p in parts)}
    return {name: path.read_bytes() for name, path in wanted.items()}


def exported(run: RunView, name: str | None = None) -> dict[str, bytes]:
    return {f.path: b"".join(MadeFile(f).parts()) for f in export_tree(run, name).files}


def values(run: RunView, layer: str = "midblock") -> Any:
    array = run.field("output", layer=layer).select({"step": 0}).array()
    return array.reshape(len(array), -1)


def coordinate(run: RunView, name: str) -> dict[int, Any]:
    known = run.ledger.sample_coordinates.get(name)
    return {} if known is None else dict(known.values)


def _nothing() -> None:
    pass


def follow(root: Path, store: Store, *acts: Callable[[], object], **how: Any) -> ImportReport:
    """Follow a tree with three looks after each act, and then end."""
    script = iter([_nothing] * 2 + [s for act in acts for s in (act, _nothing, _nothing)])

    def wait() -> bool:
        act = next(script, None)
        if act is not None:
            act()
        return act is not None

    return take(root, store, following=Following(wait), **how)


@pytest.mark.parametrize("model", ["imagenet", "imagenet_real"])
def test_a_real_data_set_comes_back_byte_for_byte(
    store: Store, archive: Archive, model: str
) -> None:
    report = take(REAL, store, part=model)
    again = take(REAL, store, part=model)

    assert (report.missing, report.odd, report.sealed, report.samples) == ((), (), True, 8)
    assert again.known
    run = archive.run("run")
    there = files_below(REAL, f"/{model}/", f"/{model}_reconstructed", f"/{model}_umap")
    assert exported(run) == there
    field = run.field("output", layer="midblock")
    assert (field.shape, field.dims[2:]) == ((1, 8, 128, 8, 8), ("channel", "row", "column"))
    assert run.ledger.step_coordinates["sigma"].values == {0: 80.0}


def test_several_data_sets_are_told_apart_by_name(store: Store) -> None:
    with pytest.raises(InvalidInputError, match=r"found imagenet, imagenet_real: name one by"):
        take(REAL, store)


def test_flat_rows_have_layers_by_name(store: Store, archive: Archive) -> None:
    """Their code puts layers together in the order of their names, whatever the file's is."""
    take(REAL, store, part="imagenet_real")
    run = archive.run("run")

    file = export(run, "npy").file
    whole = b"".join(file.read())

    parts = []
    for at in (0, 1):
        with np.load(REAL / f"activations/imagenet_real/batch_00000{at}.npz") as opened:
            parts.append(dict(opened))
    rows = [np.concatenate([one[name] for name in sorted(one)], axis=1) for one in parts]
    data = np.frombuffer(whole[-8 * 4 * 16384 :], "<f4").reshape(8, -1)
    np.testing.assert_array_equal(data, np.concatenate(rows))
    for start, stop in ((0, 1), (100, 70_000), (65_000, 65_001), (200_000, len(whole))):
        assert b"".join(file.read(start, stop)) == whole[start:stop]
    about = json.loads(b"".join(export(run, "npy-json").file.read()))
    assert about["shapes"] == {"encoder_bottleneck": [8, 8192], "midblock": [8, 8192]}
    one = b"".join(export(run, "npy", layers=["midblock"], samples=slice(2, 4)).file.read())
    expected = parts[0]["midblock"][2:4]
    np.testing.assert_array_equal(np.frombuffer(one[128:], "<f4").reshape(2, -1), expected)


def test_batches_of_other_lengths_are_one_data_set(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """Combined data sets have short batches in their middle."""
    write_set(tmp_path, (4, 2, 4, 3))

    report = take(tmp_path, store)

    assert (report.samples, report.odd) == (13, ())
    assert exported(archive.run("run")) == files_below(tmp_path, "")


def test_one_large_file_is_read_in_parts(store: Store, archive: Archive, tmp_path: Path) -> None:
    """A successor writes all of a data set into one file, an image at several timesteps."""
    rows = np.zeros((10, 2 << 20), np.float32)
    rows[:, 0] = range(10)
    write_npz(tmp_path, "batch_000000", {"mid_block": rows}).with_suffix(".npy").write_bytes(b"")
    samples = [
        {**sample(at // 2, 0, at), "sample_id": f"sample_{at // 2:06d}_t{at % 2}",
         "caption": 'a cat, "sitting"', "timestep": at % 2}
        for at in range(10)
    ]  # fmt: skip
    write_info(tmp_path, samples, layer_shapes={"mid_block": [512, 64, 64]})

    report = take(tmp_path, store)

    field = archive.run("run").field("output", layer="mid_block")
    assert (field.spec.tile, field.shape) == (5, (1, 10, 512, 64, 64))
    for at in (0, 5, 9):
        found = field.select({"step": 0, "sample": at}).array()
        np.testing.assert_array_equal(found.reshape(-1), rows[at])
    assert coordinate(archive.run("run"), "timestep")[3] == 1
    assert any("left out: batch_000000.npy" in one for one in report.odd)


def test_not_a_number_stays(store: Store, archive: Archive, tmp_path: Path) -> None:
    """Upstream's reader turns it into 0 without a word."""
    arrays = activations(4, 1)
    arrays["midblock"][0, :3] = np.nan, np.inf, -np.inf
    write_npz(tmp_path, "batch_000000", arrays)
    write_info(tmp_path, [sample(at, 0, at) for at in range(4)])

    take(tmp_path, store)

    np.testing.assert_array_equal(values(archive.run("run")), arrays["midblock"])


def test_shapes_come_from_the_data_set_the_user_or_nobody(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    layers = ("told", "said", "unknown", "midblock")
    write_npz(tmp_path, "batch_000000", activations(2, 1, layers))
    write_info(tmp_path, [sample(at, 0, at) for at in (0, 1)], layer_shapes={"told": [8, 4, 4]})

    report = take(tmp_path, store, flags={"shapes": "said=32x2x2"})

    run = archive.run("run")
    shapes = {name: run.field("output", layer=name).spec.tail for name in layers}
    assert shapes == {
        "told": (8, 4, 4), "said": (32, 2, 2), "unknown": (FEATURES,), "midblock": (2, 8, 8),
    }  # fmt: skip
    assert any("layer unknown: kept flat" in sentence for sentence in report.odd)
    with pytest.raises(InvalidInputError, match="expected such as midblock"):
        take(tmp_path, store, flags={"shapes": "said=32xx2"})


def test_a_run_that_was_written_over_is_told_and_nothing_is_guessed(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """Upstream's resume counts its files from 0 again, and its list leads to the wrong ones."""
    write_npz(tmp_path, "batch_000000", activations(4, 7))
    write_info(tmp_path, [sample(at, 0, at % 4) for at in range(8)])

    report = take(tmp_path, store)

    run = archive.run("run")
    assert any("8 samples name rows that others name too" in one for one in report.odd)
    assert coordinate(run, "sample_id") == {}
    np.testing.assert_array_equal(values(run), activations(4, 7)["midblock"])
    listed = json.loads(exported(run)[f"metadata/{MODEL}/dataset_info.json"])
    assert (listed["samples"], listed["num_samples"]) == ([], 0)
    told = exported(run, "dmd2-tree-as-told")[f"metadata/{MODEL}/dataset_info.json"]
    assert told == (tmp_path / f"metadata/{MODEL}/dataset_info.json").read_bytes()


def test_the_json_beside_a_file_tells_whose_it_is(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    write_npz(tmp_path, "batch_000000", activations(2, 7))
    samples = [sample(at, 0, at % 2, original_path=f"npz_sample_{at}") for at in range(4)]
    beside = [
        {"batch_index": at, "class_id": one["class_label"], "original_path": one["original_path"]}
        for at, one in enumerate(samples[2:])
    ]
    document = {"batch_size": 2, "layers": list(LAYERS), "samples": beside}
    write_json(tmp_path, f"activations/{MODEL}/batch_000000.json", document)
    write_info(tmp_path, samples)

    report = take(tmp_path, store)

    run = archive.run("run")
    assert coordinate(run, "sample_id") == {0: "sample_000002", 1: "sample_000003"}
    assert any("activations of 2 samples were written over" in one for one in report.odd)
    listed = json.loads(exported(run)[f"metadata/{MODEL}/dataset_info.json"])
    assert [one["sample_id"] for one in listed["samples"]] == ["sample_000002", "sample_000003"]


def test_who_follows_loses_nothing_to_a_resume(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """Files that were archived before they were written over are there, and know whose they are."""
    first = [sample(at, 0, at) for at in range(4)]
    write_npz(tmp_path, "batch_000000", activations(4, 1))

    def resume() -> None:
        write_npz(tmp_path, "batch_000000", activations(4, 2))

    def end() -> None:
        write_info(tmp_path, first + [sample(4 + at, 0, at) for at in range(4)])

    report = follow(tmp_path, store, lambda: None, resume, end)

    run = archive.run("run")
    assert report.sealed
    assert any("was written over" in one for one in report.odd)
    assert coordinate(run, "sample_id") == {at: f"sample_{at:06d}" for at in range(8)}
    both = [activations(4, seed)["midblock"] for seed in (1, 2)]
    np.testing.assert_array_equal(values(run), np.concatenate(both))
    tree = exported(run)
    listed = json.loads(tree[f"metadata/{MODEL}/dataset_info.json"])["samples"]
    assert [one["activation_path"][-1] for one in listed] == ["0"] * 4 + ["1"] * 4
    assert {name for name in tree if name.endswith(".npz")} == {
        f"activations/{MODEL}/batch_00000{at}.npz" for at in (0, 1)
    }


def test_batches_are_there_before_their_list_is(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """While a live data set is imported it is read, and it goes on after an interruption."""
    whole = tmp_path / "whole"
    write_set(whole, (4, 4, 2))
    live = tmp_path / "live"
    seen: list[tuple[int, bool]] = []

    def copy(*paths: str) -> Callable[[], None]:
        def act() -> None:
            for path in paths:
                (live / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(whole / path, live / path)

        return act

    def look() -> None:
        run = archive.run("run")
        np.testing.assert_array_equal(values(run)[:4], activations(4, 0)["midblock"])
        seen.append((run.samples, run.sealed))

    def cut() -> None:
        path = live / f"activations/{MODEL}/batch_000002.npz"
        data = (whole / f"activations/{MODEL}/batch_000002.npz").read_bytes()
        path.write_bytes(data[: len(data) // 2])

    names = [f"activations/{MODEL}/batch_00000{at}.npz" for at in range(3)]
    copy(names[0])()
    first = follow(live, store, look, copy(names[1]), look, cut)
    shutil.copytree(whole / "images", live / "images")
    second = follow(live, store, copy(names[2]), copy(f"metadata/{MODEL}/dataset_info.json"))

    assert seen == [(4, False), (8, False)]
    assert (first.sealed, second.sealed, second.samples, second.odd) == (False, True, 10, ())
    assert exported(archive.run("run")) == files_below(whole, "")


def test_an_import_that_is_cut_short_goes_on(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    write_set(tmp_path, (4, 4, 2))

    def cut(done: int, _: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(tmp_path, store, progress=cut)
    assert not archive.run("run").sealed
    report = take(tmp_path, store)

    assert (report.sealed, report.samples, report.odd) == (True, 10, ())
    assert exported(archive.run("run")) == files_below(tmp_path, "")


def test_a_crash_leaves_rows_without_names(store: Store, archive: Archive, tmp_path: Path) -> None:
    write_set(tmp_path, (4, 2))
    (tmp_path / f"metadata/{MODEL}/dataset_info.json").unlink()
    cut = write_npz(tmp_path, "batch_000002", activations(4, 3))
    cut.write_bytes(cut.read_bytes()[:-100])

    report = take(tmp_path, store)

    assert (report.samples, report.sealed) == (6, False)
    assert any("dataset_info.json" in one for one in report.missing)
    assert any("batch_000002.npz is not whole" in one for one in report.odd)
    assert set(exported(archive.run("run"))) == {
        f"activations/{MODEL}/batch_00000{at}.npz" for at in (0, 1)
    }


def test_another_configuration_is_refused(store: Store, tmp_path: Path) -> None:
    """Upstream goes on with other layers, another sigma or another seed, and says nothing."""
    samples = write_set(tmp_path, (4, 4))
    take(tmp_path, store, seal=False)
    write_info(tmp_path, samples, conditioning_sigma=0.5)

    with pytest.raises(ConflictError, match=r"conditioning_sigma 0\.5, .* made with 80\.0") as told:
        take(tmp_path, store)

    assert told.value.kind is ErrorKind.RUN_DIFFERS


def test_layers_of_another_model_are_refused(store: Store, tmp_path: Path) -> None:
    write_npz(tmp_path, "batch_000000", activations(2, 1))
    wide = {name: np.tile(one, 2) for name, one in activations(2, 1).items()}
    write_npz(tmp_path, "batch_000001", wide)

    with pytest.raises(
        InvalidInputError, match=r"expected \(2, 8, 8\) values of layer .* \(256,\)"
    ):
        take(tmp_path, store)


def test_what_comes_after_a_short_end_is_another_run(store: Store, tmp_path: Path) -> None:
    write_set(tmp_path, (4, 2))
    take(tmp_path, store, seal=False)
    write_npz(tmp_path, "batch_000002", activations(4, 9))

    with pytest.raises(ConflictError, match="4 samples came after the run had ended with sample 6"):
        take(tmp_path, store)


def test_samples_with_a_file_each_and_no_list(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """The script for several GPUs lists no samples; the older layout has a file for each."""
    for number in range(3):
        write_npz(tmp_path, f"sample_{number:06d}", activations(1, number))
        beside = {
            "sample_id": f"sample_{number:06d}", "class_label": number, "seed": 10,
            "process_index": 0,
        }  # fmt: skip
        write_json(tmp_path, f"activations/{MODEL}/sample_{number:06d}.json", beside)
        write_picture(tmp_path, f"images/{MODEL}/sample_{number:06d}.png", number)
    head = {"model_type": MODEL, "num_samples": 4, "layers": list(LAYERS), "num_processes": 2}
    write_json(tmp_path, f"metadata/{MODEL}/dataset_info.json", head)

    report = take(tmp_path, store, flags={"classes": "standard"})

    run = archive.run("run")
    assert report.missing == ("1 of 4 samples have no activations",)
    assert any("no list of samples" in one for one in report.odd)
    assert coordinate(run, "class") == {0: "tench", 1: "goldfish", 2: "great_white_shark"}
    assert exported(run, "dmd2-tree-as-told") == files_below(tmp_path, "")
    corrected = exported(run)[f"metadata/{MODEL}/dataset_info.json"]
    assert [one["sample_id"][-1] for one in json.loads(corrected)["samples"]] == ["0", "1", "2"]


def test_a_picture_that_is_missing_is_told(store: Store, archive: Archive, tmp_path: Path) -> None:
    samples = write_set(tmp_path, (4,))
    (tmp_path / samples[1]["image_path"]).unlink()
    (tmp_path / samples[2]["image_path"]).write_bytes(b"\x89PNG\r\n\x1a\n rubbish")

    report = take(tmp_path, store)

    assert any("1 pictures (image)" in one for one in report.missing)
    assert any("sample_000002.png" in one for one in report.odd)
    mask = archive.run("run").field("image", place=Place.OUTPUTS).ledger.recorded(4, [0])[0]
    assert mask.tolist() == [True, False, False, True]


def test_samples_that_were_generated_in_the_app(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """What the app keeps of a trajectory: places in the projection, noise levels and pictures."""
    write_set(tmp_path, (2,))
    steps: list[dict[str, Any]] = [
        {"step": at, "sigma": 80.0 / (at + 1), "x": at + 0.5, "y": -1.0,
         "image_path": f"images/intermediates/sample_000002_step{at}.png"}
        for at in range(3)
    ]  # fmt: skip
    name = "sample_000002_generated"
    record = {
        "sample_id": name, "class_label": 1, "model": MODEL, "generated_from_neighbors": [0, 1],
        "neighbor_center_umap": [0.25, 1.5], "trajectory": steps,
    }  # fmt: skip
    write_json(tmp_path, f"activations/{MODEL}/{name}.json", record)
    write_npz(tmp_path, name, {})
    write_picture(tmp_path, f"images/{MODEL}/{name}.png", 9)
    for at, step in enumerate(steps):
        write_picture(tmp_path, step["image_path"], at)

    report = take(tmp_path, store, part=f"{MODEL}/generated")

    run = archive.run("run")
    assert (report.samples, report.steps) == (1, 3)
    places = run.field("umap").select({}).array()
    np.testing.assert_array_equal(places[:, 0], [[0.5, -1], [1.5, -1], [2.5, -1]])
    assert run.field("image").shape == (3, 1, 8, 8, 3)
    assert exported(run) == files_below(tmp_path, "generated", "intermediates")


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        (f"metadata/{MODEL}/dataset_info.json", b'{"samples": [1]}', "list of objects"),
        (f"metadata/{MODEL}/dataset_info.json", b"[" * 100_000, "JSON"),
        (f"metadata/{MODEL}/dataset_info.json", b'{"a": "\\ud800"}', "JSON"),
        (f"metadata/{MODEL}/dataset_info.json", b'{"class_labels": {"x": 1}}', "class_labels"),
        (f"activations/{MODEL}/batch_000001.npz", b"PK\x03\x04 rubbish", "batch_000001"),
        (f"activations/{MODEL}/batch_000000.json", b'{"samples": []}', "tells of 0 samples"),
        (
            f"embeddings/{MODEL}_umap_n3_d0.1.csv",
            b"sample_id,umap_x\nx,1\n",
            "no sample of the set",
        ),
        (f"embeddings/{MODEL}_umap_n3_d0.1.csv", b"a,b\n1,2\n", "expected columns sample_id"),
    ],
)
def test_what_is_damaged_is_named(
    store: Store, tmp_path: Path, path: str, data: bytes, words: str
) -> None:
    write_set(tmp_path, (4,))
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(data)

    report = take(tmp_path, store)

    assert report.samples == 4
    assert any(words in sentence for sentence in report.odd)


def test_no_path_leads_out_of_the_folder(store: Store, archive: Archive, tmp_path: Path) -> None:
    """Neither where files are read nor where they are written."""
    root = tmp_path / "data"
    write_picture(tmp_path, "secret.png")
    samples = write_set(root, (2,))
    samples[0]["image_path"] = "../secret.png"
    samples[1]["image_path"] = str(tmp_path / "secret.png")
    write_info(root, samples)

    report = take(root, store)

    run = archive.run("run")
    assert any("2 pictures (image)" in one for one in report.missing)
    assert run.ledger.at(Place.OUTPUTS, None, "image") is None
    assert not [path for path in exported(run) if "secret" in path]


def test_values_that_no_coordinate_can_have_are_told(store: Store, tmp_path: Path) -> None:
    write_npz(tmp_path, "batch_000000", activations(1, 0))
    others: dict[str, Any] = {
        "step": 1,
        "huge": 2**70,
        "nul": "a\0",
        "none": None,
        "list": [1],
        "k k": 1,
    }
    write_info(tmp_path, [sample(0, 0, 0, **others)])

    report = take(tmp_path, store)

    for name in ("'step'", "'huge'", "'nul'", "'none'", "'k k'"):
        assert any(name in sentence for sentence in report.odd), name


def test_a_sealed_run_is_not_another_tree(store: Store, tmp_path: Path) -> None:
    write_set(tmp_path, (4,))
    take(tmp_path, store)
    write_npz(tmp_path, "batch_000000", activations(4, 99))

    with pytest.raises(ArchiveError, match="batch_000000"):
        take(tmp_path, store)
