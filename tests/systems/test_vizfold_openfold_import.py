"""OpenFold's and ESMFold's files come in with every value, and go out as they were."""

from __future__ import annotations

import json
import pickle
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from archive_schema.store import open_store
from archive_schema.systems.attention_text import (
    attention_text,
    parse_attention_text,
    strongest_of,
)
from recorder.importers import Following, import_file
from server.exporters import MadeFile, export_tree
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from recorder.importers import ImportReport
    from server.query import RunView

REAL: Final = Path(__file__).parents[1] / "data/vizfold"
PICKLE: Final = "predictions/1G1J_1_model_5_output_dict.pkl"
MSA_ROW: Final = "attention_files_1G1J/msa_row_attn_layer0"
FIRST: Final = "evoformer.blocks.0"


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def archive(store: Store) -> Iterator[Archive]:
    with Archive(store) as archive:
        yield archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of 1G1J's folder, without the large pickle."""
    return Path(
        shutil.copytree(REAL / "openfold_1G1J", tmp_path / "1G1J", ignore=lambda *_: {PICKLE[12:]})
    )


def take(path: Path, store: Store, run: str = "run", **how: Any) -> ImportReport:
    return import_file("vizfold", path, store, run, **how)


def tree_of(run: RunView, name: str | None = None) -> dict[str, bytes]:
    return {f.path: b"".join(MadeFile(f).parts()) for f in export_tree(run, name).files}


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def values(
    run: RunView, name: str, layer: str | None = None, place: Place = Place.OUTPUTS, step: int = 0
) -> Any:
    field = run.field(name, layer=layer, place=place)
    return field.select({"step": step} if layer else {}).array()


@pytest.mark.parametrize(("name", "passes"), [("1G1J", 1), ("1UBQ", 2)])
def test_a_folder_comes_back_byte_for_byte(
    name: str, passes: int, store: Store, archive: Archive
) -> None:
    """Text from the dense maps, the maps, representations, structure, sequence, timings."""
    root = REAL / f"openfold_{name}"
    flags = {"passes": "2"} if name == "1UBQ" else {}

    report = take(root, store, flags=flags)
    again = take(root, store, flags=flags)

    run = archive.run("run")
    expected = files_of(root)
    expected.pop(PICKLE, None)
    assert tree_of(run) == expected
    assert run.steps == (passes - 1,)
    assert run.ledger.step_coordinates["recycle"].values == {passes - 1: passes - 1}
    assert run.manifest.metadata["num_recycles"] == passes
    assert run.manifest.metadata["top_k"] == 500
    assert report.files == len(expected) + (name == "1G1J")
    assert any("only the last one" in sentence for sentence in report.odd) == (passes > 1)
    assert report.sealed
    assert again.known


def test_the_pickle_is_taken_over_whole(store: Store, archive: Archive) -> None:
    take(REAL / "openfold_1G1J", store)

    run = archive.run("run")
    with (REAL / "openfold_1G1J" / PICKLE).open("rb") as stream:
        known = pickle.load(stream)
    structure = known.pop("sm")
    known.pop("num_recycles")
    for name, expected in known.items():
        np.testing.assert_array_equal(values(run, name), expected, strict=True)
    for name, expected in structure.items():
        np.testing.assert_array_equal(values(run, name, "structure_module"), expected, strict=True)
    assert run.field("pair", place=Place.OUTPUTS).dims == (
        "row_residue",
        "column_residue",
        "pair_channel",
    )


def test_attention_has_axes_that_cannot_be_mistaken(store: Store, archive: Archive) -> None:
    take(REAL / "openfold_1UBQ", store)

    run = archive.run("run")
    rows = run.field("msa_row_attention", layer=FIRST)
    triangle = run.field("triangle_start_attention", layer=FIRST)
    assert rows.dims == ("step", "msa_head", "query", "key")
    assert rows.shape == (1, 8, 76, 76)
    assert rows.spec.block == (1, 76, 76)  # a head is one range
    assert triangle.dims == ("step", "start_residue", "pair_head", "query", "key")
    assert triangle.shape == (1, 1, 4, 76, 76)
    assert values(run, "triangle_start_attention_residues", FIRST).tolist() == [18]
    assert values(run, "sequence", place=Place.INPUTS)[()].startswith("MQIFVKTLTG")


