"""The objects of a run over HTTP: the format's rules hold whatever somebody sends."""

from __future__ import annotations

import os
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import numpy as np
import pytest
from fastcrc.crc32 import iscsi as crc32c
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.documents import document_bytes
from archive_schema.errors import InvalidInputError
from archive_schema.models import Claim, Commit, Heartbeat, Sealing
from archive_schema.store import open_store
from archive_schema.wire import content_digest
from recorder import TraceRecorder
from server.push.keys import Rule, object_key
from tests.server.test_problems import is_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from tests.server_fixture import Serve

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
TILE: Final = "trace.zarr/trace/x/c.0.0.0"
CONFORMANCE: Final = Path(__file__).parents[1] / "conformance"


class Gateway:
    """A served run, what was declared of it, and ways to put to it."""

    def __init__(self, store: Store, url: str) -> None:
        self.store = store
        self.url = url
        self.http = httpx.Client(base_url=f"{url}/runs/r/objects")

    def put(
        self, path: str, data: bytes, *, create: bool = True, digest: str | None = None
    ) -> httpx.Response:
        """Put an object, as one that must not be there or as one that may."""
        headers = {"If-None-Match": "*"} if create else {}
        if digest is not None:
            headers["Content-Digest"] = digest
        return self.http.put(path, content=data, headers=headers)


@pytest.fixture
def gateway(folder_store: Store, serve: Serve) -> Iterator[Gateway]:
    url = serve(folder_store, allow_push=True, max_object_bytes=100_000)
    httpx.post(f"{url}/runs", json={"id": "r", "steps": 2, "samples": 2}).raise_for_status()
    found = Gateway(folder_store, url)
    yield found
    found.http.close()


def commit(epoch: int = 0, sequence: int = 0, writer: str = "main") -> bytes:
    return document_bytes(Commit(writer=writer, epoch=epoch, sequence=sequence, time=NOW))


def claim(epoch: int = 0, writer: str = "main") -> bytes:
    return document_bytes(Claim(writer=writer, epoch=epoch, nonce="n", time=NOW))


def test_an_object_is_created_once(gateway: Gateway) -> None:
    first = gateway.put(TILE, b"first")
    second = gateway.put(TILE, b"second")
    read = gateway.http.get(TILE)
    part = gateway.http.get(TILE, headers={"Range": "bytes=1-2"})
    head = gateway.http.head(TILE)

    assert first.status_code == 201
    is_problem(second, 409, "object-exists")
    assert (read.status_code, read.content) == (200, b"first")
    assert read.headers["content-digest"] == content_digest(crc32c(b"first"))
    assert (part.status_code, part.content) == (206, b"ir")
    assert part.headers["content-range"] == "bytes 1-2/5"
    assert part.headers["content-digest"] == content_digest(crc32c(b"ir"))
    assert (head.headers["content-length"], head.content) == ("5", b"")


def test_documents_are_put_where_they_belong(gateway: Gateway) -> None:
    beat = document_bytes(Heartbeat(writer="main", epoch=0, time=NOW))

    assert gateway.put("commits/main/000000/claim.json", claim()).status_code == 201
    assert gateway.put("commits/main/000000/00000000.json", commit()).status_code == 201
    for _ in range(2):
        assert gateway.put("heartbeats/main.json", beat, create=False).status_code == 204
    assert gateway.http.get("commits/main/000000/00000000.json").content == commit()


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("commits/main/000000/00000001.json", commit()),
        ("commits/main/000001/00000000.json", commit()),
        ("commits/other/000000/00000000.json", commit()),
        ("commits/main/000000/claim.json", claim(epoch=1)),
        ("commits/main/000000/claim.json", claim(writer="other")),
        ("commits/main/000000/claim.json", commit()),
        ("commits/main/000000/00000000.json", commit()[:-1] + b" }"),
        ("commits/main/000000/00000000.json", commit().replace(b"2026", b"2027")),
        ("commits/main/000000/00000000.json", b""),
        ("commits/main/000000/00000000.json", b"\xff\x00"),
        ("commits/main/000000/00000000.json", b"[]"),
        ("run.json", b"{}"),
        ("seal.json", b"{}"),
        ("sealing.json", b'{"time":"now"}'),
        ("fields/trace/x.json", b"{}"),
        ("heartbeats/main.json", document_bytes(Heartbeat(writer="b", epoch=0, time=NOW))),
        ("index-00000000.json", b"{}"),
        ("trace.zarr/zarr.json", b"{"),
        ("trace.zarr/trace/zarr.json", b'{"zarr_format":2}'),
        ("trace.zarr/trace/x/zarr.json", b"[3]"),
    ],
)
def test_a_document_that_does_not_belong_there_is_refused(
    gateway: Gateway, path: str, data: bytes
) -> None:
    before = {found.key for found in gateway.store.objects("runs")}

    is_problem(gateway.put(path, data), 422, "invalid-parameter")

    assert {found.key for found in gateway.store.objects("runs")} == before


