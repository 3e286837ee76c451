"""Whatever a client sends, it gets a problem document that says what was expected."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_schema.errors import ArchiveError, ErrorKind
from archive_schema.models import Codec
from server.app import create_app
from server.problems import LastResort, status_of
from server.settings import load_settings
from tests.query.builder import Builder, spec_of
from tests.server.conftest import LAYER, write_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from tests.s3_server import S3Server
    from tests.server_fixture import Serve

VALUES = {
    "run": "sealed",
    "step": "1",
    "field": "score",
    "layer": LAYER,
    "key": "trace/score/zarr.json",
    "kind": "msa_row",
    "parameter": "W",
    "path": "iter_0/plate_0/screen/selected_plate",
}
FIELDS = {"inputs": "start", "outputs": "label", "layers": "output"}
UNFIT = ("/runs/{run}.json", "/runs/{run}.csv", "/runs/{run}.fasta", "/runs/{run}.txt")
"""Formats that runs of this system do not have."""


def paths() -> list[tuple[str, str]]:
    """Return method and path of every call, with values of the served run in it."""
    schema = create_app(load_settings(store="memory://problems")).openapi()
    found = []
    for template, methods in schema["paths"].items():
        if "/objects" in template or template.startswith("/annotations"):
            continue  # they answer for a store: tests/server/test_objects.py
        values = dict(VALUES)
        for part, field in FIELDS.items():
            if f"/{part}/" in template:
                values["field"] = field
        # Calls that write have tests of their own, beside those of each.
        found += [
            (method.upper(), template.format(**values))
            for method in methods
            if method == "get" or template.endswith("/query")
        ]
    return found


CALLS = paths()
ABOUT_RUNS = [(method, path) for method, path in CALLS if "/sealed" in path]
SLICES = [
    path
    for _, path in ABOUT_RUNS
    if any(path.endswith(f"/{f}") for f in ("score", *FIELDS.values()))
]


def is_problem(answer: httpx.Response, status: int, kind: str | None = None) -> dict[str, Any]:
    """Check that *answer* is a problem document, and return it."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code == status, problem
    assert problem["kind"] in set(ErrorKind)
    assert problem["title"]
    assert problem["detail"]
    if kind is not None:
        assert problem["kind"] == kind, problem
    return problem


def complete(path: str) -> str:
    """Return *path* with the parameters that it cannot do without."""
    needed = {"/export": "?format=h5", "/attention/": "?layer=0"}
    return path + next((query for part, query in needed.items() if part in path), "")


def ask(http: httpx.Client, method: str, path: str) -> httpx.Response:
    """Ask for *path*, with a body where the call takes one."""
    body = {"slices": [{"field": "score"}]} if method == "POST" else None
    return http.request(method, path, json=body)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_answers_what_it_is_asked(http: httpx.Client, method: str, path: str) -> None:
    """So that the refusals below are for the fault and not for another one."""
    if any(f"/{system}" in path for system in ("batchie", "dmd2", "vizfold")):
        is_problem(ask(http, method, complete(path)), 422, "invalid-parameter")
        return
    if "/files" in path or any(path == unfit.format(**VALUES) for unfit in UNFIT):
        is_problem(ask(http, method, path), 406, "format-not-acceptable")
        return
    assert ask(http, method, complete(path)).status_code == 200


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_unknown_parameter_is_refused_and_the_known_are_named(
    http: httpx.Client, method: str, path: str
) -> None:
    problem = is_problem(ask(http, method, f"{path}?smaples=0:8"), 422, "unknown-parameter")

    assert "'smaples'" in problem["detail"]
    assert "expected" in problem["detail"]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_parameter_that_comes_twice_is_refused(
    http: httpx.Client, method: str, path: str
) -> None:
    problem = is_problem(ask(http, method, f"{path}?a=1&a=2"), 422, "invalid-parameter")

    assert "2 times" in problem["detail"]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_too_many_parameters_are_refused(http: httpx.Client, method: str, path: str) -> None:
    query = "&".join(f"p{number}=1" for number in range(100))

    is_problem(ask(http, method, f"{path}?{query}"), 422, "invalid-parameter")


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_another_method_is_refused(http: httpx.Client, method: str, path: str) -> None:
    other = "OPTIONS" if method == "GET" else "GET"  # those that write are refused before

    answer = http.request(other, path)

    is_problem(answer, 405, "method-not-allowed")
    assert method in answer.headers["allow"]


@pytest.mark.parametrize(("method", "path"), ABOUT_RUNS)
def test_an_unknown_run_is_not_found(http: httpx.Client, method: str, path: str) -> None:
    asked = complete(path).replace("/sealed", "/nowhere")

    problem = is_problem(ask(http, method, asked), 404, "run-not-found")

    assert "'nowhere'" in problem["detail"]
    assert "file://" not in problem["detail"], "where the store lies is no client's business"


