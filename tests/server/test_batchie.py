"""BATCHIE's answers, held against what its own code gives of the same files."""

from __future__ import annotations

import csv
import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import httpx
import numpy as np
import pytest

from archive_schema.store import open_store
from recorder.importers import import_file
from recorder.recorder import TraceRecorder
from tests.importers.batchie_files import (
    lower_triangle,
    plate_folder,
    write_distances,
    write_plate,
    write_scores,
    write_screen,
    write_thetas,
)
from tests.server_fixture import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

REAL = Path(__file__).parents[1] / "data/batchie/retrospective_sim"
FIRST = REAL / "iter_0/plate_0/unmasked_screen"


@pytest.fixture(scope="module")
def odd_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a simulation whose chunks are incomplete, repeated and at odds."""
    root = tmp_path_factory.mktemp("odd")
    folder = plate_folder(root, 0, 0)
    write_plate(folder, plates=("Platte Ä", "p2", "p3"))
    write_thetas(folder / "thetas_1.h5", 12, drifting=True)
    write_thetas(folder / "thetas_10.h5", 1)
    pairs = lower_triangle(4)
    write_distances(folder / "distance_matrix_chunk_0.h5", 4, pairs[:3])
    write_distances(folder / "distance_matrix_chunk_1.h5", 4, pairs[1:4])
    write_distances(folder / "distance_matrix_chunk_2.h5", 4, [pairs[0], (2, 2), (9, 1)], offset=1)
    write_scores(folder / "score_chunk_1.h5", {2: 0.5})
    return root


@pytest.fixture(scope="module")
def url(odd_tree: Path) -> Iterator[str]:
    """Serve the simulations as ``real`` and ``odd``, and a run of another system."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    import_file("batchie", REAL, store, "real")
    import_file("batchie", odd_tree, store, "odd")
    with TraceRecorder(store, run="other") as recorder:
        recorder.record(0, x=np.zeros(3))
    with served(store.url) as base:
        yield f"{base}/runs"


def array(url: str) -> NDArray[Any]:
    answer = httpx.get(url, params={"format": "npy"} if "?" not in url else None)
    answer.raise_for_status()
    found: NDArray[Any] = np.load(io.BytesIO(answer.content))
    return found


def document(url: str) -> Any:
    return httpx.get(url).raise_for_status().json()


def to_dense(paths: list[Path]) -> NDArray[np.float64]:
    """Do as `ChunkedDistanceMatrix.concat` and `to_dense` do: the first of a pair counts."""
    values: dict[tuple[int, int], float] = {}
    for path in paths:
        with h5py.File(path) as file:
            size = int(file["size"][0])
            triples = zip(file["row_indices"], file["col_indices"], file["values"], strict=True)
            for row, column, value in triples:
                values.setdefault((row, column), value)
    if len(values) != size * (size - 1) // 2:
        raise ValueError("the distance matrix is not complete")
    dense = np.zeros((size, size))
    for (row, column), value in values.items():
        dense[row, column] = dense[column, row] = value
    return dense


@pytest.mark.parametrize("step", [0, 1, 2])
def test_distances_are_what_concat_and_to_dense_give(url: str, step: int) -> None:
    """Later plates of an iteration go by the same model, and the same distances."""
    expected = to_dense(sorted(FIRST.glob("distance_matrix_chunk_*.h5")))

    assert np.array_equal(array(f"{url}/real/batchie/steps/{step}/distances"), expected)
    part = array(f"{url}/real/batchie/steps/{step}/distances?rows=1:4&columns=-1&format=npy")
    assert np.array_equal(part, expected[1:4, -1])


def test_the_report_says_that_distances_are_complete(url: str) -> None:
    report = document(f"{url}/real/batchie/steps/2/distances/report")

    assert (report["complete"], report["step"], report["pairs"]) == (True, 0, 15)
    assert report["thetas"] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_what_is_wrong_with_distances_is_told_and_absent_is_no_zero(url: str) -> None:
    report = document(f"{url}/odd/batchie/steps/0/distances/report")
    answer = httpx.get(f"{url}/odd/batchie/steps/0/distances?format=npy")
    dense = np.load(io.BytesIO(answer.content))

    assert (report["complete"], report["pairs"], report["pairs_wanted"]) == (False, 4, 6)
    assert report["missing"] == [[3, 1], [3, 2]]
    assert (report["repeated"], report["differing"]) == (2, [[1, 0]])
    assert "beyond the 4 thetas" in report["notes"][0]
    assert "to itself, 1 of them not zero" in report["notes"][1]
    assert np.isnan([dense[3, 1], dense[1, 3]]).all()
    assert dense[1, 0] == 10 / 7  # the first that came
    assert dense[2, 2] == 0
    assert "2 pairs are missing, and NaN" in answer.headers["X-Trace-Notes"]