@pytest.mark.parametrize(
    "path",
    [
        "x", "trace.zarr/x", "trace.zarr/other/x/c.0", "trace.zarr/trace/x", "fields/x.json",
        "commits/main/0/claim.json", "commits/main/000000/1.json", "commits/a b/000000/claim.json",
        "displaced/main/000000/run.json", "runs/r/run.json", "annotations.json", "index-x.json",
        "trace.zarr/trace/../../../other/run.json", "..%2Frun.json", "%2e%2e/run.json",
        "trace.zarr/trace/x/c.0%00", "trace.zarr/trace/x/c.0%0A", "trace.zarr//x/c.0",
        "trace.zarr/trace/__x/c.0", "heartbeats/.json", "/run.json", "x" * 2000,
    ],
)  # fmt: skip
def test_a_key_that_no_run_has_is_refused(gateway: Gateway, path: str) -> None:
    before = {found.key for found in gateway.store.objects("")}

    # By hand, because a client takes dots out of a path.
    answer = raw(gateway.url, "PUT", f"/runs/r/objects/{path}", b"data")

    assert answer in (400, 404, 405, 422), answer
    assert {found.key for found in gateway.store.objects("")} == before


def raw(url: str, method: str, path: str, body: bytes, *, sent: int | None = None) -> int:
    """Ask as no client would; *sent* bytes of the body come, then the connection ends."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: *\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + body[:sent])
        if sent is not None:
            connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]) if answer else 0


@given(st.text(max_size=60) | st.from_regex(r"[a-z./%_0-9-]{0,60}", fullmatch=True))
def test_no_key_leads_out_of_its_run(path: str) -> None:
    try:
        found = object_key("r", path)
    except InvalidInputError:
        return
    assert ".." not in found.path.split("/")
    assert os.path.normpath(found.key) == found.key
    assert found.key.startswith("runs/r/")


def test_the_grammar_knows_every_object_that_was_ever_stored() -> None:
    """But for later generations, which nobody puts over HTTP."""
    stored = [
        path
        for path in CONFORMANCE.glob("v*/store/runs/*/**/*")
        if path.is_file() and not re.search(r"/(generations|trace-\d+-[^/]*)/", path.as_posix())
    ]

    for path in stored:
        run = next(one for one in path.parents if one.parent.name == "runs")
        found = object_key(run.name, str(path.relative_to(run)))
        found.check(path.read_bytes())
        assert (found.rule is Rule.REWRITTEN) == (
            path.name == "zarr.json"
            or path.name.startswith("index-")
            or path.parent.name in ("step", "sample", "recorded", "heartbeats")
            or path.parent.name.endswith("_recorded")
        )
    assert stored


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("run.json", None),
        ("commits/main/000000/claim.json", claim()),
        ("commits/main/000000/00000000.json", commit()),
        ("sealing.json", document_bytes(Sealing(time=NOW))),
        ("displaced/main/000000/trace/x/c.0.0.0", b"tile"),
        ("trace.zarr/layers/a.b/x/c.0.0.0", b"tile"),
    ],
)
def test_what_is_created_once_is_never_replaced(
    gateway: Gateway, path: str, data: bytes | None
) -> None:
    data = data or gateway.http.get(path).content
    gateway.put(path, data)

    problem = is_problem(gateway.put(path, data, create=False), 405, "method-not-allowed")

    assert "If-None-Match" in problem["detail"]
    assert gateway.http.get(path).content == data


def test_a_chunk_is_a_tile_where_a_field_is_declared(gateway: Gateway) -> None:
    """The values of a coordinate are rewritten; a field's are not, but when it is being sealed."""
    coordinate, tile = "trace.zarr/trace/t/c.0", "trace.zarr/trace/x/c.0.0.0"
    with TraceRecorder(gateway.store, "r", steps=2, samples=2, seal_at_exit=False) as rec:
        rec.record(0, x=np.ones((2, 3)))

    rewritten = [gateway.put(coordinate, data, create=False).status_code for data in (b"1", b"2")]
    refused = gateway.put(tile, b"2", create=False)
    gateway.put("sealing.json", document_bytes(Sealing(time=NOW)))
    while_sealing = gateway.put(tile, gateway.http.get(tile).content, create=False)

    assert rewritten == [204, 204]
    is_problem(refused, 405, "method-not-allowed")
    assert while_sealing.status_code == 204