@pytest.mark.parametrize("run_id", ["%2e%2e", "-x", "a%00b", "a%0ab", "x" * 200, "%ff", "é"])
@pytest.mark.parametrize(("method", "path"), ABOUT_RUNS)
def test_what_is_no_run_id_is_refused(
    http: httpx.Client, method: str, path: str, run_id: str
) -> None:
    asked = complete(path).replace("/sealed", f"/{run_id}")

    answer = ask(http, method, asked)

    is_problem(answer, 422, "invalid-name")


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("samples=7", "selection-out-of-bounds"),
        ("samples=-8", "selection-out-of-bounds"),
        ("samples=0:8:0", "invalid-selection"),
        ("samples=a", "invalid-selection"),
        ("samples=", "invalid-selection"),
        ("samples=1:2:3:4", "invalid-selection"),
        ("samples=1,,2", "invalid-selection"),
        ("samples=1_0", "invalid-selection"),
        ("samples=99999999999999999999999999", "invalid-selection"),
        ("sample=1&samples=1", "invalid-parameter"),
        ("reduce=median", "invalid-parameter"),
        ("over=sample", "invalid-parameter"),
        ("reduce=mean&over=nothing", "invalid-parameter"),
        ("reduce=mean&over=sample,sample", "invalid-parameter"),
        ("reduce=mean&top=3", "invalid-parameter"),
        ("top=0", "invalid-parameter"),
        ("top=x", "invalid-parameter"),
        ("top=3&threshold=x", "invalid-parameter"),
        ("threshold=nan", "invalid-parameter"),
        ("missing=zero", "invalid-parameter"),
        ("missing=mask&format=raw", "invalid-parameter"),
    ],
)
def test_a_bad_selection_is_told(http: httpx.Client, query: str, kind: str) -> None:
    is_problem(http.get(f"/runs/sealed/fields/score?{query}"), 422, kind)


def test_a_selection_out_of_bounds_names_axis_value_and_length(http: httpx.Client) -> None:
    problem = is_problem(http.get("/runs/sealed/fields/score?samples=7"), 422)

    assert "sample 7" in problem["detail"]
    assert "length 7" in problem["detail"]


def test_a_mean_over_a_dropped_axis_is_refused(http: httpx.Client) -> None:
    is_problem(http.get("/runs/sealed/fields/score?samples=1&reduce=mean&over=sample"), 422)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/runs/sealed/fields/nothing", "field-not-found"),
        ("/runs/sealed/steps/1/nothing", "field-not-found"),
        ("/runs/sealed/inputs/score", "field-not-found"),
        ("/runs/sealed/layers/nothing/output", "layer-not-found"),
        (f"/runs/sealed/layers/{LAYER}/nothing", "field-not-found"),
        ("/runs/sealed/steps/99", "step-not-recorded"),
        ("/runs/sealed/steps/99/score", "step-not-recorded"),
        ("/runs/sealed/steps/-6", "step-not-recorded"),
        ("/runs/sealed/fields/score?steps=99", "step-not-recorded"),
        ("/runs/sealed/zarr/nothing/zarr.json", "object-not-found"),
        ("/runs/sealed/zarr/trace/score/c.9.0.0.0", "object-not-found"),
        ("/runs/sealed.h5?fields=nothing", "field-not-found"),
        ("/nothing", "route-not-found"),
        ("/runs/", "route-not-found"),
    ],
)
def test_what_is_not_there_is_404(http: httpx.Client, path: str, kind: str) -> None:
    is_problem(http.get(path), 404, kind)
    assert http.head(path).status_code == 404


@pytest.mark.parametrize("step", ["x", "1.5", "1:2", "9" * 30, "+-1"])
def test_a_step_in_the_path_is_a_number(http: httpx.Client, step: str) -> None:
    for path in (f"/runs/sealed/steps/{step}", f"/runs/sealed/steps/{step}/score"):
        is_problem(http.get(path), 422, "invalid-selection")


@pytest.mark.parametrize(
    "key",
    [
        "../run.json",
        "%2e%2e/run.json",
        "trace/../../run.json",
        "..%2frun.json",
        "/etc/passwd",
        "trace//zarr.json",
        "./zarr.json",
        "",
        "trace/",
        "a%00b/zarr.json",
        "a%5c..%5crun.json",
        "x" * 300 + "/zarr.json",
    ],
)
def test_a_key_cannot_leave_the_zarr(served_store: Any, key: str) -> None:
    """On a bare socket, because a client library would tidy the path up."""
    status, body = raw_get(served_store.url, f"/runs/sealed/zarr/{key}")

    assert status in (404, 422), body
    assert b"application/problem+json" in body
    assert b"uid-sealed" not in body


