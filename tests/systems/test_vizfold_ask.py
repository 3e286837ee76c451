"""VizFold's questions: attention by kind, layer, head and residue, whole or its strongest."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from archive_schema.store import open_store
from recorder.importers import import_file
from recorder.recorder import TraceRecorder
from tests.server_fixture import served
from tests.systems.vizfold_archives import FIRST, arrays_of, maps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from archive_schema.store import Store

TOP_K = 12
LENGTH = 9
RESIDUES = (2, 7)


def entries(values: NDArray[Any], count: int) -> tuple[NDArray[Any], ...]:
    """Return row, column and weight of the strongest entries of each head, as text files do."""
    flat = values.reshape(len(values), -1)
    order = np.argsort(flat, axis=1)[:, ::-1][:, :count]
    rows, columns = order // values.shape[-1], order % values.shape[-1]
    return rows.astype(np.int32), columns.astype(np.int32), np.take_along_axis(flat, order, axis=1)


@pytest.fixture(scope="module")
def held() -> Store:
    """Open an empty store for the runs of this module."""
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def url(held: Store) -> Iterator[str]:
    """Serve an archive, and a run with two passes, chosen residues and text-only attention."""
    store = held
    import_file("vizfold", FIRST, store, "first")
    about = {"protein": "1ABC", "model": "openfold", "config": "model_5"}
    with TraceRecorder(store, run="mixed", system="vizfold", metadata=about) as recorder:
        recorder.inputs(sequence=np.array("ACDEFGHIK"))
        for recycle in range(2):
            recorder.record(recycle, recycle=recycle)
            for block in (0, 2):
                recorder.record(
                    recycle,
                    layer=f"evoformer.blocks.{block}",
                    msa_row_attention=maps(8, LENGTH, 10 * recycle + block),
                    triangle_start_attention=np.stack([maps(4, LENGTH, r) for r in RESIDUES]),
                    triangle_start_attention_residues=np.array(RESIDUES, np.int32),
                    single=np.full((LENGTH, 6), block - 3.0, np.float32),
                )
        rows, columns, weights = entries(maps(4, LENGTH, 5), TOP_K)
        counts = np.array([TOP_K, TOP_K, 3, 0], np.int32)
        for head, count in enumerate(counts):
            rows[head, count:], columns[head, count:], weights[head, count:] = -1, -1, np.nan
        name = "triangle_end_attention_mean"
        parts: dict[str, Any] = {"row": rows, "column": columns, "weight": weights, "count": counts}
        recorder.record(
            1, layer="evoformer.blocks.2", **{f"{name}_{part}": v for part, v in parts.items()}
        )
        recorder.record(1, layer="esm.layers.2", attention=maps(3, LENGTH, 8))
        recorder.record(1, layer="esm.encoder.layer.2", attention=maps(3, LENGTH, 9))
    with TraceRecorder(store, run="generic", system="generic") as recorder:
        recorder.record(0, value=np.ones((1, 2)))
    with served(held.url, max_answer_bytes=4000) as base:
        yield f"{base}/runs"


def matrix(url: str, query: str) -> NDArray[Any]:
    """Return the answer as an array."""
    answer = httpx.get(f"{url}{query}", headers={"Accept": "application/x-npy"})
    assert answer.is_success, answer.text
    found: NDArray[Any] = np.load(io.BytesIO(answer.content))
    return found


def triplets(url: str, query: str) -> list[tuple[int, int, float]]:
    """Return the answer as (src, dst, weight)."""
    answer = httpx.get(f"{url}{query}")
    assert answer.is_success, answer.text
    found = answer.json()["coordinates"]
    return list(zip(found["src"], found["dst"], found["weight"], strict=True))


def detail(url: str, query: str, status: int) -> str:
    """Return why a question is refused."""
    answer = httpx.get(f"{url}{query}")
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def test_what_there_is_to_ask_for_is_told_as_the_offline_reader_tells_it(url: str) -> None:
    """Types, layers, heads, residues, passes, and what is known of the model."""
    told = httpx.get(f"{url}/mixed/vizfold").json()

    assert told["protein_id"] == "1ABC"
    assert told["sequence"] == "ACDEFGHIK"
    assert told["attention_types"] == ["attention", "msa_row", "triangle_end", "triangle_start"]
    assert told["layers_by_type"]["msa_row"] == [0, 2]
    assert told["heads_by_type"]["msa_row"]["2"] == list(range(8))
    assert told["heads_by_type"]["triangle_end"]["2"] == list(range(4))
    assert told["residue_indices_by_type"] == {"triangle_start": {"0": [2, 7], "2": [2, 7]}}
    assert told["sparse_types"] == ["triangle_end"]
    assert told["recycles"] == [0, 1]
    assert told["model_family"] == "openfold"
    assert told["model_version"] == "model_5"
    assert not told["structure_available"]
    assert told["capabilities"] == ["metadata", "partial_loading", "attention"]
    assert "layers/evoformer.blocks.0/msa_row_attention" in told["extras"]["arrays"]
    first = httpx.get(f"{url}/first/vizfold").json()
    assert first["structure_available"]
    assert first["heads_by_type"]["pairwise"]["1"] == list(range(8))
    assert "system 'vizfold'" in detail(url, "/generic/vizfold", 422)


def test_a_map_is_found_by_kind_layer_head_residue_and_pass(url: str) -> None:
    """In all formats of slices; a head or the mean of all, whole or a window."""
    ask = "/mixed/vizfold/attention"

    assert np.array_equal(matrix(url, f"{ask}/msa_row?layer=2&head=3"), maps(8, LENGTH, 12)[3])
    named = f"{ask}/msa_row_attention?layer=evoformer.blocks.2&head=-1&recycle=0"
    assert np.array_equal(matrix(url, named), maps(8, LENGTH, 2)[-1])
    of_residue = f"{ask}/triangle_start?layer=0&head=1&residue=7&recycle=-2"
    assert np.array_equal(matrix(url, of_residue), maps(4, LENGTH, 7)[1])
    window = f"{ask}/msa_row?layer=0&head=mean&queries=2:5&keys=1"
    mean = maps(8, LENGTH, 10).mean(axis=0, dtype=np.float64).astype(np.float32)
    assert np.array_equal(matrix(url, window), mean[2:5, 1])
    document = httpx.get(f"{url}{ask}/msa_row?layer=2").json()
    assert document["dims"] == ["query", "key"]
    raw = httpx.get(f"{url}{ask}/msa_row?layer=2&head=0&format=raw")
    assert raw.content == maps(8, LENGTH, 12)[0].tobytes()
    again = httpx.get(str(raw.url), headers={"If-None-Match": raw.headers["ETag"]})
    assert again.status_code == 304
    real = arrays_of(FIRST)["attention/pairwise/layer_01"]
    part = "/first/vizfold/attention/pairwise?layer=1&head=6&queries=:20&keys=30:"
    assert np.array_equal(matrix(url, part), real[6, :20, 30:])
    rows = httpx.get(f"{url}{part}&format=csv").text.splitlines()
    assert rows[1].startswith("0,30,")


def test_strongest_entries_of_maps_are_exact_and_in_order(url: str) -> None:
    """(src, dst, weight), strongest first; as many as asked for, or as strong."""
    values = maps(8, LENGTH, 12)[3]
    ordered = np.sort(values.ravel())[::-1]

    found = triplets(url, "/mixed/vizfold/attention/msa_row?layer=2&head=3&top=7")
    above = triplets(url, f"/mixed/vizfold/attention/msa_row?layer=2&head=3&threshold={ordered[4]}")

    assert [weight for _, _, weight in found] == pytest.approx(ordered[:7].tolist())
    assert all(values[row, column] == np.float32(weight) for row, column, weight in found)
    assert len(above) == 5
    table = httpx.get(f"{url}/mixed/vizfold/attention/msa_row?layer=2&top=2&format=csv").text
    assert table.splitlines()[0] == '"rank","src","dst","weight"'


def test_what_was_recorded_as_text_answers_as_far_as_it_reaches_and_never_with_zeros(
    url: str,
) -> None:
    """Top k is exact up to what is stored; a threshold above the weakest is, too; no map is."""
    ask = "/mixed/vizfold/attention/triangle_end?layer=2"
    rows, columns, weights = entries(maps(4, LENGTH, 5), TOP_K)

    found = triplets(url, f"{ask}&head=1&top={TOP_K}")
    above = triplets(url, f"{ask}&head=1&threshold={weights[1, 5]}")

    assert found == list(
        zip(rows[1].tolist(), columns[1].tolist(), weights[1].tolist(), strict=True)
    )
    assert len(above) == 6
    assert len(triplets(url, f"{ask}&head=2&top=3")) == 3
    assert "only the 12 strongest" in detail(url, f"{ask}&head=1&top=13", 404)
    assert "only the 3 strongest" in detail(url, f"{ask}&head=2&top=4", 404)
    assert "only the 0 strongest" in detail(url, f"{ask}&head=3&top=1", 404)
    assert "all of them" in detail(url, f"{ask}&head=1&threshold=0", 404)
    assert "not zero" in detail(url, f"{ask}&head=1", 404)
    assert "not zero" in detail(url, f"{ask}&head=mean&top=3", 404)


def test_what_is_not_there_is_named_with_what_is(url: str) -> None:
    """Kinds, layers, heads, residues, passes; and a number that two models have."""
    ask = "/mixed/vizfold/attention"

    assert "expected one of attention, msa_row" in detail(url, f"{ask}/column?layer=0", 404)
    assert "evoformer.blocks.0" in detail(url, f"{ask}/msa_row?layer=7", 404)
    assert "recorded: 0, 1, 2, 3, 4" in detail(url, f"{ask}/msa_row?layer=0&head=8", 404)
    assert "a number or 'mean'" in detail(url, f"{ask}/msa_row?layer=0&head=x", 422)
    assert "say residue=" in detail(url, f"{ask}/triangle_start?layer=0", 404)
    assert "recorded: 2, 7" in detail(url, f"{ask}/triangle_start?layer=0&residue=3", 404)
    assert "map of all residues" in detail(url, f"{ask}/msa_row?layer=0&residue=3", 404)
    assert "no pass 5; recorded: 0, 1" in detail(url, f"{ask}/msa_row?layer=0&recycle=5", 404)
    assert "say its whole name" in detail(url, f"{ask}/attention?layer=2", 422)
    assert matrix(url, f"{ask}/attention?layer=esm.layers.2&head=0").shape == (LENGTH, LENGTH)
    assert "leave out queries=" in detail(url, f"{ask}/msa_row?layer=0&top=3&queries=1", 422)
    assert httpx.get(f"{url}{ask}/msa_row?layer=0&heads=1").status_code == 422


def test_too_much_at_once_is_refused_by_its_size_before_it_is_read(url: str) -> None:
    """Attention grows as the square, or as the cube."""
    message = detail(url, "/first/vizfold/attention/pairwise?layer=0", 413)

    assert f"{43 * 43 * 4:,} bytes" in message
    assert "4,000" in message
    generic = "/first/steps/0/layers/evoformer.blocks.0/pairwise_attention?format=npy"
    assert f"{8 * 43 * 43 * 4:,} bytes" in detail(url, generic, 413)


def test_statistics_are_those_of_esmfolds_summary(url: str) -> None:
    """Mean, deviation, entropy and sparsity of attention; norm, mean, deviation of the rest."""
    told = httpx.get(f"{url}/mixed/vizfold/summary?recycle=0").json()

    assert told["recycle"] == 0
    values = maps(8, LENGTH, 2).astype(np.float64)
    entropy = -np.sum(values * np.log(values + 1e-12), axis=-1).mean()
    assert told["attention"]["evoformer.blocks.2/msa_row_attention"] == pytest.approx(
        {
            "mean": values.mean(),
            "std": values.std(),
            "entropy_proxy": entropy,
            "sparsity_proxy": (values < 1e-5).mean(),
        }
    )
    assert told["activations"]["evoformer.blocks.0/single"] == pytest.approx(
        {"norm_mean": 3, "mean": -3, "std": 0}
    )
    some = httpx.get(f"{url}/mixed/vizfold/summary?layers=esm.layers.2").json()
    assert list(some["attention"]) == ["esm.layers.2/attention"]
    assert not some["activations"]


def test_passes_without_a_number_have_none_and_chosen_heads_keep_theirs(
    url: str, held: Store
) -> None:
    """Files of OpenFold do not always say how many passes there were; hooks can choose heads."""
    with TraceRecorder(held, run="unnumbered", system="vizfold") as recorder:
        layer = "evoformer.blocks.0"
        recorder.declare("pairwise_attention", layer=layer, attributes={"heads": [2, 5]})
        recorder.record(0, layer=layer, pairwise_attention=maps(2, LENGTH))

    assert httpx.get(f"{url}/unnumbered/vizfold").json()["recycles"] == []
    ask = "/unnumbered/vizfold/attention/pairwise?layer=0&head=5"
    assert np.array_equal(matrix(url, ask), maps(2, LENGTH)[1])
    assert "recorded: 2, 5" in detail(url, ask.replace("=5", "=1"), 404)
    mean = matrix(url, ask.replace("=5", "=mean"))
    assert mean == pytest.approx(maps(2, LENGTH).mean(axis=0))
    assert "none is numbered" in detail(url, f"{ask}&recycle=0", 404)
    assert httpx.get(f"{url}/unnumbered/vizfold/summary").json()["recycle"] is None