def test_a_body_that_is_cut_is_not_stored(gateway: Gateway) -> None:
    assert raw(gateway.url, "PUT", f"/runs/r/objects/{TILE}", b"x" * 5000, sent=300) == 0
    assert gateway.http.head(TILE).status_code == 404
    assert raw(gateway.url, "PUT", f"/runs/r/objects/{TILE}", b"x" * 5000) == 201


def test_a_body_that_is_damaged_is_not_stored(gateway: Gateway) -> None:
    answer = gateway.put(TILE, b"data", digest=content_digest(crc32c(b"data") ^ 1))
    others = gateway.put(TILE, b"data", digest="sha-256=:AAAA:")

    is_problem(answer, 422, "body-damaged")
    assert others.status_code == 201


def test_a_body_that_takes_too_long_is_given_up(gateway: Gateway, serve: Serve) -> None:
    url = serve(gateway.store, allow_push=True, upload_timeout_s=0.2)
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            f"PUT /runs/r/objects/{TILE} HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: *\r\n"
            "Content-Length: 100\r\n\r\nslow".encode()
        )
        answer = connection.recv(65536)

    assert b" 408 " in answer
    assert b"deadline-passed" in answer
    assert gateway.http.head(TILE).status_code == 404


def test_an_object_that_is_too_large_is_refused_before_it_comes(gateway: Gateway) -> None:
    problem = is_problem(gateway.put(TILE, bytes(100_001)), 413, "request-too-large")

    assert "100,000" in problem["detail"]
    assert gateway.put(TILE, bytes(100_000)).status_code == 201


@pytest.mark.parametrize(
    ("headers", "query", "kind"),
    [
        ({"If-None-Match": '"x"'}, "", "invalid-parameter"),
        ({"If-None-Match": "*"}, "?x=1", "unknown-parameter"),
    ],
)
def test_a_put_that_makes_no_sense_is_refused(
    gateway: Gateway, headers: dict[str, str], query: str, kind: str
) -> None:
    is_problem(gateway.http.put(f"{TILE}{query}", content=b"1", headers=headers), 422, kind)


def test_a_body_of_unknown_length_is_refused(gateway: Gateway) -> None:
    """The memory for a body is granted before it comes."""
    answer = gateway.http.put(TILE, content=iter([b"1"]), headers={"If-None-Match": "*"})

    problem = is_problem(answer, 422, "invalid-parameter")
    assert "Content-Length" in problem["detail"]