def holder(path: Path) -> list[dict[str, Any]]:
    """Do as `ThetaHolder.load_h5` does, but for the import of the class: draws by number."""
    with h5py.File(path) as file:
        private = file["private_params"]
        return [
            {**private[draw].attrs, **{k: v[()] for k, v in private[draw].items()}}
            for draw in sorted(private, key=int)
        ]


@pytest.mark.parametrize("name", ["W", "W0", "V0", "V1", "V2", "alpha", "precision"])
def test_thetas_are_stacked_by_chain_and_draw(url: str, name: str) -> None:
    chains = [holder(path) for path in sorted(FIRST.glob("thetas_*.h5"))]
    expected = np.array([[theta[name] for theta in chain] for chain in chains])

    found = array(f"{url}/real/batchie/steps/1/thetas/{name}")

    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    one = array(f"{url}/real/batchie/steps/1/thetas/{name}?chain=1&draws=::-1&format=npy")
    assert np.array_equal(one, expected[1, ::-1])


def test_draws_and_chains_come_by_number_and_short_chains_end_with_nan(
    url: str, odd_tree: Path
) -> None:
    """Draw 10 comes after draw 9 and chain 10 after chain 1, whatever their names sort like."""
    known = document(f"{url}/odd/batchie/steps/0/thetas")
    found = array(f"{url}/odd/batchie/steps/0/thetas/W")
    alpha = array(f"{url}/odd/batchie/steps/0/thetas/alpha?chain=1&format=npy")
    folder = plate_folder(odd_tree, 0, 0)

    assert [(c["chain"], c["draws"]) for c in known["chains"]] == [(0, 2), (1, 12), (10, 1)]
    assert (known["private"], known["shared"]) == (
        ["alpha", "precision", "V0", "W"],
        ["single_effect_lookup_vals"],
    )
    assert known["theta_module"] == "a_module.that_must.never_be_imported"
    assert found.shape == (3, 12, 2, 3)
    assert np.array_equal(found[1], [theta["W"] for theta in holder(folder / "thetas_1.h5")])
    assert np.isnan(found[0, 2:]).all()
    assert alpha.dtype == np.float64  # in some draws; none of them loses anything
    assert alpha.tolist() == [float(t["alpha"]) for t in holder(folder / "thetas_1.h5")]
    shared = array(f"{url}/odd/batchie/steps/0/thetas/single_effect_lookup_vals")
    assert shared.tolist() == [0, 1, 2]


def get_score(paths: list[Path], plate: int) -> float:
    """Do as `ChunkedScoresHolder.concat` and `get_score` do: exactly one match."""
    ids, scores = [], []
    for path in paths:
        with h5py.File(path) as file:
            ids += file["plate_ids"][()].tolist()
            scores += file["scores"][()].tolist()
    (at,) = [at for at, one in enumerate(ids) if one == plate]
    return float(scores[at])


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_scores_are_told_by_the_names_of_plates(url: str, step: int) -> None:
    folder = [(0, 0), (0, 1), (0, 2), (1, 0)][step]
    path = REAL / f"iter_{folder[0]}/plate_{folder[1]}/unmasked_screen"
    with h5py.File(path / "advanced_screen.h5") as file:
        names = dict(zip(file["plate_ids"], file["plate_names"].asstr(), strict=True))
        seen = dict(zip(file["plate_ids"], file["observation_mask"], strict=True))

    answer = httpx.get(f"{url}/real/batchie/steps/{step}/scores?format=csv").raise_for_status()
    rows = list(csv.DictReader(io.StringIO(answer.text)))

    assert {int(row["plate_id"]): row["plate_name"] for row in rows} == names
    assert {int(row["plate_id"]): row["observed"] == "true" for row in rows} == seen
    scored = [row for row in rows if row["score"]]
    for row in scored:
        assert float(row["score"]) == get_score(
            list(path.glob("score_chunk_*.h5")), int(row["plate_id"])
        )
    (selected,) = [row["plate_id"] for row in rows if row["selected"] == "true"]
    assert selected == (path / "selected_plate").read_text()
    best = min(scored, key=lambda row: float(row["score"]))
    assert (best["rank"], best["plate_id"]) == ("0", selected)


