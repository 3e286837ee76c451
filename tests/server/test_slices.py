"""What comes over HTTP is what NumPy selects, in every format."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_schema.wire import DIMS_HEADER, DTYPE_HEADER, SHAPE_HEADER, STEPS_HEADER
from tests.server.conftest import LAYER, SAMPLES, STEPS

if TYPE_CHECKING:
    import httpx
    from numpy.typing import NDArray

    from tests.server.conftest import Served

FIELDS = {
    "fields/score": "trace/score",
    "fields/sequence": "trace/sequence",
    "fields/mask": "trace/mask",
    f"layers/{LAYER}/output": f"layers/{LAYER}/output",
}
FORMATS = ("json", "npy", "raw", "npz", "csv", "arrow")
LENGTHS = {"steps": STEPS, "samples": SAMPLES}

selectors = st.one_of(
    st.integers(-5, 4).map(str),
    st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True).map(
        lambda items: ",".join(map(str, [*items, items[0]]))
    ),
    st.tuples(
        st.none() | st.integers(-9, 9),
        st.none() | st.integers(-9, 9),
        st.none() | st.sampled_from([1, 2, 3, -1, -2]),
    ).map(lambda parts: ":".join("" if part is None else str(part) for part in parts)),
)


def chosen(text: str) -> Any:
    """Return what the selector *text* is as an index of NumPy."""
    if ":" in text:
        return slice(*(int(part) if part else None for part in text.split(":")))
    numbers = [int(part) for part in text.split(",")]
    return numbers if len(numbers) > 1 else numbers[0]


def pick(values: NDArray[Any], *selectors: str | None) -> NDArray[Any]:
    """Select along each leading axis for itself."""
    axis = 0
    for text in selectors:
        if text is None:
            axis += 1
            continue
        index = chosen(text)
        values = values[(slice(None),) * axis + (index,)]
        axis += 0 if isinstance(index, int) else 1
    return values


def decoded(answer: httpx.Response, name: str, kind: str, like: NDArray[Any]) -> NDArray[Any]:
    """Return the values of an answer in the format *kind*."""
    data = answer.content
    if kind == "json":
        found = np.array(json.loads(data)["data"], dtype=object).astype(like.dtype)
        return found.reshape(like.shape)
    if kind == "npy":
        return np.asarray(np.load(io.BytesIO(data)))
    if kind == "npz":
        return np.asarray(np.load(io.BytesIO(data))[name])
    if kind == "raw":
        dtype = np.dtype(answer.headers[DTYPE_HEADER]).newbyteorder("<")
        shape = [int(n) for n in answer.headers[SHAPE_HEADER].split(",") if n]
        return np.frombuffer(data, dtype).reshape(shape)
    if kind == "arrow":
        column = pa.ipc.open_stream(data).read_all()["value"]
        return np.asarray(column.to_numpy()).astype(like.dtype).reshape(like.shape)
    options = pa_csv.ConvertOptions(strings_can_be_null=False, null_values=[])
    column = pa_csv.read_csv(io.BytesIO(data), convert_options=options)["value"]
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(like.dtype).reshape(like.shape)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(sorted(FIELDS)),
    kind=st.sampled_from(FORMATS),
    selected=st.tuples(st.none() | selectors, st.none() | selectors),
)
def test_every_format_gives_what_numpy_selects(
    http: httpx.Client,
    served_store: Served,
    path: str,
    kind: str,
    selected: tuple[str | None, str | None],
) -> None:
    step, sample = selected
    whole, _ = served_store.sealed.whole(FIELDS[path], list(range(STEPS)), SAMPLES)
    expected = pick(whole, step, sample)
    parameters = {"steps": step, "sample": sample, "format": kind}

    answer = http.get(
        f"/runs/sealed/{path}", params={k: v for k, v in parameters.items() if v is not None}
    )

    assert answer.status_code == 200, answer.text
    if kind != "csv" or expected.size:  # Arrow's reader takes a table of nothing for damage
        got = decoded(answer, path.rpartition("/")[2], kind, expected)
        if kind in ("json", "csv") and expected.dtype.kind == "f":
            finite = np.isfinite(expected)
            np.testing.assert_array_equal(got[finite], expected[finite])
        else:
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
    assert answer.headers[SHAPE_HEADER] == ",".join(map(str, expected.shape))
    if kind in ("npy", "raw", "npz", "arrow"):
        assert int(answer.headers["content-length"]) == len(answer.content)


def test_the_path_of_the_users_own_example(http: httpx.Client, served_store: Served) -> None:
    """`/runs/<id>/steps/<n>/score_matrix?samples=0:8`."""
    whole, _ = served_store.sealed.whole("trace/score", list(range(STEPS)), SAMPLES)

    answer = http.get("/runs/sealed/steps/3/score?samples=0:2&format=raw")

    np.testing.assert_array_equal(
        np.frombuffer(answer.content, "<f2").reshape(2, 6, 4), whole[3, 0:2]
    )
    assert answer.headers[DIMS_HEADER] == "sample,axis0,axis1"
    assert answer.headers[DTYPE_HEADER] == "float16"
    assert answer.headers[STEPS_HEADER] == "3"


def test_a_negative_step_counts_from_the_last(http: httpx.Client) -> None:
    last = http.get("/runs/sealed/steps/-1/score?format=npy")

    assert last.headers[STEPS_HEADER] == str(STEPS - 1)
    assert last.content == http.get(f"/runs/sealed/steps/{STEPS - 1}/score?format=npy").content


def test_a_layer_keeps_its_dots_and_may_be_quoted(http: httpx.Client) -> None:
    plain = http.get(f"/runs/sealed/steps/2/layers/{LAYER}/output?samples=1&format=npy")
    quoted = http.get("/runs/sealed/steps/2/layers/blocks%2E11%2Emlp/output?samples=1&format=npy")

    assert plain.status_code == quoted.status_code == 200
    assert plain.content == quoted.content


def test_inputs_and_outputs_are_slices_too(http: httpx.Client) -> None:
    start = http.get("/runs/sealed/inputs/start?samples=0")
    label = http.get("/runs/sealed/outputs/label?samples=2:4")

    assert start.json()["dtype"] == "int64"
    assert len(start.json()["data"]) == 6
    assert label.json()["data"] == ["cell-2", "cell-3"]


def test_a_ragged_field_is_read_a_step_at_a_time(http: httpx.Client) -> None:
    one = http.get("/runs/sealed/steps/2/uneven")
    several = http.get("/runs/sealed/fields/uneven")

    assert one.json()["shape"] == [3, 3]
    assert several.status_code == 422
    assert several.json()["kind"] == "invalid-selection"


def test_json_says_null_where_json_has_no_number(http: httpx.Client) -> None:
    answer = http.get("/runs/sealed/steps/0/score?samples=0&axis0=0").json()

    assert answer["data"] == [None, None, None, 0.0]
    assert answer["run"] == "sealed"
    assert answer["field"] == "score"
    assert answer["dims"] == ["axis1"]
    assert answer["shape"] == [4]
    assert answer["dtype"] == "float16"


@pytest.mark.parametrize("operation", ["mean", "std", "min", "max", "sum", "l2"])
def test_a_reduction_is_computed_in_float64(
    http: httpx.Client, served_store: Served, operation: str
) -> None:
    whole, _ = served_store.sealed.whole("trace/score", [1, 2, 3], SAMPLES)
    wide = whole.astype(np.float64)
    if operation == "l2":
        expected = np.sqrt(np.square(wide).sum(axis=(1, 2)))
    else:
        expected = getattr(wide, operation)(axis=(1, 2))

    answer = http.get(
        f"/runs/sealed/fields/score?steps=1:4&reduce={operation}&over=sample,axis0&format=npy"
    )

    assert answer.headers[DIMS_HEADER] == "step,axis1"
    np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), expected, rtol=1e-12)


def test_the_largest_values_come_as_triplets(http: httpx.Client, served_store: Served) -> None:
    whole, _ = served_store.sealed.whole("trace/score", [2], SAMPLES)
    matrix = whole[0, 1]
    order = np.argsort(-matrix.reshape(-1), kind="stable")[:5]

    answer = http.get("/runs/sealed/steps/2/score?samples=1&top=5").json()

    assert answer["dims"] == ["axis0", "axis1"]
    assert answer["rows"] == (order // 4).tolist()
    assert answer["columns"] == (order % 4).tolist()
    np.testing.assert_array_equal(np.float16(answer["values"]), matrix.reshape(-1)[order])


@pytest.mark.parametrize("kind", ["npz", "csv", "arrow"])
def test_triplets_come_in_every_format_that_holds_columns(http: httpx.Client, kind: str) -> None:
    expected = http.get("/runs/sealed/steps/2/score?samples=1&top=3").json()
    answer = http.get(f"/runs/sealed/steps/2/score?samples=1&top=3&format={kind}")

    if kind == "npz":
        rows = np.load(io.BytesIO(answer.content))["rows"].tolist()
    elif kind == "csv":
        rows = pa_csv.read_csv(io.BytesIO(answer.content))["row"].to_pylist()
    else:
        rows = pa.ipc.open_stream(answer.content).read_all()["row"].to_pylist()

    assert rows == expected["rows"]


def test_several_slices_come_in_one_answer(http: httpx.Client, served_store: Served) -> None:
    body = {
        "slices": [
            {"field": "score", "select": {"step": "3", "samples": "0:2"}},
            {"field": "output", "layer": LAYER, "select": {"steps": "::2", "sample": "-1"}},
            {"name": "first", "field": "start", "place": "inputs", "select": {"samples": "0"}},
        ]
    }
    whole, _ = served_store.sealed.whole("trace/score", list(range(STEPS)), SAMPLES)

    answer = http.post("/runs/sealed/query", json=body)

    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    arrays = np.load(io.BytesIO(answer.content))
    np.testing.assert_array_equal(arrays["score"], whole[3, 0:2])
    np.testing.assert_array_equal(arrays["score.sample"], [0, 1])
    np.testing.assert_array_equal(arrays[f"{LAYER}.output.step"], [0, 2, 4])
    assert arrays["first"].dtype == np.int64


def test_several_slices_come_as_raw_parts(http: httpx.Client, served_store: Served) -> None:
    body = {
        "slices": [
            {"field": "score", "select": {"step": "3"}},
            {"field": "sequence", "select": {"step": "3", "samples": "2"}},
        ]
    }
    score, _ = served_store.sealed.whole("trace/score", [3], SAMPLES)
    sequence, _ = served_store.sealed.whole("trace/sequence", [3], SAMPLES)

    data = http.post("/runs/sealed/query?format=raw", json=body).content

    length = int.from_bytes(data[:4], "little")
    parts = json.loads(data[4 : 4 + length])["parts"]
    values = [
        np.frombuffer(data[4 + length + part["offset"] :][: part["nbytes"]], part["dtype"]).reshape(
            part["shape"]
        )
        for part in parts
    ]
    np.testing.assert_array_equal(values[0], score[0])
    np.testing.assert_array_equal(values[1], sequence[0, 2])
    assert parts[-1]["offset"] + parts[-1]["nbytes"] == len(data) - 4 - length


def test_equal_names_in_one_query_are_refused(http: httpx.Client) -> None:
    body = {"slices": [{"field": "score"}, {"field": "score"}]}

    answer = http.post("/runs/sealed/query", json=body)

    assert answer.status_code == 422
    assert "another name" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/octet-stream", "application/octet-stream"),
        ("application/json;q=0.5, application/x-npy", "application/x-npy"),
        ("application/json;q=0, */*;q=0.1", "application/x-npy"),
        ("text/*", "text/csv"),
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("application/x-npz", "application/x-npz"),
    ],
)
def test_accept_chooses_by_quality(http: httpx.Client, accept: str, media_type: str) -> None:
    answer = http.get("/runs/sealed/steps/0/score?samples=0", headers={"Accept": accept})

    assert answer.headers["content-type"].partition(";")[0] == media_type
    assert "Accept" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("query", "accept"), [("format=parquet", "*/*"), ("", "image/png"), ("format=", "*/*")]
)
def test_an_unknown_format_is_406_and_says_what_there_is(
    http: httpx.Client, query: str, accept: str
) -> None:
    answer = http.get(f"/runs/sealed/steps/0/score?{query}", headers={"Accept": accept})

    assert answer.status_code == 406
    assert answer.json()["kind"] == "format-not-acceptable"
    assert "application/x-npy" in answer.json()["detail"]