def test_nothing_is_put_to_a_run_that_nobody_declared(gateway: Gateway) -> None:
    answer = httpx.put(
        f"{gateway.url}/runs/none/objects/{TILE}", content=b"1", headers={"If-None-Match": "*"}
    )
    invalid = httpx.put(f"{gateway.url}/runs/.hidden/objects/{TILE}", content=b"1")

    is_problem(answer, 404, "run-not-found")
    is_problem(invalid, 422, "invalid-name")
    assert gateway.store.folders("runs") == ["r"]


@pytest.mark.parametrize("path", [TILE, "run.json", "elsewhere"])
def test_no_single_object_is_removed(gateway: Gateway, path: str) -> None:
    is_problem(gateway.http.delete(path), 405, "method-not-allowed")


def test_a_listing_knows_its_end(gateway: Gateway) -> None:
    for number in range(3):
        gateway.put(f"trace.zarr/trace/x/c.{number}.0.0", b"tile")

    inside = f"{gateway.url}/runs/r/objects"
    lines = httpx.get(f"{inside}?prefix=trace.zarr").text.splitlines()
    folders = httpx.get(f"{inside}?delimiter=/").text.splitlines()
    runs = httpx.get(f"{gateway.url}/objects?prefix=runs&delimiter=/").text.splitlines()

    assert len(lines) == 4
    assert lines[-1] == '{"count":3}'
    assert folders == ['{"folder":"trace.zarr"}', '{"count":1}']
    assert runs == ['{"folder":"r"}', '{"count":1}']


@pytest.mark.parametrize(
    "query",
    ["?prefix=..", "?prefix=/", "?prefix=a//b", "?delimiter=.", "?cursor=1", "?prefix=a&prefix=b"],
)
def test_a_listing_that_makes_no_sense_is_refused(gateway: Gateway, query: str) -> None:
    is_problem(gateway.http.get(f"{gateway.url}/runs/r/objects{query}"), 422)
    is_problem(gateway.http.get(f"{gateway.url}/objects{query}"), 422)
    is_problem(gateway.http.get(f"{gateway.url}/objects"), 422)


def test_an_object_that_is_not_there_says_so_to_head_too(gateway: Gateway) -> None:
    read, head = gateway.http.get(TILE), gateway.http.head(TILE)

    is_problem(read, 404, "object-not-found")
    assert head.status_code == 404
    assert head.headers["x-trace-kind"] == "object-not-found"


def test_objects_can_be_made_to_survive_a_power_cut(gateway: Gateway) -> None:
    gateway.put(TILE, b"tile")

    done = httpx.post(f"{gateway.url}/runs/r/sync", json={"keys": [TILE, "run.json"]})
    absent = httpx.post(f"{gateway.url}/runs/r/sync", json={"keys": ["trace.zarr/zarr.json"]})
    outside = httpx.post(f"{gateway.url}/runs/r/sync", json={"keys": ["../../etc/passwd"]})

    assert done.status_code == 204
    is_problem(absent, 404, "object-not-found")
    is_problem(outside, 422, "invalid-name")


def test_durability_is_asked_for_through_a_server(folder_store: Store, serve: Serve) -> None:
    url = serve(folder_store, allow_push=True)

    with TraceRecorder(url, "r", steps=1, samples=1, durability="disk") as rec:
        rec.record(0, t=1.0)

    assert httpx.get(f"{url}/metrics").text.count('call="/runs/{run}/sync",method="POST"') > 0


def test_a_store_of_a_server_is_a_store_for_a_server(gateway: Gateway, serve: Serve) -> None:
    """A site serves another's archive: nothing is special about a store over HTTP."""
    below = serve(gateway.url)

    document = httpx.get(f"{below}/runs/r").json()
    listed = httpx.get(f"{below}/runs").json()

    assert document["id"] == "r"
    assert [run["id"] for run in listed["runs"]] == ["r"]
    assert open_store(below).folders("runs") == ["r"]
