"""DMD2's questions over HTTP, held against NumPy; and its app's own loading code on our files."""

from __future__ import annotations

import csv
import io
import json
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image

from archive_schema.store import open_store
from recorder.importers import import_file
from server.exporters import export_tree
from server.output import write_tree
from server.query import Archive
from tests.server_fixture import served
from tests.systems.dmd2_files import REAL
from tests.systems.pages import run_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MODEL = "imagenet_real"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the real data set as the run ``real``."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    import_file("dmd2", REAL, store, "real", part=MODEL)
    with served(store.url) as base:
        yield f"{base}/runs/real"


@pytest.fixture(scope="module")
def flat() -> NDArray[np.float32]:
    """Return the rows of all layers as upstream's own code puts them together."""
    return load_dataset_activations(
        REAL / "activations" / MODEL, REAL / "metadata" / MODEL / "dataset_info.json"
    )[0]


def load_dataset_activations(
    activation_dir: Path, metadata_path: Path
) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """Do what the app's loader of that name does, with its checks: an absent file is an error."""
    info = json.loads(metadata_path.read_text())
    root = activation_dir.parent.parent
    rows = []
    for one in info["samples"]:
        with np.load((root / one["activation_path"]).with_suffix(".npz")) as arrays:
            flat = np.concatenate([arrays[name] for name in sorted(arrays.keys())], axis=1)
        rows.append(flat[one["batch_index"]])
        assert (root / one["image_path"]).is_file()
    return np.stack(rows), info["samples"]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def get(url: str, path: str, **parameters: Any) -> httpx.Response:
    answer = httpx.get(f"{url}{path}", params=parameters)
    assert answer.is_success, answer.text
    return answer


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("layers", [None, "midblock"])
def test_neighbours_are_exact(
    url: str, flat: NDArray[np.float32], metric: str, layers: str | None
) -> None:
    rows = flat.astype(np.float64)[:, 0 if layers is None else 8192 :]
    if metric == "euclidean":
        distances = np.linalg.norm(rows - rows[3], axis=1)
    else:
        distances = 1 - rows @ rows[3] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[3])
    order = [at for at in np.argsort(distances) if at != 3][:5]
    chosen = {} if layers is None else {"layers": layers}

    found = get(url, "/dmd2/neighbours", sample="sample_000003", k=5, metric=metric, **chosen)

    columns = found.json()["coordinates"]
    assert columns["sample"] == order
    np.testing.assert_allclose(columns["distance"], distances[order])


def test_neighbours_in_the_projection_are_what_the_app_finds(url: str) -> None:
    """They come in the columns of its own export, which holds those of the data set."""
    table = rows_of((REAL / f"embeddings/{MODEL}_umap_n3_d0.1.csv").read_text())
    places = np.array([[float(row["umap_x"]), float(row["umap_y"])] for row in table])
    order = np.argsort(np.linalg.norm(places - places[0], axis=1))[1:4]

    answer = get(url, "/dmd2/neighbours", sample=0, k=3, space="umap", format="csv")

    found = rows_of(answer.text)
    assert list(found[0]) == ["rank", "sample", "distance", *table[0]]
    assert [int(row["sample"]) for row in found] == order.tolist()
    assert [row["sample_id"] for row in found] == [table[at]["sample_id"] for at in order]


