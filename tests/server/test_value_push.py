"""Values over plain HTTP, as a sampler in any language or curl would send them."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import ml_dtypes
import numpy as np
import pytest

from archive_schema.records import RunRecords
from recorder import TraceRecorder
from tests.ports import unused_port
from tests.server.pushing import Process, json_put, npy, npz, put
from tests.server_fixture import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from archive_schema.store import Store
    from tests.s3_server import S3Server
    from tests.server_fixture import Serve

__all__ = ["serve"]

TRACE = Path(__file__).parents[1] / "data/d3_dna/evaluation_visualization_data.npz"
STEPS, BATCH, SAMPLES = 6, 4, 8


@pytest.fixture
def url(folder_store: Store, serve: Serve) -> str:
    return serve(folder_store, allow_push=True)


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """Open a client, and a run ``r`` of 10 steps and 16 samples."""
    with httpx.Client(base_url=url, timeout=60) as client:
        declare(client, "r", steps=10, samples=16)
        yield client


def declare(client: httpx.Client, run_id: str, **declared: Any) -> None:
    answer = client.post("/runs", json={"id": run_id, **declared})
    assert answer.status_code == 201, answer.text


def read(client: httpx.Client, path: str) -> NDArray[Any]:
    answer = client.get(path, params={"format": "npy"} if "?" not in path else None)
    answer = answer if "?" not in path else client.get(f"{path}&format=npy")
    assert answer.status_code == 200, answer.text
    array: NDArray[Any] = np.load(io.BytesIO(answer.content), allow_pickle=False)
    return array


def kind(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["kind"])


def d3_dna() -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the metadata and the arrays of a file that D3-DNA's logger wrote, its first steps."""
    with np.load(TRACE, allow_pickle=False) as file:
        metadata = {
            name.removeprefix("meta_"): file[name].item()
            for name in file.files
            if name.startswith("meta_")
        }
        arrays = {name: file[name] for name in file.files if not name.startswith("meta_")}
    return metadata, arrays