def test_without_a_word_on_passes_none_is_guessed(store: Store, archive: Archive) -> None:
    report = take(REAL / "openfold_1UBQ", store)

    assert any("no file says how many passes" in sentence for sentence in report.odd)
    assert archive.run("run").steps == (0,)
    assert not archive.run("run").ledger.step_coordinates
    with pytest.raises(InvalidInputError, match="expected a number of passes"):
        take(REAL / "openfold_1UBQ", store, "other", flags={"passes": "none"})


@pytest.mark.parametrize("spelling", ["openfold-tree", "openfold-tree-no-comma"])
def test_text_without_its_dense_twin_stays_sparse(
    spelling: str, folder: Path, store: Store, archive: Archive
) -> None:
    """What lies below the strongest entries is not known, and never zero."""
    for path in folder.rglob("*.npz"):
        path.unlink()
    texts = {}
    for path in folder.rglob("*.txt"):
        data = path.read_bytes()
        if spelling.endswith("no-comma"):
            data = data.replace(b", Head", b" Head")
        path.write_bytes(data)
        texts[str(path.relative_to(folder))] = data

    take(folder, store)

    run = archive.run("run")
    assert {f.spec.name for f in run.fields() if f.spec.layer == FIRST} == {
        "single",
        *(f"msa_row_attention_{part}" for part in ("row", "column", "weight", "count")),
        *(f"triangle_start_attention_mean_{part}" for part in ("row", "column", "weight", "count")),
    }
    assert values(run, "msa_row_attention_weight", FIRST).shape == (8, 500)
    assert {name: data for name, data in tree_of(run, spelling).items() if name in texts} == texts


def test_texts_of_different_lengths_are_padded_with_nothing(
    folder: Path, store: Store, archive: Archive
) -> None:
    for path in folder.rglob("*attn*"):
        path.unlink()
    text = b"Layer 0, Head 0\n3 4 0.500000\n1 2 0.250000\nLayer 0, Head 2\n0 0 0.125000\n"
    (folder / f"{MSA_ROW}.txt").write_bytes(text)

    take(folder, store)

    run = archive.run("run")
    assert values(run, "msa_row_attention_count", FIRST).tolist() == [2, 0, 1]
    assert values(run, "msa_row_attention_row", FIRST).tolist() == [[3, 1], [-1, -1], [0, -1]]
    weights = values(run, "msa_row_attention_weight", FIRST)
    np.testing.assert_array_equal(weights, [[0.5, 0.25], [np.nan] * 2, [0.125, np.nan]])
    assert tree_of(run)[f"{MSA_ROW}.txt"] == text


def test_a_text_and_a_twin_that_disagree_are_both_kept(
    folder: Path, store: Store, archive: Archive
) -> None:
    with np.load(folder / f"{MSA_ROW}.npz") as npz:
        maps = npz["attn"]
    np.savez_compressed(folder / f"{MSA_ROW}.npz", attn=maps / 2)

    report = take(folder, store)

    run = archive.run("run")
    assert any("disagrees, by up to 0.5" in sentence for sentence in report.odd)
    np.testing.assert_array_equal(values(run, "msa_row_attention", FIRST), maps / 2)
    assert tree_of(run)[f"{MSA_ROW}.txt"] == (folder / f"{MSA_ROW}.txt").read_bytes()


