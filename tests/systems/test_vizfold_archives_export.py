"""Runs of VizFold come back in the layouts of its archive proposals, equal in all that is read."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from typing import TYPE_CHECKING

import h5py
import httpx
import numpy as np
import pytest

from archive_schema.store import open_store
from recorder.importers import import_file
from recorder.recorder import TraceRecorder
from tests.server_fixture import served
from tests.systems.vizfold_archives import FIRST, SYNTHETIC, arrays_of, maps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from archive_schema.store import Store

LARGE = np.random.default_rng(1).random((100, 100, 128), np.float32)
"""More than a chunk takes."""
EACH = np.stack([maps(2, 6, residue) for residue in range(6)])
"""Maps of all residues."""


@pytest.fixture(scope="module")
def held() -> Store:
    """Open an empty store for the runs of this module."""
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def url(held: Store) -> Iterator[str]:
    """Serve real archives, and a run of several passes in half precision."""
    store = held
    import_file("vizfold", SYNTHETIC / "data.zarr", store, "synthetic")
    import_file("vizfold", FIRST, store, "first")
    with TraceRecorder(store, run="passes", system="vizfold", metadata={"model": "m"}) as recorder:
        recorder.inputs(sequence=np.array("AC:DEF"))
        for recycle in range(2):
            recorder.record(recycle, recycle=recycle)
            for block in (0, 3):
                layer = f"evoformer.blocks.{block}"
                single = np.full((5, 6), 10 * recycle + block, np.float16)
                recorder.record(recycle, layer=layer, single=single)
            recorder.record(
                recycle,
                layer="evoformer.blocks.3",
                msa_row_attention=maps(8, 5, recycle),
                triangle_start_attention=np.stack([maps(4, 5, n) for n in range(2)]),
                triangle_start_attention_residues=np.array([1, 4], np.int32),
            )
        positions = np.arange(5 * 37 * 3, dtype=np.float32).reshape(5, 37, 3)
        mask = np.ones((5, 37), np.float32)
        mask[2] = 0
        plddt = np.linspace(0, 100, 5, dtype=np.float32)
        recorder.outputs(final_atom_positions=positions, final_atom_mask=mask, plddt=plddt)
    with TraceRecorder(store, run="bare", system="vizfold") as recorder:
        recorder.inputs(sequence=np.array("ACD"))
        recorder.outputs(pdb=np.frombuffer(b"HEADER    X\nEND\n", np.uint8))
    layer = "evoformer.blocks.1"
    with TraceRecorder(store, run="large", system="vizfold") as recorder:
        recorder.record(0, layer=layer, pair=LARGE, triangle_start_attention=EACH)
    with served(held.url) as base:
        yield f"{base}/runs"


def test_hdf5_is_what_archiveformat_writes(url: str) -> None:
    """Groups, names, dtypes, values; contiguous, uncompressed, and without attributes."""
    made = h5py.File(io.BytesIO(httpx.get(f"{url}/synthetic.h5").content))
    real = h5py.File(SYNTHETIC / "data.h5")
    with made, real:
        expected: dict[str, h5py.Dataset] = {}
        real.visititems(lambda name, item: expected.setdefault(name, item) and None)
        found: dict[str, h5py.Dataset] = {}
        made.visititems(lambda name, item: found.setdefault(name, item) and None)

        assert found.keys() == expected.keys()
        for name, item in expected.items():
            assert type(found[name]) is type(item)
            assert not found[name].attrs
            if isinstance(item, h5py.Dataset):
                assert found[name].dtype == item.dtype
                assert found[name].chunks is item.chunks is None
                assert np.array_equal(found[name][()], item[()])


def test_npz_is_what_archiveformat_writes(url: str) -> None:
    """Stored, and deflated as upstream's."""
    real = np.load(SYNTHETIC / "data.npz")
    for query in ("", "?compression=deflate"):
        made = np.load(io.BytesIO(httpx.get(f"{url}/synthetic.npz{query}").content))

        assert sorted(made) == sorted(real)
        for name in real:
            assert made[name].dtype == real[name].dtype
            assert np.array_equal(made[name], real[name])
    real.close()


def test_a_run_of_several_passes_gives_its_last_in_single_precision(url: str) -> None:
    """The layout holds one pass and one attention; what is left out is said, half becomes float."""
    answer = httpx.get(f"{url}/passes.npz")
    made = np.load(io.BytesIO(answer.content))

    assert made["act_3_single"].dtype == np.float32
    assert (made["act_3_single"] == 13).all()
    assert np.array_equal(made["attn_3"], maps(8, 5, 1))
    assert made["coords"].shape == (5, 3)
    assert made["coords"][1].tolist() == [114.0, 115.0, 116.0]
    assert made["conf"][-1] == 100
    notes = answer.headers["X-Trace-Notes"]
    assert "of 2 passes the last one" in notes
    assert "triangle_start_attention" in notes
    first = np.load(io.BytesIO(httpx.get(f"{url}/passes.npz?steps=0").content))
    assert (first["act_3_single"] == 3).all()
    refused = httpx.get(f"{url}/bare.h5")
    assert refused.status_code == 406
    assert "generic-h5" in refused.json()["detail"]