def requests_of(arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Give every request of the run: path, body and headers, batch after batch."""
    traces = {
        "sequence": "sequences",
        "score_matrix": "score_matrices",
        "prob_matrix": "prob_matrices",
        "oracle_predictions": "oracle_predictions",
    }
    inputs = ("original_samples", "ground_truth_labels", "dataset_indices")
    for name in inputs:
        yield f"inputs/{name}?samples=0:{SAMPLES}", npy(arrays[name]), {}
    for start in range(0, SAMPLES, BATCH):
        part = f"samples={start}:{start + BATCH}"
        for step in range(STEPS):
            known = {"timestep": "timesteps", "noise_level": "noise_levels"}
            values = {name: float(arrays[key][step]) for name, key in known.items()}
            yield f"steps/{step}", json.dumps(values).encode(), {"Content-Type": "application/json"}
            for name, key in traces.items():
                body = npy(arrays[key][step, start : start + BATCH])
                yield f"steps/{step}/{name}?{part}", body, {}
            errors = np.ascontiguousarray(arrays["oracle_mses"][step, start : start + BATCH], "<f4")
            described = {
                "Content-Type": "application/octet-stream",
                "X-Trace-Dtype": "float32",
                "X-Trace-Shape": str(BATCH),
            }
            yield f"steps/{step}/oracle_mse?{part}", errors.tobytes(), described
    yield "outputs/final_sequence", npy(arrays["sequences"][STEPS - 1]), {}


def test_a_run_that_is_pushed_is_the_one_that_a_recorder_records(
    store_url: str, serve: Serve
) -> None:
    """They give the same file, byte by byte; and to put it all again is nothing."""
    metadata, arrays = d3_dna()
    run: dict[str, Any] = {
        "system": "d3-dna", "steps": STEPS, "samples": SAMPLES, "metadata": metadata,
    }  # fmt: skip
    with TraceRecorder(store_url, "recorded", **run) as rec:
        rec.inputs(
            slice(0, SAMPLES),
            **{
                name: arrays[name]
                for name in ("original_samples", "ground_truth_labels", "dataset_indices")
            },
        )
        for start in range(0, SAMPLES, BATCH):
            part = slice(start, start + BATCH)
            for step in range(STEPS):
                rec.record(
                    step,
                    part,
                    timestep=float(arrays["timesteps"][step]),
                    noise_level=float(arrays["noise_levels"][step]),
                    sequence=arrays["sequences"][step, part],
                    score_matrix=arrays["score_matrices"][step, part],
                    prob_matrix=arrays["prob_matrices"][step, part],
                    oracle_predictions=arrays["oracle_predictions"][step, part],
                    oracle_mse=arrays["oracle_mses"][step, part],
                )
        rec.outputs(final_sequence=arrays["sequences"][STEPS - 1])

    with httpx.Client(base_url=serve(store_url, allow_push=True), timeout=60) as client:
        declare(client, "pushed", **run)
        first = [
            client.put(f"/runs/pushed/tiles/{path}", content=body, headers=headers).status_code
            for path, body, headers in requests_of(arrays)
        ]
        version = client.get("/runs/pushed/changes").json()["version"]
        again = [
            client.put(f"/runs/pushed/tiles/{path}", content=body, headers=headers).status_code
            for path, body, headers in requests_of(arrays)
        ]
        same_version = client.get("/runs/pushed/changes").json()["version"]
        sealed = client.post("/runs/pushed/seal")
        files = [client.get(f"/runs/{name}.npz").content for name in ("recorded", "pushed")]

    # The coordinates of a step come again with its second batch.
    assert first.count(200) == STEPS
    assert set(first) == {200, 201}
    assert set(again) == {200}
    assert version == same_version
    assert sealed.status_code == 200, sealed.text
    assert files[0] == files[1]


ARRAYS: dict[str, NDArray[Any]] = {
    "float16": np.array([[np.nan, np.inf], [-np.inf, 6e-8]], "<f2"),
    "float64": np.array([[1e300, -0.0], [np.nan, 5e-324]]),
    "big-endian": np.arange(4, dtype=">i4").reshape(2, 2),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "uint64": np.array([[2**64 - 1], [0]], "u8"),
    "bool": np.array([[True], [False]]),
    "text": np.array([["naïve", ""], ["CD8+ T", "x" * 7]]),
    "bytes": np.array([[b"ACGT"], [b"T"]]),
    "no values": np.empty((2, 0, 3), "f4"),
    "one axis": np.arange(2, dtype="i2"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_put_is_read_at_the_same_path(http: httpx.Client, name: str) -> None:
    array = ARRAYS[name]

    for place in ("steps/3/x", "steps/3/layers/blocks.11.mlp/x", "inputs/x", "outputs/x"):
        answer = put(http, f"{place}?samples=0:2", npy(array))
        found = read(http, f"/runs/r/{place}?samples=0:2")

        assert answer.status_code == 201, answer.text
        assert found.shape == array.shape
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("dtype", "given"), [("bfloat16", "float32"), ("float8_e4m3fn", "float16")]
)
def test_raw_values_may_have_a_dtype_that_numpy_lacks(
    http: httpx.Client, dtype: str, given: str
) -> None:
    values = np.array([[1.5, -2], [0.25, np.nan]]).astype(getattr(ml_dtypes, dtype))
    headers = {
        "Content-Type": "application/octet-stream", "X-Trace-Dtype": dtype, "X-Trace-Shape": "2,2",
    }  # fmt: skip

    answer = put(http, "steps/0/x?samples=0:2", values.tobytes(), **headers)

    assert answer.status_code == 201, answer.text
    found = read(http, "/runs/r/steps/0/x?samples=0:2")
    assert found.dtype == given
    np.testing.assert_array_equal(found, values.astype(given))


def test_a_single_value_without_axes_is_a_field_of_a_step(http: httpx.Client) -> None:
    described = {
        "Content-Type": "application/octet-stream", "X-Trace-Dtype": "int64", "X-Trace-Shape": "",
    }  # fmt: skip

    answers = [
        put(http, "steps/0/level", npy(np.array(0.5))),
        put(http, "outputs/count", struct.pack("<q", 7), **described),
    ]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert read(http, "/runs/r/steps/0/level").tolist() == 0.5
    assert read(http, "/runs/r/outputs/count").tolist() == 7


def test_a_whole_step_comes_in_one_request(http: httpx.Client) -> None:
    """Members without axes are coordinates, and may be what no JSON number is."""
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4)
    body = npz(x=x, y=y, loss=np.float32("nan"), phase=np.array("warm"), n=np.int64(3))

    first = put(http, "steps/2?samples=4:8", body)
    again = put(http, "steps/2?samples=4:8", body, **{"Content-Type": "application/x-npz"})
    other = put(http, "steps/2?samples=4:8", npz(x=x, y=y + 1))

    assert (first.status_code, again.status_code) == (201, 200), first.text
    assert kind(other) == (409, "tile-differs")
    step = http.get("/runs/r/steps/2").json()
    assert step["coordinates"] == {"loss": None, "phase": "warm", "n": 3}
    np.testing.assert_array_equal(read(http, "/runs/r/steps/2/x?samples=4:8"), x)
    np.testing.assert_array_equal(read(http, "/runs/r/steps/2/y?samples=4:8"), y)


def test_a_compressed_npz_is_taken(http: httpx.Client) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.zeros((4, 100)), y=np.asfortranarray(np.ones((4, 2))))

    answer = put(http, "steps/2?samples=0:4", stream.getvalue())

    assert answer.status_code == 201, answer.text
    np.testing.assert_array_equal(read(http, "/runs/r/steps/2/y?samples=0:4"), np.ones((4, 2)))


def test_a_step_that_differs_in_one_field_records_no_other(http: httpx.Client) -> None:
    """A request is recorded as a whole or not at all."""
    x = np.arange(4.0)
    put(http, "steps/2/x?samples=0:4", npy(x))

    refused = put(http, "steps/2?samples=0:4", npz(a=x, x=x + 1, z=x))
    before = http.get("/runs/r").json()["fields"]
    allowed = put(http, "steps/2?samples=0:4", npz(a=x, x=x, z=x))

    assert kind(refused) == (409, "tile-differs")
    assert [field["name"] for field in before if field["steps"]] == ["x"]
    assert allowed.status_code == 201
    np.testing.assert_array_equal(read(http, "/runs/r/steps/2/a?samples=0:4"), x)


def test_coordinates_are_recorded_once(http: httpx.Client) -> None:
    answers = [
        json_put(http, "steps/3", {"timestep": 0.5, "phase": "warm", "last": False}),
        json_put(http, "steps/3", {"timestep": 0.5}),
        json_put(http, "steps/3", {"timestep": 0.6}),
        json_put(http, "steps/4", {"timestep": 1}),
        json_put(http, "samples?samples=2:4", {"label": ["a", "b"], "seed": [1, 2]}),
        json_put(http, "samples?samples=2:4", {"label": ["a", "b"]}),
        json_put(http, "samples?samples=2:4", {"label": ["a", "c"]}),
        put(http, "samples", npz(weight=np.linspace(0, 1, 16))),
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 409, 201, 201, 200, 409, 201]
    assert answers[2].json()["kind"] == answers[6].json()["kind"] == "coordinate-differs"
    steps = http.get("/runs/r/steps").json()["coordinates"]
    assert steps["timestep"] == [0.5, 1.0]
    samples = http.get("/runs/r/samples?samples=2:4").json()["coordinates"]
    assert samples["label"] == ["a", "b"]
    assert samples["weight"] == [2 / 15, 3 / 15]


def test_a_declaration_settles_what_values_do_not_say(http: httpx.Client) -> None:
    """And it is in the store at once: a service that starts anew knows it."""
    said = {
        "dtype": "int64", "shape": [16, 5], "dims": ["sample", "token"], "tokens": True,
        "every": 2, "tile": 4,
    }  # fmt: skip
    values = np.arange(80).reshape(16, 5)

    first = json_put(http, "fields/ids", said)
    again = json_put(http, "fields/ids", said)
    other = json_put(http, "fields/ids", {**said, "tile": 8})
    layer = json_put(
        http,
        "layers/blocks.11/out",
        {"dtype": "float16", "shape": [16, 2], "dims": ["sample", "u"]},
    )
    recorded = put(http, "steps/2/ids", npy(values))
    passed_over = put(http, "steps/3/ids", npy(values))
    no_token = put(http, "steps/4/ids", npy(values + 200))
    other_shape = put(http, "steps/4/ids", npy(values[:, :4]))

    assert [one.status_code for one in (first, again, layer, recorded)] == [201, 200, 201, 201]
    assert kind(other) == (409, "field-differs")
    assert "tile 4, now 8" in other.json()["detail"]
    assert kind(passed_over) == (422, "selection-out-of-bounds")
    assert kind(no_token) == (422, "value-out-of-range")
    assert kind(other_shape) == (422, "shape-mismatch")
    np.testing.assert_array_equal(read(http, "/runs/r/steps/2/ids"), values)
    field = next(one for one in http.get("/runs/r").json()["fields"] if one["name"] == "ids")
    assert field["dims"] == ["step", "sample", "token"]


def test_a_ragged_field_has_another_shape_at_each_step(http: httpx.Client) -> None:
    json_put(http, "fields/plates", {"dtype": "float64", "shape": [3], "ragged": True})

    answers = [put(http, f"steps/{n}/plates", npy(np.arange(n + 1.0))) for n in range(3)]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    for n in range(3):
        assert read(http, f"/runs/r/steps/{n}/plates").tolist() == [*range(n + 1)]


X = npy(np.arange(4.0))
RAW = {"Content-Type": "application/octet-stream"}


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


class Pickled:
    """What a pickle in an array would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/unpickled").touch, ())


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Pickled()], object), allow_pickle=True)
    return stream.getvalue()