def test_a_plate_that_is_scored_twice_has_no_score(url: str) -> None:
    table = document(f"{url}/odd/batchie/steps/0/scores")["coordinates"]

    assert table["plate_name"] == ["Platte Ä", "p2", "p3"]
    assert table["score"] == [None, 0.5, None]
    assert table["times_scored"] == [0, 1, 2]


def test_errors_are_batchies_and_a_warning_tells_what_they_are_of(url: str) -> None:
    table = document(f"{url}/real/batchie/evaluations")

    assert table["index"] == [0, 3]
    for at, iteration in enumerate((0, 1)):
        path = REAL / f"iter_{iteration}/plate_0/unmasked_screen/model_evaluation_analysis"
        for name, value in json.loads((path / "summary_statistics.json").read_text()).items():
            assert table["coordinates"][name][at] == pytest.approx(value, rel=1e-12)
    assert table["coordinates"]["rows_from"] == [
        "iter_0/plate_0/test.screen",
        "iter_0/plate_0/training.screen",
    ]
    assert table["coordinates"]["warning"][0] is None
    assert "trained on" in table["coordinates"]["warning"][1]
    assert "trained on" in document(f"{url}/real/batchie/steps/3/evaluation")["warning"]


def test_predictions_are_taken_by_chain_draw_and_sample(url: str) -> None:
    with h5py.File(FIRST / "model_evaluation.h5") as file:
        values, names = file["predictions"][()], file["sample_names"].asstr()[()]
    calls = f"{url}/real/batchie/steps/0/predictions"

    assert np.array_equal(array(calls), values.reshape(4, 2, 3))
    assert np.array_equal(array(f"{calls}?chain=1&draws=1&format=npy"), values[:, 4])
    found = array(f"{calls}?sample_name=sample_A&format=npy")
    assert np.array_equal(found, values[names == "sample_A"].reshape(-1, 2, 3))


def test_masked_observations_are_hidden_if_asked(url: str) -> None:
    calls = f"{url}/real/batchie/steps/0/screens/advanced_screen"
    shown, hidden = (document(f"{calls}{q}")["coordinates"] for q in ("", "?masked=hide"))

    assert None not in shown["observation"]
    observed = shown["observed"]
    pairs = zip(shown["observation"], observed, strict=True)
    assert hidden["observation"] == [value if seen else None for value, seen in pairs]
    assert False in observed
    assert shown["control_1"] == [name == "control" for name in shown["treatment_name_1"]]