def test_a_zip_of_vizfold_1_0_is_the_archive_that_came(
    url: str, held: Store, tmp_path: Path
) -> None:
    """The same tree of Zarr 2: paths, shapes, dtypes, codecs, values; and it is imported again."""
    made = _unzipped(httpx.get(f"{url}/first/export?format=vizfold-zarr").content, tmp_path)

    expected, found = arrays_of(FIRST), arrays_of(made)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name].reshape(values.shape), values), name
        documents = [
            json.loads((root / name / ".zarray").read_text("utf-8")) for root in (FIRST, made)
        ]
        if name != "structure/ptm":  # of one value there, of none here
            for about in documents:
                if "representations" in name:
                    del about["chunks"]  # whole where they are not large, instead of guessed
            assert documents[0] == documents[1], name
    assert (made / ".zgroup").read_bytes() == (FIRST / ".zgroup").read_bytes()
    chunk = "attention/pairwise/layer_01/7.0.0"
    assert (made / chunk).read_bytes() == (FIRST / chunk).read_bytes()
    zipped = tmp_path / "again.zip"
    zipped.write_bytes(httpx.get(f"{url}/first/export?format=vizfold-zarr").content)
    report = import_file("vizfold", zipped, held, "again")
    assert report.generation == "vizfold-1.0 (zarr)"


def test_a_zip_holds_the_pass_that_was_asked_for(url: str, tmp_path: Path) -> None:
    """Maps of single residues have no place in it, which is said."""
    answer = httpx.get(f"{url}/passes/export?format=vizfold-zarr&steps=0")
    found = arrays_of(_unzipped(answer.content, tmp_path))

    assert (found["representations/single/layer_03"] == 3).all()
    assert found["representations/single/layer_00"].dtype == np.float16
    assert np.array_equal(found["attention/msa_row/layer_03"], maps(8, 5, 0))
    assert str(found["metadata/sequence"]) == "AC:DEF"
    assert found["metadata/num_residues"] == 5
    assert found["metadata/num_recycles"] == 2
    assert not any("triangle_start" in name for name in found)
    assert "triangle_start_attention" in answer.headers["X-Trace-Notes"]


def test_large_arrays_are_cut_into_chunks_and_maps_of_all_residues_are_kept(
    url: str, held: Store, tmp_path: Path
) -> None:
    """Zarr 2 fills up the last chunk; who reads it sees no more than the array."""
    answer = httpx.get(f"{url}/large/export?format=vizfold-zarr")
    made = _unzipped(answer.content, tmp_path)
    found = arrays_of(made)

    assert np.array_equal(found["representations/pair/layer_01"], LARGE)
    assert len(list((made / "representations/pair/layer_01").glob("[0-9]*"))) == 2
    assert np.array_equal(found["attention/triangle_start/layer_01"], EACH)
    import_file("vizfold", made, held, "large-again")
    query = "vizfold/attention/triangle_start?layer=1&head=1&residue=4&format=raw"
    for run in ("large", "large-again"):
        assert httpx.get(f"{url}/{run}/{query}").content == EACH[4, 1].tobytes()


def test_a_structure_is_pdb_as_recorded_or_of_its_alpha_carbons(url: str) -> None:
    """Columns are those of the format; atoms that the mask lacks are not invented."""
    recorded = httpx.get(f"{url}/bare/vizfold/structure")
    answer = httpx.get(f"{url}/passes/export?format=pdb")

    assert recorded.text == "HEADER    X\nEND\n"
    assert recorded.headers["content-type"] == "chemical/x-pdb"
    lines = answer.text.splitlines()
    assert [line[17:26] for line in lines[:-1]] == [
        "ALA A   1",
        "CYS A   2",
        "GLU B   2",
        "PHE B   3",
    ]
    values = [tuple(float(line[at : at + 8]) for at in (30, 38, 46)) for line in lines[:-1]]
    assert values[1] == (114.0, 115.0, 116.0)
    assert {len(line) for line in lines[:-1]} == {80}
    assert float(lines[1][60:66]) == 25
    assert "alpha carbons" in answer.headers["X-Trace-Notes"]
    assert httpx.get(f"{url}/passes/vizfold/structure").text == answer.text
    missing = httpx.get(f"{url}/synthetic/export?format=pdb")
    assert missing.is_success


def _unzipped(data: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
    (found,) = folder.glob("*.zarr")
    return found