BAD: dict[str, tuple[str, bytes, dict[str, str], int, str]] = {
    "not npy": ("steps/3/x", b"hello, world", {}, 422, "file-invalid"),
    "nothing": ("steps/3/x", b"", {}, 422, "file-invalid"),
    "only magic": ("steps/3/x", X[:6], {}, 422, "file-invalid"),
    "npy version": ("steps/3/x", X[:6] + b"\x09" + X[7:], {}, 422, "file-invalid"),
    "cut header": ("steps/3/x", X[:40], {}, 422, "file-invalid"),
    "cut values": ("steps/3/x", X[:-1], {}, 422, "shape-mismatch"),
    "more values": ("steps/3/x", X + b"!", {}, 422, "shape-mismatch"),
    "no dictionary": ("steps/3/x", header("[1, 2]"), {}, 422, "file-invalid"),
    "code": ("steps/3/x", header("__import__('os').getcwd()"), {}, 422, "file-invalid"),
    "nested": ("steps/3/x", header("(" * 5000), {}, 422, "file-invalid"),
    "no shape": ("steps/3/x", header("{'descr': '<f4'}"), {}, 422, "file-invalid"),
    "odd shape": (
        "steps/3/x",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        {},
        422,
        "file-invalid",
    ),
    "odd dtype": (
        "steps/3/x",
        header("{'descr': 'potato', 'fortran_order': False, 'shape': (1,)}"),
        {},
        422,
        "file-invalid",
    ),
    "many axes": (
        "steps/3/x",
        header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 50}}}"),
        {},
        422,
        "shape-mismatch",
    ),
    "pickle": ("steps/3/x", pickled(), {}, 422, "dtype-mismatch"),
    "complex": ("steps/3/x", npy(np.ones(4, complex)), {}, 422, "dtype-mismatch"),
    "structured": ("steps/3/x", npy(np.zeros(4, "f4,i4")), {}, 422, "dtype-mismatch"),
    "void": ("steps/3/x", npy(np.zeros(4, "V2")), {}, 422, "dtype-mismatch"),
    "no such text": (
        "steps/3/x",
        npy(np.array([0xD800], "<u4").view("<U1")),
        {},
        422,
        "value-out-of-range",
    ),
    "no such bool": (
        "steps/3/x",
        b"\2",
        {**RAW, "X-Trace-Dtype": "bool", "X-Trace-Shape": "1"},
        422,
        "value-out-of-range",
    ),
    "huge": (
        "steps/3/x",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
        {},
        413,
        "request-too-large",
    ),
    "huge and empty": (
        "steps/3/x",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1000000000000)}"),
        {},
        413,
        "request-too-large",
    ),
    "raw undescribed": ("steps/3/x", b"1234", RAW, 422, "invalid-parameter"),
    "raw shape": (
        "steps/3/x",
        b"1234",
        {**RAW, "X-Trace-Dtype": "float32", "X-Trace-Shape": "one"},
        422,
        "invalid-parameter",
    ),
    "raw dtype": (
        "steps/3/x",
        b"1234",
        {**RAW, "X-Trace-Dtype": "float33", "X-Trace-Shape": "1"},
        422,
        "dtype-mismatch",
    ),
    "raw short": (
        "steps/3/x",
        b"123",
        {**RAW, "X-Trace-Dtype": "float32", "X-Trace-Shape": "1"},
        422,
        "shape-mismatch",
    ),
    "media type": ("steps/3/x", X, {"Content-Type": "image/png"}, 422, "invalid-parameter"),
    "gzip": ("steps/3/x", X, {"Content-Encoding": "gzip"}, 422, "invalid-parameter"),
    "another number of samples": (
        "steps/3/x?samples=0:8", X, {}, 422, "shape-mismatch",
    ),
    "samples beyond": ("steps/3/x?samples=14:18", X, {}, 422, "selection-out-of-bounds"),
    "no samples": ("steps/3/x?samples=4:4", X, {}, 422, "selection-out-of-bounds"),
    "samples as a list": ("steps/3/x?samples=0,1", X, {}, 422, "invalid-parameter"),
    "negative samples": ("steps/3/x?samples=-4:", X, {}, 422, "invalid-parameter"),
    "not all samples": ("steps/3/x", X, {}, 422, "shape-mismatch"),
    "parameter": ("steps/3/x?sample=0:4", X, {}, 422, "unknown-parameter"),
    "twice": ("steps/3/x?samples=0:4&samples=0:4", X, {}, 422, "invalid-parameter"),
    "step beyond": ("steps/10/x?samples=0:4", X, {}, 422, "selection-out-of-bounds"),
    "negative step": ("steps/-1/x?samples=0:4", X, {}, 422, "selection-out-of-bounds"),
    "no step": ("steps/one/x?samples=0:4", X, {}, 422, "invalid-selection"),
    "name": ("steps/3/a.b?samples=0:4", X, {}, 422, "invalid-name"),
    "reserved name": ("steps/3/recorded?samples=0:4", X, {}, 422, "invalid-name"),
    "layer name": ("steps/3/layers/blocks.1/a.b?samples=0:4", X, {}, 422, "invalid-name"),
    "long layer": (f"steps/3/layers/{'x' * 300}/x?samples=0:4", X, {}, 422, "invalid-name"),
    "json": ("steps/3", b"{", {}, 422, "file-invalid"),
    "json list": ("steps/3", b"[1]", {}, 422, "file-invalid"),
    "json twice": ("steps/3", b'{"a": 1, "a": 2}', {}, 422, "file-invalid"),
    "json nan": ("steps/3", b'{"a": NaN}', {}, 422, "file-invalid"),
    "json infinite": ("steps/3", b'{"a": 1e999}', {}, 422, "file-invalid"),
    "json bytes": ("steps/3", b'{"a": "\xff"}', {}, 422, "file-invalid"),
    "json surrogate": ("steps/3", b'{"a": "\\ud800"}', {}, 422, "file-invalid"),
    "json nested": ("steps/3", b"[" * 100_000, {}, 422, "file-invalid"),
    "json long": ("steps/3", b'{"a": "' + b"x" * (1 << 20) + b'"}', {}, 413, "request-too-large"),
    "null coordinate": ("steps/3", b'{"a": null}', {}, 422, "dtype-mismatch"),
    "list as coordinate": ("steps/3", b'{"a": [1]}', {}, 422, "dtype-mismatch"),
    "large coordinate": ("steps/3", b'{"a": 9223372036854775808}', {}, 422, "value-out-of-range"),
    "coordinate name": ("steps/3", b'{"a b": 1}', {}, 422, "invalid-name"),
    "npz cut": ("steps/3?samples=0:4", npz(x=np.ones(4))[:-30], {}, 422, "file-invalid"),
    "npz damaged": (
        "steps/3?samples=0:4",
        npz(x=np.ones(4)).replace(np.ones(4).tobytes(), np.ones(4).tobytes()[::-1]),
        {},
        422,
        "file-invalid",
    ),
    "npz of complex": ("steps/3?samples=0:4", npz(x=np.ones(4, complex)), {}, 422, "file-invalid"),
    "samples as text": ("samples", b'{"a": "abc"}', {}, 422, "dtype-mismatch"),
    "mixed samples": ("samples?samples=0:2", b'{"a": [1, "b"]}', {}, 422, "dtype-mismatch"),
    "too few samples": ("samples?samples=0:4", b'{"a": [1, 2]}', {}, 422, "shape-mismatch"),
    "too many samples": (
        "samples", json.dumps({"a": [*range(17)]}).encode(), {}, 422, "selection-out-of-bounds",
    ),
    "declaration": ("fields/x", b'{"dtype": "float32"}', {}, 422, "invalid-parameter"),
    "declared member": (
        "fields/x", b'{"dtype": "f4", "shape": [4], "colour": 1}', {}, 422, "invalid-parameter",
    ),
    "declared dtype": (
        "fields/x", b'{"dtype": "float33", "shape": [4]}', {}, 422, "dtype-mismatch",
    ),
    "declared dims": (
        "fields/x",
        b'{"dtype": "float32", "shape": [4], "dims": ["sample", "b"]}',
        {},
        422,
        "shape-mismatch",
    ),
    "declared twice": (
        "fields/x",
        b'{"dtype": "float32", "shape": [4, 2, 2], "dims": ["sample", "b", "b"]}',
        {},
        422,
        "shape-mismatch",
    ),
    "declared codec": (
        "fields/x",
        b'{"dtype": "float32", "shape": [4], "codec": {"name": "zip"}}',
        {},
        422,
        "invalid-parameter",
    ),
    "parameter of a declaration": (
        "fields/x?samples=0:4", b'{"dtype": "float32", "shape": [4]}', {}, 422, "unknown-parameter",
    ),
}  # fmt: skip