def test_residues_known_by_text_only_are_nan_among_the_dense_ones(
    folder: Path, store: Store, archive: Archive
) -> None:
    stem = "attention_files_1G1J/triangle_start_attn_layer0_residue_idx"
    for residue in (30, 7):
        shutil.copy(folder / f"{stem}_avg.txt", folder / f"{stem}_{residue}.txt")
    shutil.copy(folder / f"{stem}_avg.npz", folder / f"{stem}_30.npz")

    report = take(folder, store)

    run = archive.run("run")
    assert any("residues [7] are known by text only" in sentence for sentence in report.odd)
    assert values(run, "triangle_start_attention_residues", FIRST).tolist() == [7, 30]
    maps = values(run, "triangle_start_attention", FIRST)
    assert np.isnan(maps[0]).all()
    assert not np.isnan(maps[1]).any()
    assert values(run, "triangle_start_attention_count", FIRST).tolist() == [[500] * 4, [0] * 4]
    back = tree_of(run)
    for residue in (7, 30):
        assert back[f"{stem}_{residue}.txt"] == (folder / f"{stem}_{residue}.txt").read_bytes()


def test_heads_last_are_turned_and_wide_representations_kept(
    folder: Path, store: Store, archive: Archive
) -> None:
    pair = np.random.default_rng(0).normal(size=(1, 43, 43, 6)).astype(np.float16)
    np.save(folder / "representations/1G1J_pair_layer1.npy", pair)
    with np.load(folder / f"{MSA_ROW}.npz") as npz:
        maps = npz["attn"]
    np.savez_compressed(folder / f"{MSA_ROW}.npz", attn=np.moveaxis(maps, 0, -1))

    report = take(folder, store)

    run = archive.run("run")
    assert any("has its heads last" in sentence for sentence in report.odd)
    np.testing.assert_array_equal(values(run, "msa_row_attention", FIRST), maps)
    kept = values(run, "pair", "evoformer.blocks.1")
    np.testing.assert_array_equal(kept, pair[0], strict=True)


def test_a_damaged_file_costs_itself_only_and_may_be_mended(folder: Path, store: Store) -> None:
    twin = folder / f"{MSA_ROW}.npz"
    whole = twin.read_bytes()
    twin.write_bytes(whole[:-100])

    broken = take(folder, store)
    twin.write_bytes(whole)
    (folder / f"{MSA_ROW}.txt").unlink()
    mended = take(folder, store)

    assert not broken.sealed
    assert any("msa_row_attn_layer0.npz" in sentence for sentence in broken.odd)
    assert mended.sealed
    with Archive(store) as archive:
        run = archive.run("run")
        assert values(run, "msa_row_attention", FIRST).shape == (8, 43, 43)
        assert values(run, "msa_row_attention_weight", FIRST).shape == (8, 500)


def test_a_sealed_run_takes_no_other_files(folder: Path, store: Store) -> None:
    take(folder, store)
    np.save(folder / "representations/1G1J_single_layer1.npy", np.zeros((43, 256), "f4"))

    with pytest.raises(ConflictError) as refused:
        take(folder, store)
    assert refused.value.kind is ErrorKind.RUN_DIFFERS


def test_one_of_several_predictions_is_named(tmp_path: Path, store: Store) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "predictions").mkdir(parents=True)
        (tmp_path / name / "predictions" / f"{name}_1_model_1_unrelaxed.pdb").write_text("END\n")
    together = tmp_path / "a/predictions"
    (together / "c_1_model_1_unrelaxed.pdb").write_text("REMARK\nEND\n")

    with pytest.raises(InvalidInputError, match="found a, b: name one by --part"):
        take(tmp_path, store)
    assert take(tmp_path, store, part="b").files == 1
    with pytest.raises(InvalidInputError, match="found a_1_model_1, c_1_model_1: name one"):
        take(tmp_path / "a", store, "c")
    take(tmp_path / "a", store, "c", part="c_1_model_1")
    with Archive(store) as archive:
        kept = archive.run("c").field("pdb", place=Place.OUTPUTS).select({}).array()
        assert kept.tobytes() == b"REMARK\nEND\n"
        assert archive.run("c").manifest.metadata["protein"] == "c_1"