def test_the_export_of_the_app_is_given(url: str) -> None:
    answer = get(url, "/export", format="csv")

    assert answer.content == (REAL / f"embeddings/{MODEL}_umap_n3_d0.1.csv").read_bytes()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/dmd2/neighbours?sample=8", 422, "has length 8"),
        ("/dmd2/neighbours?sample=nobody", 404, "no sample 'nobody'"),
        ("/dmd2/neighbours?sample=0&layers=none", 404, "no layer 'none'"),
        ("/dmd2/neighbours?sample=0&step=1", 404, "step 1 is not recorded"),
        ("/dmd2/neighbours?sample=0&k=0", 422, "greater than or equal to 1"),
        ("/dmd2/neighbours?sample=0&metric=hamming", 422, "euclidean"),
        ("/dmd2/atlas?field=film", 404, "no pictures 'film'"),
        ("/dmd2/atlas?samples=0:8&size=2000", 422, "1024"),
        ("/dmd2/atlas?samples=x", 422, "samples"),
        ("/dmd2/atlas?colour=red", 422, "colour"),
    ],
)
def test_what_cannot_be_answered_says_why(url: str, path: str, status: int, words: str) -> None:
    answer = httpx.get(url + path)

    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_a_sheet_has_each_picture_where_its_map_says(url: str) -> None:
    parameters = {"samples": "6,1,3", "columns": 2}
    cells = get(url, "/dmd2/atlas", format="json", **parameters).json()["cells"]
    answer = get(url, "/dmd2/atlas", **parameters)

    sheet = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert sheet.shape == (128, 128, 3)
    assert [cell["sample_id"][-1] for cell in cells] == ["6", "1", "3"]
    for cell in cells:
        picture = Image.open(REAL / f"images/{MODEL}/{cell['sample_id']}.png")
        part = sheet[cell["y"] :, cell["x"] :][: cell["height"], : cell["width"]]
        np.testing.assert_array_equal(part, np.asarray(picture))
    again = httpx.get(answer.url, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    small = get(url, "/dmd2/atlas", size=16)
    assert Image.open(io.BytesIO(small.content)).size == (8 * 16, 16)


def test_the_mean_of_neighbours_is_a_slice(url: str, flat: NDArray[np.float32]) -> None:
    """It is what the app masks with, which reads all activations into memory for it."""
    answer = get(
        url, "/layers/midblock/output", samples="1,4", reduce="mean", over="sample", format="npy"
    )

    mean = np.load(io.BytesIO(answer.content)).reshape(-1)
    np.testing.assert_allclose(mean, flat[[1, 4], 8192:].astype(np.float64).mean(axis=0))


def test_flat_rows_come_by_range_and_by_class(url: str, flat: NDArray[np.float32]) -> None:
    whole = get(url, "/export", format="npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(whole.content)), flat)
    part = httpx.get(whole.url, headers={"Range": "bytes=70000-200000"})
    assert (part.status_code, part.content) == (206, whole.content[70000:200001])

    chosen = httpx.get(f"{url}/export?format=npy&layers=midblock&class=missile")

    np.testing.assert_array_equal(np.load(io.BytesIO(chosen.content)), flat[[2, 3], 8192:])


def test_the_data_set_says_where_each_layer_is(url: str) -> None:
    found = get(url, "/dmd2").json()

    assert (found["class_order"], found["width"], found["named"]) == ("standard", 16384, 8)
    assert [(one["layer"], one["shape"], one["start"]) for one in found["layers"]] == [
        ("encoder_bottleneck", [128, 8, 8], 0),
        ("midblock", [128, 8, 8], 8192),
    ]


def test_the_app_loads_what_we_give_back(
    tmp_path: Path, url: str, flat: NDArray[np.float32]
) -> None:
    del url
    store = open_store(tmp_path / "store")
    import_file("dmd2", REAL, store, "real", part=MODEL)
    with Archive(store) as archive:
        write_tree(export_tree(archive.run("real")), str(tmp_path / "again"))
    again = tmp_path / "again"

    rows, table = load_dataset_activations(
        again / "activations" / MODEL, again / "metadata" / MODEL / "dataset_info.json"
    )

    np.testing.assert_array_equal(rows, flat)
    embedded = rows_of((again / f"embeddings/{MODEL}_umap_n3_d0.1.csv").read_text())
    assert [one["sample_id"] for one in embedded] == [one["sample_id"] for one in table]
    assert json.loads((again / f"embeddings/{MODEL}_umap_n3_d0.1.json").read_text())["layers"]


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(REAL, tmp_path / "data")
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with served((tmp_path / "archive").as_uri()) as url:
        names = run_page("dmd2.md", url)

    assert names["mean"].shape == (128, 8, 8)
    assert names["rows"].shape == (8, 16384)
    assert names["batch"].images.shape == (2, 64, 64, 3)
    given = tmp_path / f"again/embeddings/{MODEL}_umap_n3_d0.1.csv"
    assert len(rows_of(given.read_text())) == 8