def test_what_is_wrong_is_refused_and_leaves_nothing_behind(http: httpx.Client) -> None:
    """One after another into the same run: none of them may disturb the next, or a good one."""
    for name, (path, body, headers, status, expected) in BAD.items():
        answer = put(http, path, body, **headers)

        assert (answer.status_code, answer.json().get("kind")) == (status, expected), (
            f"{name}: {answer.text}"
        )
        assert answer.headers["content-type"] == "application/problem+json", name
        assert answer.json()["detail"], name

    run = http.get("/runs/r").json()
    assert run["fields"] == run["layers"] == []
    assert run["steps"] == 0
    assert not Path("/tmp/unpickled").exists()
    assert put(http, "steps/3/x?samples=0:8", npy(np.arange(8))).status_code == 201
    assert put(http, "steps/3/x?samples=8:16", npy(np.arange(8))).status_code == 201


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_values_are_put_and_nothing_else(http: httpx.Client, method: str) -> None:
    answer = http.request(method, "/runs/r/tiles/steps/3/x")

    assert kind(answer) == (405, "method-not-allowed")


def test_a_run_must_be_there_and_open(http: httpx.Client) -> None:
    http.post("/runs/r/seal")

    assert kind(http.put("/runs/nowhere/tiles/steps/3/x", content=X)) == (404, "run-not-found")
    assert kind(http.put("/runs/a%2Fb/tiles/steps/3/x", content=X))[0] in (404, 422)
    assert kind(put(http, "steps/3/x?samples=0:4", X)) == (409, "run-sealed")