def test_the_tree_is_given_back_as_a_zip_and_file_by_file(url: str) -> None:
    names = [one["path"] for one in document(f"{url}/real/files")["files"]]
    answer = httpx.get(f"{url}/real/export?format=batchie-tree").raise_for_status()
    name = "iter_0/plate_0/unmasked_screen/selected_plate"
    single = httpx.get(f"{url}/real/files/{name}")
    again = {"If-None-Match": single.headers["ETag"]}

    with zipfile.ZipFile(io.BytesIO(answer.content)) as opened:
        assert opened.namelist() == names
        assert opened.testzip() is None
        assert opened.read(name) == single.content == b"4"
    assert answer.headers["Content-Type"] == "application/zip"
    assert httpx.get(f"{url}/real/files/{name}", headers=again).status_code == 304
    assert httpx.head(f"{url}/real/files/{name}").headers["Content-Length"] == "1"
    assert httpx.get(f"{url}/real/files/{name}").headers["Cache-Control"].endswith("immutable")
    cut = httpx.get(f"{url}/real/export?format=batchie-tree&steps=3")
    with zipfile.ZipFile(io.BytesIO(cut.content)) as opened:
        assert {name.split("/")[0] for name in opened.namelist()} == {"iter_1"}
    named = httpx.get(f"{url}/real/export?format=batchie-tree&iter=1&plate=0")
    assert named.headers["ETag"] == cut.headers["ETag"]
    assert named.content == cut.content


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("other/batchie", 422, "invalid-parameter"),
        ("none/batchie", 404, "run-not-found"),
        ("real/batchie/steps/9/scores", 404, "step-not-recorded"),
        ("real/batchie/steps/x/scores", 422, "invalid-selection"),
        ("real/batchie/steps/0/scores?sample=1", 422, "unknown-parameter"),
        ("real/batchie/steps/0/scores?format=npy", 406, "format-not-acceptable"),
        ("real/batchie/steps/0/distances?rows=0:2:0", 422, "invalid-selection"),
        ("real/batchie/steps/0/distances?rows=17", 422, "selection-out-of-bounds"),
        ("real/batchie/steps/0/thetas/U", 404, "field-not-found"),
        ("real/batchie/steps/0/thetas/W?chain=7", 404, "not-recorded"),
        ("real/batchie/steps/0/thetas/W?chain=x", 422, "invalid-parameter"),
        ("real/batchie/steps/0/predictions?sample_name=x", 404, "not-recorded"),
        ("real/batchie/steps/1/screens/test.screen", 404, "layer-not-found"),
        ("real/batchie/steps/0/screens/test.screen?masked=no", 422, "invalid-parameter"),
        ("real/files/no/such", 404, "object-not-found"),
        ("real/export?format=batchie-tree&samples=0", 422, "unknown-parameter"),
        ("real/export?format=batchie-tree&iter=0&plate=9", 404, "nothing-matches"),
        ("real/export?format=batchie-tree&layers=x*", 422, "unknown-parameter"),
        ("real/export?format=batchie-tree&steps=9", 404, "step-not-recorded"),
        ("other/files", 406, "format-not-acceptable"),
        ("other/export?format=batchie-tree", 406, "format-not-acceptable"),
    ],
)
def test_what_is_wrong_is_told(url: str, path: str, status: int, kind: str) -> None:
    answer = httpx.get(f"{url}/{path}")

    assert (answer.status_code, answer.json()["kind"]) == (status, kind)


def test_files_that_are_odd_inside_are_told_and_not_a_fault(tmp_path: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    folder = plate_folder(tmp_path, 0, 0)
    write_plate(folder)
    for path, name in (
        ("distance_matrix_chunk_0.h5", "values"),
        ("score_chunk_0.h5", "scores"),
        ("model_evaluation.h5", "chain_ids"),
        ("advanced_screen.h5", "observation_mask"),
    ):
        with h5py.File(folder / path, "a") as file:
            del file[name]
            file[name] = np.zeros(1, bool if "mask" in name else np.int64)
    with h5py.File(folder / "distance_matrix_chunk_1.h5", "a") as file:
        del file["size"]
    with h5py.File(folder / "thetas_0.h5", "a") as file:
        del file.attrs["n_thetas"]
    import_file("batchie", tmp_path, store, "run")

    with served(store.url) as base:
        steps = f"{base}/runs/run/batchie/steps/0"
        report = document(f"{steps}/distances/report")
        chains = document(f"{steps}/thetas")["chains"]
        found = [
            httpx.get(f"{steps}/{name}")
            for name in ("scores", "evaluation", "predictions", "screens/advanced_screen")
        ]

    assert (report["size"], report["pairs"], len(report["notes"])) == (0, 0, 2)
    assert [one["capacity"] for one in chains] == [0, 2]
    assert [answer.json()["kind"] for answer in found] == ["shape-mismatch"] * 4


def test_a_step_without_distances_says_so(tmp_path: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    write_screen(plate_folder(tmp_path, 0, 0) / "training.screen.h5", ["p"])
    import_file("batchie", tmp_path, store, "run")

    with served(store.url) as base:
        found = [
            httpx.get(f"{base}/runs/run/batchie/steps/0/{name}")
            for name in ("distances", "thetas", "evaluation", "predictions")
        ]
        scores = document(f"{base}/runs/run/batchie/steps/0/scores")["coordinates"]

    assert [answer.json()["kind"] for answer in found] == ["not-recorded"] * 4
    assert (scores["plate_name"], scores["score"], scores["selected"]) == (["p"], [None], [None])