@pytest.mark.parametrize("key", ["trace", "trace/score", "run.json", "zarr.json.bak", "c.0"])
def test_what_is_no_object_of_a_zarr_is_404(http: httpx.Client, key: str) -> None:
    for method in ("GET", "HEAD"):
        assert http.request(method, f"/runs/sealed/zarr/{key}").status_code == 404


def raw_get(url: str, path: str) -> tuple[int, bytes]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while part := connection.recv(65536):
            data += part
    return int(data.split(b" ", 2)[1]), data


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(SLICES),
    query=st.dictionaries(
        st.sampled_from(
            ["step", "steps", "sample", "samples", "axis0", "format", "reduce", "over", "top", "x"]
        )
        | st.text(max_size=5),
        st.text(max_size=8)
        | st.from_regex(r"-?[0-9]{0,3}:?-?[0-9]{0,3}:?-?[0-9]?", fullmatch=True),
        max_size=4,
    ),
    headers=st.dictionaries(
        st.sampled_from(["Accept", "If-None-Match", "Range", "If-Range"]),
        # Stripped: the client itself refuses to send a header of blanks.
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.strip),
        max_size=2,
    ),
)
def test_nothing_that_a_client_sends_is_the_servers_fault(
    http: httpx.Client, path: str, query: dict[str, str], headers: dict[str, str]
) -> None:
    answer = http.get(path, params=query, headers=headers)

    assert answer.status_code in (200, 304, 404, 406, 413, 422), answer.text
    if answer.status_code >= 400:
        is_problem(answer, answer.status_code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"slices": []}',
        b'{"slices": [{"field": 3}]}',
        b'{"slices": [{"field": "score", "nonsense": 1}]}',
        b'{"slices": [{"field": "score", "select": {"samples": "x"}}]}',
        b'{"slices": [{"field": "score", "select": {"nonsense": "1"}}]}',
        b'{"slices": [{"field": "score", "name": ""}]}',
        b'{"slices": [{"field": "score"}], "missing": "zero"}',
        b"\xff\xfe",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post(
        "/runs/sealed/query", content=body, headers={"Content-Type": "application/json"}
    )

    is_problem(answer, 422)


def chunked() -> Iterator[bytes]:
    for _ in range(200):
        yield b" " * 65536


@pytest.mark.parametrize("sized", [True, False])
def test_a_huge_body_is_refused_before_it_is_held(http: httpx.Client, *, sized: bool) -> None:
    body = b"".join(chunked()) if sized else chunked()

    answer = http.post(
        "/runs/sealed/query", content=body, headers={"Content-Type": "application/json"}
    )

    is_problem(answer, 413, "request-too-large")


def test_a_damaged_tile_is_named(folder_store: Store, serve: Serve) -> None:
    run = write_run(folder_store, "run").seal()
    key = run.key("trace/score", 2, 1)
    data = bytearray(folder_store.read(key))
    data[10] ^= 0xFF
    folder_store.write(key, bytes(data))

    with httpx.Client(base_url=serve(folder_store)) as client:
        for kind in ("json", "npy", "npz", "csv", "arrow", "raw"):
            answer = client.get(f"/runs/run/steps/2/score?format={kind}")
            problem = is_problem(answer, 500, "tile-damaged")
        intact = client.get("/runs/run/steps/2/score?samples=0:3&format=raw")

    assert key in problem["detail"]
    assert "trace/score" in problem["detail"]
    assert "step 2" in problem["detail"]
    assert "file://" not in problem["detail"]
    assert intact.status_code == 200


def test_a_lost_tile_is_an_error_and_never_zero(folder_store: Store, serve: Serve) -> None:
    run = write_run(folder_store, "run").seal()
    folder_store.delete(run.key("trace/score", 2, 1))

    with httpx.Client(base_url=serve(folder_store)) as client:
        slice_ = client.get("/runs/run/steps/2/score?format=npy")
        reduced = client.get("/runs/run/fields/score?reduce=mean")
        file = client.get("/runs/run/zarr/trace/score/c.2.1.0.0")

    is_problem(slice_, 500, "tile-lost")
    is_problem(reduced, 500, "tile-lost")
    is_problem(file, 500, "tile-lost")


def test_a_tile_cut_short_is_damaged_for_zarr_clients_too(
    folder_store: Store, serve: Serve
) -> None:
    run = write_run(folder_store, "run").seal()
    key = run.key("trace/score", 2, 1)
    folder_store.write(key, folder_store.read(key)[:-3])

    with httpx.Client(base_url=serve(folder_store)) as client:
        answer = client.get("/runs/run/zarr/trace/score/c.2.1.0.0")

    is_problem(answer, 500, "tile-damaged")