def test_what_holds_nothing_of_a_prediction_is_no_run(tmp_path: Path, store: Store) -> None:
    (tmp_path / "timings.json").write_text('{"1UBQ_1": {"inference": 1.5}}')

    for path in (tmp_path, tmp_path / "timings.json", tmp_path / "nowhere"):
        with pytest.raises(InvalidInputError, match=r"expected a tree of files|no such file"):
            take(path, store)
    with pytest.raises(InvalidInputError, match="expected no flag attention_axes"):
        take(REAL / "openfold_1G1J", store, flags={"attention_axes": "head,query,key"})
    with pytest.raises(InvalidInputError, match="files of vizfold are not followed"):
        take(REAL / "openfold_1G1J", store, following=Following(lambda: False))
    with Archive(store) as archive, pytest.raises(NotFoundError):
        archive.run("run")


@pytest.mark.parametrize("ending", ["pt", "pickle"])
def test_representations_by_layer_in_one_file(
    ending: str, tmp_path: Path, store: Store, archive: Archive
) -> None:
    generator = torch.manual_seed(0)
    single = torch.randn(5, 7, generator=generator)
    pair = torch.randn(1, 5, 5, 3, generator=generator).half()
    final = torch.randn(2, 5, 4, generator=generator)
    path = tmp_path / f"reps.{ending}"
    if ending == "pt":
        found = {"single_layers": {0: single.t().contiguous().t()}, "pair": {"layer_2": pair}}
        torch.save({**found, "final_msa": final.bfloat16()}, path)
        final = final.bfloat16().float()
    else:
        found = {"single_layers": {0: single.numpy()}, "pair": {"layer_2": pair.numpy()}}
        path.write_bytes(pickle.dumps({**found, "final_msa": final.numpy()}, protocol=3))

    take(path, store)

    run = archive.run("run")
    np.testing.assert_array_equal(values(run, "single", FIRST), single, strict=False)
    kept = values(run, "pair", "evoformer.blocks.2")
    np.testing.assert_array_equal(kept, pair[0].numpy(), strict=True)
    np.testing.assert_array_equal(values(run, "msa"), final.numpy(), strict=True)


def test_output_of_alphafold_goes_by_the_names_of_openfold(
    tmp_path: Path, store: Store, archive: Archive
) -> None:
    """ColabFold's ``single`` has 256 channels; what counts as a recycle is not known."""
    rng = np.random.default_rng(0)
    single, pair = rng.normal(size=(5, 256)).astype("f2"), rng.normal(size=(5, 5, 8)).astype("f2")
    atoms = rng.normal(size=(5, 37, 3))
    given_ = {
        "representations": {"single": single, "pair": pair},
        "structure_module": {"final_atom_positions": atoms, "final_atom_mask": atoms[..., 0]},
        "ptm": np.float32(0.5),
        "plddt": np.arange(5.0),
        "distogram": {"logits": pair, "bin_edges": np.arange(7.0)},
        "num_recycles": 3,
        "name": "model_1",
    }
    (tmp_path / "result_model_1.pkl").write_bytes(pickle.dumps(given_, 4))

    report = take(tmp_path / "result_model_1.pkl", store)

    run = archive.run("run")
    np.testing.assert_array_equal(values(run, "single"), single, strict=True)
    np.testing.assert_array_equal(values(run, "pair"), pair, strict=True)
    np.testing.assert_array_equal(values(run, "final_atom_positions"), atoms, strict=True)
    np.testing.assert_array_equal(values(run, "distogram_logits"), pair, strict=True)
    assert values(run, "distogram_bin_edges").shape == (7,)
    assert values(run, "ptm_score") == np.float32(0.5)
    assert "num_recycles" not in run.manifest.metadata
    assert any("name holds no numbers" in sentence for sentence in report.odd)
    assert any("no file says how many passes" in sentence for sentence in report.odd)


