"""VizFold's archive proposals come in with every value, and what is odd in them is said."""

from __future__ import annotations

import json
import shutil
import uuid
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import fsspec
import h5py
import numpy as np
import pytest
import zarr

from archive_schema.errors import InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from recorder.importers import import_file
from recorder.importers.vizfold_archives import open_archive
from server.query import Archive
from tests.systems.vizfold_archives import (
    FIRST,
    HEADS_LAST,
    SYNTHETIC,
    arrays_of,
    edit_document,
    maps,
    without_documents,
    write_zarr,
    zipped,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from archive_schema.models import Scalar
    from tests.s3_server import S3Server

BLOCKS = "evoformer.blocks."


class Kept:
    """What an archive hands over, by place, layer and field."""

    def __init__(self, path: Path, **flags: Any) -> None:
        self.fields: dict[tuple[str | None, str], NDArray[Any]] = {}
        self.dims: dict[tuple[str | None, str], tuple[str, ...] | None] = {}
        self.coordinates: dict[int, dict[str, Scalar]] = {}
        self.pieces: list[int] = []
        with open_archive(str(path), **flags) as source:
            source.feed(self, lambda *_: None)
            self.findings = source.findings
            self.metadata = source.metadata
            self.steps, self.samples = source.steps, source.samples

    def declare(self, name: str, **about: Any) -> None:
        """Note the axes."""
        self.dims[about.get("layer"), name] = about.get("dims")

    def record(
        self, n: int, samples: slice | None = None, layer: str | None = None, **values: Any
    ) -> None:
        """Keep arrays and coordinates."""
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self._keep((layer, name), samples, value)
            else:
                self.coordinates.setdefault(n, {})[name] = value

    def inputs(self, samples: slice | None = None, **arrays: Any) -> None:
        """Keep arrays."""
        for name, value in arrays.items():
            self._keep((None, name), samples, value)

    outputs = inputs

    def sample_coordinates(self, samples: slice | None = None, **values: Any) -> None:
        """Do not come here: archives name no samples."""
        raise AssertionError((samples, values))

    def recorded(self) -> Any:
        """Do not come here: an archive is read whole."""
        raise AssertionError

    def _keep(self, at: tuple[str | None, str], samples: slice | None, value: Any) -> None:
        self.pieces.append(value.nbytes)
        before = [self.fields[at]] if samples is not None and samples.start else []
        self.fields[at] = np.concatenate([*before, value]) if before else value


def refusal(path: Path, **flags: Any) -> str:
    """Return why an archive is refused."""
    with pytest.raises(InvalidInputError) as caught:
        Kept(path, **flags)
    return str(caught.value)


def test_a_real_archive_is_imported_whole_and_a_second_time_as_nothing() -> None:
    """Every array of the store is in the run, bit for bit, and sealed runs are compared."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for run_id, path in (("first", FIRST), ("heads-last", HEADS_LAST)):
        report = import_file("vizfold", path, store, run_id)
        again = import_file("vizfold", path, store, run_id)

        assert report.sealed
        assert not report.missing
        flat = "structure/atom_positions (1591, 3) is kept as residues by 37 atoms"
        assert (flat in report.odd) == (run_id == "heads-last")
        assert not any("num_residues says" in sentence for sentence in report.odd)
        assert again.known
    expected = arrays_of(FIRST)
    with Archive(store) as archive:
        run = archive.run("first")

        def layer(number: int, field: str) -> NDArray[Any]:
            found = run.field(field, layer=f"{BLOCKS}{number}")
            return found.select({"step": 0}).array()

        for number in (0, 1):
            for path_of, field in (
                ("representations/single", "single"),
                ("representations/pair", "pair"),
                ("attention/pairwise", "pairwise_attention"),
                ("attention/triangle_start", "triangle_start_attention_mean"),
            ):
                values = expected[f"{path_of}/layer_{number:02d}"]
                given = layer(number, field)
                assert given.dtype == values.dtype
                assert np.array_equal(given, values)
        for name, path_of in (
            ("final_atom_positions", "structure/atom_positions"),
            ("final_atom_mask", "structure/atom_mask"),
        ):
            given = run.field(name, place=Place.OUTPUTS).select({}).array()
            assert np.array_equal(given, expected[path_of])
        assert run.manifest.metadata["model_version"] == "openfold-v2.2.0"
        # The same protein by another writer: heads last, atoms in one axis.
        other = archive.run("heads-last")
        for name in ("final_atom_positions", "final_atom_mask"):
            one, two = (r.field(name, place=Place.OUTPUTS).select({}).array() for r in (run, other))
            assert np.array_equal(one, two)
        field = "triangle_start_attention_mean"
        theirs = other.field(field, layer=f"{BLOCKS}1").select({"step": 0}).array()
        assert np.array_equal(theirs, layer(1, field))


def test_containers_of_the_same_numbers_give_the_same_run() -> None:
    """HDF5, NPZ and Zarr of one benchmark differ in names and chunks (larger than the arrays)."""
    kept = [Kept(SYNTHETIC / f"data.{ending}") for ending in ("h5", "npz", "zarr")]

    assert {len(one.fields) for one in kept} == {8}
    for at, values in kept[0].fields.items():
        assert all(np.array_equal(values, one.fields[at]) for one in kept)
    assert kept[0].dims == kept[1].dims == kept[2].dims
    assert kept[0].fields[f"{BLOCKS}1", "attention"].shape == (8, 16, 16)
    with h5py.File(SYNTHETIC / "data.h5") as file:
        coordinates = file["outputs/coords"][()]
    assert np.array_equal(kept[0].fields[None, "coordinates"], coordinates)


def test_sparse_layers_texts_and_passes_of_zarr_3(tmp_path: Path) -> None:
    """Layers 0, 1 and 5, other spellings, text of 0 dimensions, and the last of three passes."""
    path = write_zarr(
        tmp_path / "run.zarr",
        {
            "metadata/sequence": np.array("ACDEF"),
            "metadata/num_residues": np.int32(5),
            "metadata/num_recycles": np.int32(3),
            "representations/single/layer_05": np.ones((5, 256), np.float16),
            "representations/single/1": np.full((5, 1024), 2, np.float16),
            "representations/single/layer_0": np.zeros((5, 7), np.float32) + 3,
            "attention/msa_row/layer_00": maps(8, 5),
            "structure/pdb": np.array("HEADER    TEST\nEND\n"),
            "other/thing": np.ones(3),
        },
    )

    kept = Kept(path)

    assert kept.steps == (2,)
    assert kept.coordinates[2] == {"recycle": 2}
    widths = {n: kept.fields[f"{BLOCKS}{n}", "single"].shape[1] for n in (0, 1, 5)}
    assert widths == {0: 7, 1: 1024, 5: 256}
    assert kept.fields[f"{BLOCKS}5", "single"].dtype == np.float16
    assert kept.fields[None, "pdb"].tobytes() == b"HEADER    TEST\nEND\n"
    assert str(kept.fields[None, "sequence"]) == "ACDEF"
    odd = "; ".join(kept.findings.odd)
    for sentence in ("other/thing (3,) has no place", "layers 0, 1, 5 only", "taken as the last"):
        assert sentence in odd
    assert "structure/atom_positions" in kept.findings.missing


def test_axes_of_attention_are_told_or_asked_for_and_never_guessed(tmp_path: Path) -> None:
    """With as many heads as residues, names decide, then chunks; else the user is asked."""
    values = maps(4, 4)
    names = {
        "attention/a/layer_0": ("head", "query", "key"),
        "attention/b/layer_0": ("query", "key", "msa_heads"),
    }
    same = (4, 4, 4)
    chunks = {"attention/c/layer_0": (1, 4, 4), "attention/d/layer_0": (4, 4, 1)}
    all_of = {"attention/a/layer_0": same, "attention/b/layer_0": same}
    for version in (2, 3):
        told = write_zarr(
            tmp_path / f"told{version}.zarr",
            dict.fromkeys((*names, *chunks), values),
            version=version,
            dims=names,
            chunks=chunks | all_of,
        )

        kept = Kept(told)

        for kind, heads_first in {"a": True, "b": False, "c": True, "d": False}.items():
            given = kept.fields[f"{BLOCKS}0", f"{kind}_attention"]
            assert np.array_equal(given, values if heads_first else np.moveaxis(values, -1, 0))
    unsure = write_zarr(
        tmp_path / "unsure.zarr",
        {"attention/pairwise/layer_0": values},
        chunks={"attention/pairwise/layer_0": same},
    )
    assert "ambiguous" in refusal(unsure)
    assert "attention_axes=head,query,key" in refusal(unsure)
    said = Kept(unsure, attention_axes="query,key,head").fields[f"{BLOCKS}0", "pairwise_attention"]
    assert np.array_equal(said, np.moveaxis(values, -1, 0))
    assert "expected head,query,key" in refusal(unsure, attention_axes="query,head,key")
    # 4 heads of 6 residues, and 6 heads of 4: lengths tell, as the reader upstream only guesses.
    for heads, length in ((4, 6), (6, 4)):
        last = np.moveaxis(maps(heads, length), 0, -1)
        path = write_zarr(
            tmp_path / f"{heads}.zarr",
            {"attention/pairwise/layer_0": last},
            chunks={"attention/pairwise/layer_0": last.shape},
        )
        given = Kept(path).fields[f"{BLOCKS}0", "pairwise_attention"]
        assert given.shape == (heads, length, length)


def test_a_store_without_its_metadata_is_diagnosed(tmp_path: Path) -> None:
    """It has happened: a .gitignore with *.json leaves chunks that nobody can read."""
    version_3 = write_zarr(tmp_path / "three.zarr", {"attention/pairwise/layer_0": maps(2, 5)})
    for name, source in (("two", FIRST), ("three", version_3)):
        lost = without_documents(tmp_path / f"{name}-lost.zarr", source)

        for path in (lost, zipped(tmp_path / f"{name}.zip", lost, "x.zarr/")):
            message = refusal(path)
            assert "metadata missing" in message
            assert "*.json" in message
            assert ".zarray" in message
    partly = tmp_path / "partly.zarr"
    shutil.copytree(FIRST, partly)
    (partly / "attention/pairwise/layer_01/.zarray").unlink()

    kept = Kept(partly)

    assert "attention/pairwise/layer_01 has 8 objects and no metadata: left out" in (
        kept.findings.missing
    )
    assert "expected a Zarr archive, found notes.txt" in refusal(_folder(tmp_path / "no.zarr"))


def test_an_archive_is_read_from_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    """As a folder of objects, and as a ZIP of which no more is fetched than is asked for; and a
    folder needs no ending.
    """
    url = s3.fresh_url()
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.put(str(SYNTHETIC / "data.zarr"), f"{root}/data.zarr", recursive=True)
    packed = zipped(tmp_path / "data.zip", SYNTHETIC / "data.zarr", "data.zarr/")
    filesystem.put(str(packed), f"{root}/data.zip")
    store = open_store(f"memory://{uuid.uuid4().hex}")

    renamed = tmp_path / "unpacked"
    shutil.copytree(SYNTHETIC / "data.zarr", renamed)

    places = (f"{url}/data.zarr", f"{url}/data.zip", renamed)
    reports = [import_file("vizfold", place, store, "one") for place in places]

    assert [report.known for report in reports] == [False, True, True]


def _folder(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("nothing here")
    return path


def test_a_zip_holds_its_store_in_one_of_three_places(tmp_path: Path) -> None:
    """At its root, in a *.zarr folder, or in the only folder there is."""
    expected = Kept(FIRST).fields
    for at, prefix in enumerate(("", "1G1J.vizfold.zarr/", "archive/")):
        kept = Kept(zipped(tmp_path / f"{at}.zip", FIRST, prefix))

        assert kept.fields.keys() == expected.keys()
        assert all(np.array_equal(kept.fields[name], expected[name]) for name in expected)


def test_hostile_archives_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    """No codec runs programs, no ZIP is larger inside than it can be, no size is believed."""
    array = "attention/pairwise/layer_00/.zarray"

    def changed(name: str, **changes: Any) -> Path:
        path = tmp_path / f"{name}.zarr"
        shutil.copytree(FIRST, path)
        edit_document(path / array, **changes)
        return path

    pickled = [{"id": "pickle", "protocol": 5}]
    assert "expected a codec" in refusal(changed("pickle", dtype="|O", filters=pickled))
    assert "expected numbers or text" in refusal(changed("objects", dtype="|O"))
    huge = changed("huge", shape=[8, 10**9, 10**9], chunks=[1, 43, 43])
    assert "declares" in refusal(huge)
    assert "a chunk of" in refusal(
        changed("chunk", shape=[8, 10**6, 10**6], chunks=[8, 10**6, 10**3])
    )
    assert "expected shape as lengths" in refusal(changed("negative", shape=[-1, 2, 3]))
    cut = changed("cut")
    (cut / "attention/pairwise/layer_00/3.0.0").write_bytes(b"no blosc")
    assert "attention/pairwise/layer_00 cannot be read" in refusal(cut)
    nothing = tmp_path / "nothing.zip"
    nothing.write_bytes(b"PK\x03\x04 and no more")
    assert "expected a ZIP file" in refusal(nothing)
    for name, member, data, reason in (
        ("out", "../x/.zgroup", b"{}", "leads out of it"),
        ("absolute", "/etc/.zgroup", b"{}", "leads out of it"),
        ("bomb", "a/0.0", b"0" * (64 << 20), "expands more than deflate can"),
    ):
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr(member, data[: 1 << 20])
        if name == "bomb":
            _overstate(path, 1 << 20, 1 << 31)
        assert reason in refusal(path)
    twice = tmp_path / "twice.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "w") as target:
        warnings.simplefilter("ignore")
        for _ in range(2):
            target.writestr(".zgroup", b"{}")
    assert "two members have the same name" in refusal(twice)


def _overstate(path: Path, said: int, lie: int) -> None:
    """Let the directory of a ZIP say that a member is longer."""
    data = path.read_bytes()
    path.write_bytes(data.replace(said.to_bytes(4, "little"), lie.to_bytes(4, "little")))


def test_what_is_not_stored_is_said_and_an_array_of_nothing_is_not_zero(tmp_path: Path) -> None:
    """Zarr gives the fill value for chunks that are lost; an import tells, or leaves them out."""
    path = tmp_path / "holes.zarr"
    shutil.copytree(FIRST, path)
    (path / "attention/pairwise/layer_00/3.0.0").unlink()
    for chunk in (path / "representations/single/layer_01").glob("[0-9]*"):
        chunk.unlink()

    kept = Kept(path)

    assert any("1 of 8 chunks are not stored" in sentence for sentence in kept.findings.odd)
    assert not kept.fields[f"{BLOCKS}0", "pairwise_attention"][3].any()
    assert (f"{BLOCKS}1", "single") not in kept.fields
    assert any("layer_01 has metadata and no values" in one for one in kept.findings.missing)


def test_maps_that_were_made_of_text_are_told(tmp_path: Path) -> None:
    """The archive's writer fills up the 500 strongest entries with zeros; these were measured by
    nobody.
    """
    values = np.zeros((3, 20, 20), np.float32)
    for head in range(3):
        values[head].flat[head : 50 + head] = 0.25
    path = write_zarr(tmp_path / "text.zarr", {"attention/msa_row/layer_0": values})

    kept = Kept(path)

    assert any("50 entries a head that are not 0" in sentence for sentence in kept.findings.odd)


def test_what_is_too_large_at_once_comes_residue_by_residue_or_is_refused(tmp_path: Path) -> None:
    """Triangle attention of all residues grows as the cube: each residue is a sample then."""
    values = np.stack([maps(2, 12, seed) for seed in range(12)])
    path = write_zarr(tmp_path / "all.zarr", {"attention/triangle_start/layer_3": values})

    whole, parts = Kept(path), Kept(path, largest_nbytes=values.nbytes // 2)

    name = f"{BLOCKS}3", "triangle_start_attention"
    assert whole.dims[name] == ("start_residue", "pair_head", "query", "key")
    assert whole.fields[f"{BLOCKS}3", "triangle_start_attention_residues"].tolist() == [*range(12)]
    assert parts.dims[name] == ("sample", "pair_head", "query", "key")
    assert parts.samples == 12
    assert np.array_equal(whole.fields[name], values)
    assert np.array_equal(parts.fields[name], values)
    assert "recorded at once" in refusal(SYNTHETIC / "data.h5", largest_nbytes=1000)


def test_archives_of_image_models_come_with_their_samples(tmp_path: Path) -> None:
    """Two proposals were tried on image models: hidden states and attention of several images."""
    rng = np.random.default_rng(0)
    path = write_zarr(
        tmp_path / "vit.zarr",
        {
            "inputs/processed_image": rng.random((3, 2, 8, 8), np.float32),
            "activations/layer_0/hidden_states": rng.random((3, 5, 7), np.float32),
            "activations/conv1": rng.random((3, 16, 4, 4), np.float32),
            "activations/cls_output": rng.random((3, 7), np.float32),
            "attention/layer_0": np.stack([maps(4, 5, seed) for seed in range(3)]),
            "outputs/logits": rng.random((3, 10), np.float32),
            "outputs/predictions": np.arange(2),
        },
    )
    with_attributes = zarr.open_group(str(path), mode="a")
    with_attributes.attrs.update({"archive_version": "1.0", "model_name": "vit", "loss": np.nan})

    store = open_store(f"memory://{uuid.uuid4().hex}")
    report = import_file("vizfold", path, store, "vit")

    assert report.generation == "vit (zarr)"
    assert report.samples == 3
    with Archive(store) as archive:
        run = archive.run("vit")
        field = run.field("attention", layer="layer.0")
        assert field.dims == ("step", "sample", "head", "query", "key")
        given = field.select({"step": 0, "sample": 2, "head": 1}).array()
        assert np.array_equal(given, maps(4, 5, 2)[1])
        assert run.manifest.metadata["model_name"] == "vit"
        assert run.manifest.metadata["loss"] == "NaN"
        assert run.field("predictions", place=Place.OUTPUTS).dims == ("sample_2",)


def test_a_sweep_keeps_its_entries_as_steps_and_their_files_as_layers(tmp_path: Path) -> None:
    """The best entries of a parameter sweep: scores as coordinates, files with their bytes."""
    path = tmp_path / "sweep.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    text = b"Layer 0, Head 0\n0 1 0.500000\n"
    for at, (name, score) in enumerate((("b-run", 71.5), ("a-run", 80.25))):
        entry = root.create_group(f"best_entries/{name}")
        entry.attrs.update({"score": score, "step_index": at, "params_json": json.dumps({"k": at})})
        file = f"artifacts/attention_maps/files/msa_row_attn_layer{at}.txt/bytes"
        data = np.frombuffer(text * (at + 1), np.uint8)
        entry.create_array(file, shape=data.shape, dtype=data.dtype)[...] = data

    store = open_store(f"memory://{uuid.uuid4().hex}")
    report = import_file("vizfold", path, store, "sweep")

    assert report.generation == "sweep (zarr)"
    assert report.steps == 2
    with Archive(store) as archive:
        run = archive.run("sweep")
        scores = run.ledger.step_coordinates["score"].values
        assert [scores[step] for step in (0, 1)] == [71.5, 80.25]
        assert run.ledger.step_coordinates["entry"].values[1] == "a-run"
        field = run.field("content", layer="attention_maps/msa_row_attn_layer1.txt")
        assert field.select({"step": 1}).array().tobytes() == text * 2
        entries: Any = run.manifest.metadata["best_entries"]
        assert entries["a-run"]["params_json"] == '{"k": 1}'