def test_a_fault_after_the_first_byte_cuts_the_connection(
    folder_store: Store, serve: Serve
) -> None:
    """Never a body that is short and looks whole: neither by its length nor in chunks."""
    values = np.ones((40, 50_000), np.float32)
    run = Builder(folder_store, "run", steps=1, samples=40).declare(
        spec_of("big", values, tile=10, codec=Codec(name="zstd"))
    )
    run.put_step("trace/big", values).seal()
    folder_store.delete(run.key("trace/big", 0, 3))
    url = serve(folder_store)

    for path in ("fields/big?format=npy", "fields/big?format=json", "fields/big?format=npz"):
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("GET", f"{url}/runs/run/{path}") as answer,
        ):
            assert answer.status_code == 200
            for _ in answer.iter_raw():
                pass
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/runs/run.npz")


def test_an_unreachable_store_is_503_and_says_when_to_try_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        url = serve("s3://bucket/archive", store_endpoint_url=endpoint)
        answers = [
            httpx.get(f"{url}/{path}", timeout=60) for path in ("runs/run", "runs", "readyz")
        ]
        health = httpx.get(f"{url}/healthz")

    for answer in answers:
        is_problem(answer, 503, "store-unreachable")
        assert int(answer.headers["retry-after"]) > 0
    assert health.status_code == 200


def test_what_a_store_refuses_is_told_to_the_log_alone(
    s3: S3Server, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """S3's words name users, keys and hosts."""
    monkeypatch.setenv("TRACE_ARCHIVE_STORE_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("TRACE_ARCHIVE_STORE_SECRET_ACCESS_KEY", "wrong-secret")
    url = serve(s3.fresh_url(), store_endpoint_url=s3.endpoint_url)

    problem = is_problem(httpx.get(f"{url}/runs/run", timeout=60), 503, "store-refused")

    assert problem["detail"] == "the store of the archive refuses this service; its log says why"
    assert "does not know this access key" in caplog.text
    assert "wrong-secret" not in caplog.text


def test_what_nobody_foresaw_is_logged_under_the_id_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def faulty(*_: object) -> None:
        raise ZeroDivisionError("the secret of the house")

    async def ask_it() -> httpx.Response:
        transport = httpx.ASGITransport(LastResort(faulty))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/runs")

    problem = is_problem(asyncio.run(ask_it()), 500, "internal-error")

    number = problem["detail"].rpartition(" ")[2]
    assert len(number) == 12
    assert number in caplog.text
    assert "the secret of the house" in caplog.text
    assert "secret" not in problem["detail"]


def test_too_much_is_refused_before_anything_is_read(folder_store: Store, serve: Serve) -> None:
    run = write_run(folder_store, "run").seal()
    for step in range(5):
        for tile in range(3):
            folder_store.delete(run.key("trace/score", step, tile))

    with httpx.Client(
        base_url=serve(folder_store, max_answer_bytes=500, max_text_bytes=100)
    ) as client:
        answers = [client.get(f"/runs/run/fields/score?format={kind}") for kind in ("npy", "json")]
        query = client.post("/runs/run/query", json={"slices": [{"field": "score"}]})
        part = answers[0].json()["detail"].rpartition("such as ")[2]
        smaller = client.get(f"/runs/run/fields/score?format=npy&{part}")

    for answer in (*answers, query):
        is_problem(answer, 413, "answer-too-large")
    is_problem(smaller, 500, "tile-lost")  # it fits, so that it is read


def test_the_part_that_is_named_fits(serve: Serve, served_store: Any) -> None:
    with httpx.Client(base_url=serve(served_store.store, max_answer_bytes=500)) as client:
        refused = client.get("/runs/sealed/fields/score?format=raw")
        part = refused.json()["detail"].rpartition("such as ")[2]
        answer = client.get(f"/runs/sealed/fields/score?format=raw&{part}")

    assert refused.status_code == 413
    assert answer.status_code == 200
    assert 0 < len(answer.content) <= 500


def test_a_reduction_has_a_limit_of_its_own(serve: Serve, served_store: Any) -> None:
    with httpx.Client(base_url=serve(served_store.store, max_reduced_bytes=100)) as client:
        is_problem(client.get("/runs/sealed/fields/score?reduce=mean"), 413, "answer-too-large")


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_has_a_status(kind: ErrorKind) -> None:
    assert 400 <= status_of(ArchiveError(kind, "")) < 600


def test_options_reach_the_store() -> None:
    settings_ = load_settings(
        store="x", store_endpoint_url="http://127.0.0.1:1", store_anonymous=True
    )

    options = settings_.store_options
    assert options.endpoint_url == "http://127.0.0.1:1"
    assert options.anonymous