def test_a_service_without_leave_takes_no_values(folder_store: Store, serve: Serve) -> None:
    answer = httpx.put(f"{serve(folder_store)}/runs/r/tiles/steps/3/x", content=X)

    assert kind(answer) == (403, "token-refused")


def test_too_large_a_tile_is_refused_before_it_is_sent(folder_store: Store, serve: Serve) -> None:
    base = serve(folder_store, allow_push=True, max_object_bytes=1_000_000)
    with httpx.Client(base_url=base, timeout=60) as client:
        declare(client, "r", samples=4)
        announced = socket_put(
            base, "/runs/r/tiles/steps/0/x", b"", {"Content-Length": "2000000"}
        ).split()[1]
        large = put(client, "steps/0/x", npy(np.zeros((4, 40_000))))
        fits = put(client, "steps/0/x", npy(np.zeros((4, 20_000))))

    assert announced == "413"
    assert kind(large) == (413, "request-too-large")
    assert fits.status_code == 201


def socket_put(base: str, path: str, body: bytes, headers: dict[str, str]) -> str:
    """Send the beginning of a request, and return the beginning of the answer."""
    with beginning(base, path, body, headers) as connection:
        return connection.recv(65536).decode("latin-1")


def beginning(base: str, path: str, body: bytes, headers: dict[str, str]) -> socket.socket:
    host, port = urlsplit(base).netloc.split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    lines = [f"PUT {path} HTTP/1.1", f"Host: {host}:{port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def test_memory_for_what_comes_is_bounded(folder_store: Store, serve: Serve) -> None:
    """Bodies that are on their way hold what is granted to them; then others have to wait."""
    large = npy(np.zeros((4, 25_000)))
    base = serve(
        folder_store, allow_push=True, max_object_bytes=1_000_000, max_inflight_bytes=4_000_000
    )
    with httpx.Client(base_url=base, timeout=60) as client, ExitStack() as open_sockets:
        declare(client, "r", samples=4)
        started = []
        for n in range(2):
            path = f"/runs/r/tiles/steps/{n}/x"
            one = beginning(base, path, large[:-8], {"Content-Length": str(len(large))})
            started.append(open_sockets.enter_context(one))
        while held(client) < 3_200_000:
            pass
        with ThreadPoolExecutor(16) as pool:
            refused = list(pool.map(lambda _: put(client, "steps/2/x", large), range(16)))
        for connection in started:
            connection.sendall(large[-8:])
            assert connection.recv(65536).split()[1] == b"201"
        after = put(client, "steps/2/x", large)

        assert {kind(answer) for answer in refused} == {(503, "store-busy")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert after.status_code == 201
        assert held(client) == 0


def held(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    return float(text.partition("\ntrace_archive_inflight_bytes ")[2].partition("\n")[0])


def test_a_body_that_does_not_come_ends_in_time(folder_store: Store, serve: Serve) -> None:
    base = serve(folder_store, allow_push=True, upload_timeout_s=0.2)
    with httpx.Client(base_url=base, timeout=60) as client:
        declare(client, "r", samples=4)

        for sent in (b"", X[:20], X[:-1]):
            path = "/runs/r/tiles/steps/0/x"
            answer = socket_put(base, path, sent, {"Content-Length": str(len(X))})
            assert answer.startswith("HTTP/1.1 408"), answer
            assert "deadline-passed" in answer

        while (whole := put(client, "steps/0/x", X)).status_code == 408:
            pass  # of a machine that is busy elsewhere
        assert whole.status_code == 201


def test_a_client_that_goes_in_the_middle_leaves_nothing(http: httpx.Client, url: str) -> None:
    beginning(
        url, "/runs/r/tiles/steps/0/x?samples=0:4", X[:-8], {"Content-Length": str(len(X))}
    ).close()

    assert put(http, "steps/0/x?samples=0:4", npy(np.arange(4.0) + 1)).status_code == 201


def test_a_body_may_come_in_chunks(http: httpx.Client) -> None:
    """As curl sends what it reads from a pipe."""
    pieces = iter([X[:3], X[3:70], X[70:]])

    assert put(http, "steps/0/x?samples=0:4", pieces).status_code == 201
    assert put(http, "steps/1?samples=0:4", iter([npz(x=np.arange(4.0))])).status_code == 422


def test_many_at_once_share_commits_and_lose_nothing(http: httpx.Client) -> None:
    def push(step: int) -> int:
        answers = [
            put(http, f"steps/{step}/x?samples={start}:{start + 2}", npy(values(step, start)))
            for start in range(0, 16, 2)
        ]
        return sum(answer.status_code == 201 for answer in answers)

    def values(step: int, start: int) -> NDArray[Any]:
        return np.arange(start, start + 2) + 100.0 * step

    with ThreadPoolExecutor(10) as pool:
        acknowledged = sum(pool.map(push, range(10)))
    sealed = http.post("/runs/r/seal")

    assert acknowledged == 80
    assert sealed.status_code == 200, sealed.text
    expected = np.arange(16) + 100.0 * np.arange(10)[:, None]
    np.testing.assert_array_equal(read(http, "/runs/r/fields/x"), expected)


def test_one_tile_from_many_at_once_is_recorded_once(http: httpx.Client) -> None:
    """Equal values are acknowledged to all, and of different ones one stays."""
    barrier = threading.Barrier(8)

    def push(value: float) -> int:
        barrier.wait()
        return put(http, "steps/0/x?samples=0:4", npy(np.full(4, value))).status_code

    def same(_: int) -> int:
        barrier.wait()
        return put(http, "steps/1/x?samples=0:4", npy(np.arange(4.0))).status_code

    with ThreadPoolExecutor(8) as pool:
        different = list(pool.map(push, map(float, range(8))))
        equal = list(pool.map(same, range(8)))

    assert sorted(different) == [201] + [409] * 7
    assert sorted(equal) == [200] * 7 + [201]
    assert read(http, "/runs/r/steps/0/x?samples=0:4")[0] == different.index(201)


def test_two_services_over_one_store_agree(folder_store: Store, serve: Serve) -> None:
    """As two workers of one do: each has its own writer, and hears of the other's tiles."""
    first, second = (
        httpx.Client(base_url=serve(folder_store, allow_push=True), timeout=60) for _ in range(2)
    )
    with first, second:
        declare(first, "r", steps=4, samples=10)
        json_put(second, "steps/0", {"t": 0.5})  # both have it open from here on
        codes = [
            put(first, "steps/0/x?samples=0:4", npy(np.arange(4.0))).status_code,
            # Alone, it would take a short last batch for a whole tile.
            put(second, "steps/0/x?samples=8:10", npy(np.arange(2.0))).status_code,
            put(second, "steps/0/x?samples=0:4", npy(np.arange(4.0) + 1)).status_code,
            put(second, "steps/0/x?samples=0:4", npy(np.arange(4.0))).status_code,
            put(second, "steps/0/x?samples=4:8", npy(np.arange(4.0))).status_code,
            json_put(first, "steps/0", {"t": 0.6}).status_code,
            json_put(first, "samples?samples=0:2", {"label": ["a", "b"]}).status_code,
            json_put(second, "samples?samples=1:3", {"label": ["c", "d"]}).status_code,
        ]
        removed = first.delete("/runs/r", params={"confirm": "r", "force": "true"})
        lost = put(second, "steps/1/x?samples=0:4", npy(np.arange(4.0)))

    assert codes == [201, 201, 409, 200, 201, 409, 201, 409]
    assert removed.status_code == 200, removed.text
    assert kind(lost) == (404, "run-not-found")


def test_a_run_that_nobody_pushes_to_is_closed(folder_store: Store, serve: Serve) -> None:
    """So that a recorder elsewhere, or a person, can see that nobody is at it."""
    base = serve(folder_store, allow_push=True, push_idle_s=0.1)
    with httpx.Client(base_url=base, timeout=60) as client:
        declare(client, "r", samples=4)
        put(client, "steps/0/x", X)
        first = ends(folder_store)
        again = put(client, "steps/1/x", X)
        both = ends(folder_store)

    assert again.status_code == 201
    assert set(both) == {"closed"}
    assert len(both) > len(first)


def ends(store: Store) -> list[str | None]:
    """Wait until nobody has the run ``r`` open, and return how each opening of it ended."""
    records = RunRecords(store, "r")
    while not all(chain.ended for chain in records.epochs):
        records.refresh()
    return [chain.end for chain in records.epochs]


def test_a_store_that_is_away_is_a_503_and_then_it_goes_on(s3: S3Server, serve: Serve) -> None:
    base = serve(s3.fresh_url(), allow_push=True, push_patience_s=1.5)
    with httpx.Client(base_url=base, timeout=60) as client:
        declare(client, "r", samples=4)
        put(client, "steps/0/x", X)
        with s3.paused(), ThreadPoolExecutor(16) as pool:
            away = list(pool.map(lambda n: put(client, f"steps/{n}/x", X), range(1, 17)))
        while (back := put(client, "steps/1/x", X)).status_code == 503:
            time.sleep(0.05)

        assert {kind(answer) for answer in away} == {(503, "store-unreachable")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in away)
        assert back.status_code in (200, 201)
        assert read(client, "/runs/r/fields/x?steps=0:2").tolist() == [[*range(4)]] * 2


def test_what_was_acknowledged_outlives_the_service(folder_store: Store) -> None:
    """It is killed again and again in the middle of many requests, and started again."""
    process = Process(folder_store, unused_port())
    acknowledged: set[tuple[int, int]] = set()

    def push(start: int) -> None:
        with httpx.Client(base_url=process.url, timeout=60) as client:
            step = 0
            while step < 25:
                body = npy(np.arange(start, start + 4) + 100.0 * step)
                try:
                    answer = put(client, f"steps/{step}/x?samples={start}:{start + 4}", body)
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                assert answer.status_code in (200, 201), answer.text
                acknowledged.add((step, start))
                step += 1

    with httpx.Client(base_url=process.url, timeout=60) as client:
        declare(client, "r", steps=25, samples=16)
        with ThreadPoolExecutor(4) as pool:
            pushers = [pool.submit(push, start) for start in range(0, 16, 4)]
            for count in (10, 50):
                while len(acknowledged) < count and not all(one.done() for one in pushers):
                    time.sleep(0.002)
                process.kill()
                field = RunRecords(folder_store, "r").ledger.fields["trace/x"]
                lost = [at for at in {*acknowledged} if field.tile(at[0], at[1] // 4) is None]
                process.start()
                assert not lost
            for one in pushers:
                one.result()
        sealed = client.post("/runs/r/seal")
        found = read(client, "/runs/r/fields/x")
    process.end()

    assert sealed.status_code == 200, sealed.text
    np.testing.assert_array_equal(found, np.arange(16) + 100.0 * np.arange(25)[:, None])


def test_many_pushers_at_two_workers(folder_store: Store) -> None:
    """The workers do not know of one another, and the run is sealed by either."""
    process = Process(folder_store, unused_port(), workers=2)

    def push(part: int) -> list[int]:
        with httpx.Client(base_url=process.url, timeout=60) as client:
            return [
                put(
                    client,
                    f"steps/{step}?samples={4 * part}:{4 * part + 4}",
                    npz(x=np.arange(4 * part, 4 * part + 4) + 1000.0 * step, t=np.float64(step)),
                ).status_code
                for step in range(6)
            ]

    with httpx.Client(base_url=process.url, timeout=60) as client:
        declare(client, "r", steps=6, samples=64)
        records = RunRecords(folder_store, "r")
        while len({chain.writer for chain in records.epochs}) < 2:  # one may start later
            httpx.put(f"{process.url}/runs/r/tiles/steps/0", json={"t": 0.0})
            records.refresh()
        with ThreadPoolExecutor(16) as pool:
            codes = [code for codes in pool.map(push, range(16)) for code in codes]
        sealed = client.post("/runs/r/seal")
        found = read(client, "/runs/r/fields/x")
        table = client.get("/runs/r/steps").json()
    process.end()

    assert set(codes) == {201}
    assert sealed.status_code == 200, sealed.text
    np.testing.assert_array_equal(found, np.arange(64) + 1000.0 * np.arange(6)[:, None])
    assert table["coordinates"]["t"] == [*map(float, range(6))]
