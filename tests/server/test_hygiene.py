"""HEAD, ETags, lifetimes, CORS: what caches, proxies and browsers rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from server.conditional import none_matches
from tests.server.conftest import LAYER, write_run

if TYPE_CHECKING:
    from archive_schema.store import Store
    from tests.server_fixture import Serve

SLICES = (
    "/runs/sealed/steps/1/score?samples=0:2",
    "/runs/sealed/fields/score",
    f"/runs/sealed/layers/{LAYER}/output?steps=::2",
    "/runs/sealed/inputs/start",
    "/runs/sealed/fields/score?steps=1:3&reduce=mean",
    "/runs/sealed/steps/1/score?samples=0&top=3",
    "/runs/sealed/fields/loss?missing=mask",
)
DOCUMENTS = (
    "/runs",
    "/runs/sealed",
    "/runs/sealed/steps",
    "/runs/sealed/steps/1",
    "/runs/sealed/layers",
    "/runs/sealed/fields",
    "/runs/sealed/inputs",
    "/runs/sealed/outputs",
    "/runs/sealed/samples",
    "/runs/sealed/changes",
)
FILES = (
    "/runs/sealed.h5",
    "/runs/sealed.npz",
    "/runs/sealed/export?format=generic-npz",
    "/runs/sealed/zarr/zarr.json",
    "/runs/sealed/zarr/trace/score/zarr.json",
    "/runs/sealed/zarr/trace/score/c.1.0.0.0",
)
UNNAMED = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")


@pytest.mark.parametrize("path", [*SLICES, *DOCUMENTS, *FILES, *UNNAMED])
def test_head_says_what_get_says(http: httpx.Client, path: str) -> None:
    got, head = http.get(path), http.head(path)

    assert got.status_code == head.status_code == 200, got.text
    assert not head.content
    for name in ("etag", "content-type", "cache-control", "x-trace-shape", "accept-ranges"):
        assert head.headers.get(name) == got.headers.get(name), name
    if "content-length" in head.headers and path != "/metrics":  # counts this very request
        assert int(head.headers["content-length"]) == len(got.content)


@pytest.mark.parametrize("path", [*SLICES, *DOCUMENTS, *FILES])
def test_who_holds_an_answer_is_not_sent_it_again(http: httpx.Client, path: str) -> None:
    tag = http.get(path).headers["etag"]

    again = http.get(path, headers={"If-None-Match": tag})
    weak = http.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
    anything = http.get(path, headers={"If-None-Match": "*"})
    other = http.get(path, headers={"If-None-Match": '"other"'})

    assert tag.startswith('"')
    assert tag.endswith('"')
    for answer in (again, weak, anything):
        assert answer.status_code == 304
        assert not answer.content
        assert answer.headers["etag"] == tag
    assert other.status_code == 200


@pytest.mark.parametrize("kind", ["json", "npy", "raw", "npz", "csv", "arrow"])
def test_each_format_has_a_tag_of_its_own(http: httpx.Client, kind: str) -> None:
    """A cache that mixed them up would hand NumPy a JSON text."""
    tags = {
        other: http.get(f"/runs/sealed/steps/1/score?format={other}").headers["etag"]
        for other in ("json", "npy", "raw", "npz", "csv", "arrow")
    }

    assert [other for other, tag in tags.items() if tag == tags[kind]] == [kind]


def test_no_data_is_read_for_a_tag(folder_store: Store, serve: Serve) -> None:
    """The object of the tile is gone, and HEAD and 304 still answer."""
    run = write_run(folder_store, "run").seal()
    folder_store.delete(run.key("trace/sequence", 4, 0))

    with httpx.Client(base_url=serve(folder_store)) as client:
        path = "/runs/run/steps/4/sequence?format=npy"
        head = client.head(path)
        held = client.get(path, headers={"If-None-Match": head.headers["etag"]})
        got = client.get(path)

    assert head.status_code == 200
    assert held.status_code == 304
    assert got.status_code == 500


def test_slices_of_a_sealed_run_may_be_kept_for_ever(http: httpx.Client) -> None:
    sealed = http.get("/runs/sealed/steps/1/score").headers["cache-control"]
    live = http.get("/runs/live/steps/1/score").headers["cache-control"]

    assert "immutable" in sealed
    assert live == "no-cache"


def test_the_document_of_a_sealed_run_is_asked_for_again(http: httpx.Client) -> None:
    """Its tags may change, and compacting it moves its Zarr."""
    for path in ("/runs/sealed", "/runs/sealed/zarr/zarr.json"):
        assert http.get(path).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", [*SLICES, *DOCUMENTS, *FILES])
def test_no_answer_sets_a_cookie(http: httpx.Client, path: str) -> None:
    assert "set-cookie" not in http.get(path).headers


def test_a_slice_tells_what_it_cost(http: httpx.Client) -> None:
    answer = http.get("/runs/sealed/fields/sequence?steps=0:3&samples=1")

    assert "read;dur=" in answer.headers["server-timing"]


def test_only_the_origin_of_the_setting_may_read(http: httpx.Client) -> None:
    path = "/runs/sealed/steps/1/score?format=raw"
    allowed = http.get(path, headers={"Origin": "https://viewer.example"})
    other = http.get(path, headers={"Origin": "https://elsewhere.example"})
    preflight = http.options(
        path,
        headers={
            "Origin": "https://viewer.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "range, if-none-match",
        },
    )

    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example"
    assert "X-Trace-Shape" in allowed.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in other.headers
    assert preflight.status_code == 200


def test_a_problem_can_be_read_by_the_page_that_caused_it(http: httpx.Client) -> None:
    answer = http.get("/runs/nowhere", headers={"Origin": "https://viewer.example"})

    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == "https://viewer.example"


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b","a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
    ],
)
def test_if_none_match_is_read_as_the_rfc_says(header: str | None, matches: bool) -> None:  # noqa: FBT001  an expectation
    assert none_matches(header, '"a"') is matches