@pytest.fixture
def esmfold(tmp_path: Path) -> Path:
    """Return a folder as the ESMFold backend writes it: 5 residues, 2 layers, 3 passes."""
    generator = torch.manual_seed(1)

    def tensor(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    files = {
        "structure/predicted": tensor(1, 5, 37, 3),
        "trace/trunk/s_s": tensor(5, 8),
        "trace/trunk/s_z": tensor(5, 5, 4),
        "trace/activations/recycle_0_s_s": tensor(5, 8),
    }
    index: dict[str, Any] = {"attention": {}, "activations": {}}
    for layer in range(2):
        name = f"layer_{layer:03d}"
        maps = tensor(1, 3, 5, 5).softmax(-1)
        files[f"trace/attention/{name}"] = maps
        files[f"trace/activations/{name}"] = tensor(1, 5, 6)
        files[f"trace/trunk/block_{layer:03d}_seq"] = tensor(5, 8)
        files[f"trace/trunk/block_{layer:03d}_pair"] = tensor(5, 5, 4)
        text = attention_text(layer, strongest_of(maps[0].numpy(), 10))
        (tmp_path / "attention").mkdir(exist_ok=True)
        (tmp_path / f"attention/msa_row_attn_layer{layer}.txt").write_bytes(text)
        index["attention"][name] = {"path": f"trace/attention/{name}.pt"}
    index["activations"]["layer_007"] = {"path": "trace/activations/layer_007.pt"}
    module = "trace/structure_module"
    for recycle in range(3):
        files[f"{module}/backbone/recycle_{recycle:02d}_positions"] = tensor(8, 1, 5, 14, 3)
        for block in range(2):
            path = f"{module}/ipa_attention/recycle_{recycle:02d}_block_{block:02d}"
            files[path] = tensor(1, 2, 5, 5)
    for path, values_ in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(values_, tmp_path / f"{path}.pt")
    (tmp_path / "trace/index.json").write_text(json.dumps(index))
    meta = {"backend": "esmfold", "model_name": "esmfold_v1", "top_k": 10, "seed": None}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def test_a_trace_of_esmfold(esmfold: Path, store: Store, archive: Archive) -> None:
    report = take(esmfold, store)

    run = archive.run("run")
    assert report.generation == "esmfold"
    assert "trace/activations/layer_007.pt, which trace/index.json names" in report.missing
    assert run.manifest.metadata["num_recycles"] == 3
    assert run.manifest.metadata["model_name"] == "esmfold_v1"

    def saved(path: str) -> Any:
        return torch.load(esmfold / f"trace/{path}.pt").numpy()

    attention = run.field("attention", layer="esm.encoder.layer.1")
    assert attention.dims == ("step", "head", "query", "key")
    np.testing.assert_array_equal(
        attention.select({"step": 0}).array(), saved("attention/layer_001")[0]
    )
    blocks = values(run, "pair", "trunk.blocks.1", step=2)
    np.testing.assert_array_equal(blocks, saved("trunk/block_001_pair"))
    np.testing.assert_array_equal(values(run, "single"), saved("trunk/s_s"))
    ipa = run.field("ipa_attention", layer="trunk.structure_module")
    assert ipa.shape == (3, 2, 2, 5, 5)
    assert not [sentence for sentence in report.odd if "msa_row_attn" in sentence]
    last = saved("structure_module/ipa_attention/recycle_02_block_01")
    np.testing.assert_array_equal(ipa.select({"step": 2}).array()[1], last[0])
    positions = values(run, "positions", "trunk.structure_module", step=1)
    assert positions.shape == (8, 5, 14, 3)
    assert not any("attention_weight" in field.path for field in run.fields())
    texts = {n: d for n, d in tree_of(run).items() if n.endswith(".txt")}
    assert texts == {
        f"attention_files_protein/{path.name}": path.read_bytes()
        for path in (esmfold / "attention").iterdir()
    }


@given(
    arrays(np.float32, (2, 4, 4), elements=st.floats(0, 1, width=16)),
    st.integers(1, 20),
    st.booleans(),
)
def test_text_is_read_as_it_was_written(maps: Any, top_k: int, comma: bool) -> None:  # noqa: FBT001
    found = strongest_of(maps, top_k)
    text = attention_text(3, found, comma=comma)

    parsed = parse_attention_text(text)

    assert (parsed.layer, parsed.comma) == (3, comma)
    assert attention_text(3, parsed.strongest, comma=comma) == text
    order = np.argsort(maps[1].ravel(), kind="stable")[::-1][:top_k]
    np.testing.assert_array_equal(found.row[1] * 4 + found.column[1], order)
