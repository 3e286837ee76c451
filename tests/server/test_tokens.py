"""Who may read and write: tokens, how they are made, and what a service without any allows."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from archive_schema.errors import AccessError, ErrorKind, InvalidInputError, StorageError
from archive_schema.store import HttpStore, StoreOptions, open_store
from clients import ArchiveClient
from recorder import TraceRecorder
from server.app import create_app
from server.settings import load_settings
from server.tokens import TokenFile
from tests.command import trace_archive
from tests.server.test_problems import is_problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from archive_schema.store import Store
    from tests.server_fixture import Serve


def writes() -> Iterator[tuple[str, str]]:
    """Yield method and path of every call that writes."""
    schema = create_app(load_settings(store="memory://tokens")).openapi()
    values = {"run": "r", "key": "run.json", "step": "1", "field": "x", "layer": "l", "name": "n"}
    for path, methods in schema["paths"].items():
        for method in methods:
            if method != "get" and not path.endswith("/query"):
                yield method.upper(), path.format(**values)


WRITES = list(writes())


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_there_are_calls_that_write() -> None:
    assert {method for method, _ in WRITES} == {"POST", "PUT", "PATCH", "DELETE"}


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_every_call_that_writes_is_closed(http: httpx.Client, method: str, path: str) -> None:
    """Also one that somebody adds later: what is not known to read, writes."""
    is_problem(http.request(method, path), 403, "token-refused")


def test_a_token_opens_what_it_is_for(
    folder_store: Store, serve: Serve, file: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    reads, writes = file.add("reader", "read"), file.add("writer", "write")
    url = serve(folder_store, tokens_file=str(file.path))
    declaration = {"id": "r", "steps": 1, "samples": 1}
    caplog.set_level(logging.DEBUG)

    with httpx.Client(base_url=url) as client:
        none = client.post("/runs", json=declaration)
        unknown = client.post("/runs", json=declaration, headers=bearer("ta_wrong"))
        basic = client.post("/runs", json=declaration, headers={"Authorization": "Basic YTpi"})
        reader = client.post("/runs", json=declaration, headers=bearer(reads))
        writer = client.post("/runs", json=declaration, headers=bearer(writes))
        public = client.get("/runs/r")
        removed = client.delete("/runs/r?confirm=r", headers=bearer(writes))

    for refused in (none, unknown, basic):
        is_problem(refused, 401, "token-required")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    is_problem(reader, 403, "token-refused")
    assert writer.status_code == 201
    assert public.status_code == 200
    assert removed.status_code == 200
    assert "writer" in caplog.text  # who removed it
    assert reads not in caplog.text
    assert writes not in caplog.text


def test_a_private_service_asks_who_reads(
    folder_store: Store, serve: Serve, file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = file.add("reader", "read")
    with TraceRecorder(folder_store, "r", steps=1, samples=2) as rec:
        rec.record(0, x=np.array([[1.0], [2.0]]))
    url = serve(folder_store, tokens_file=str(file.path), private=True)

    for path in ("runs", "runs/r", "runs/r/fields/x?format=raw", "runs/r.npz", "readyz", "metrics"):
        is_problem(httpx.get(f"{url}/{path}"), 401, "token-required")
        answer = httpx.get(f"{url}/{path}", headers=bearer(reads))
        assert answer.status_code == 200
        assert "public" not in answer.headers.get("cache-control", "")
    assert httpx.get(f"{url}/healthz").status_code == 200
    with ArchiveClient(url, token=reads) as client:
        assert client.run("r")["x"][0, 1, 0] == 2.0
    monkeypatch.setenv("TRACE_ARCHIVE_TOKEN", reads)
    with ArchiveClient(url) as client:
        assert client.run("r")["x"][0, 1, 0] == 2.0
    assert open_store(url).folders("runs") == ["r"]


def test_a_recorder_needs_a_token_that_writes(
    folder_store: Store, serve: Serve, file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = file.add("reader", "read"), file.add("writer", "write")
    url = serve(folder_store, tokens_file=str(file.path))

    for token, kind in ((None, ErrorKind.TOKEN_REQUIRED), (reads, ErrorKind.TOKEN_REFUSED)):
        store = open_store(url, StoreOptions(token=token))
        with pytest.raises(AccessError) as refused, TraceRecorder(store, "r", steps=1):
            pass
        assert refused.value.kind is kind
    monkeypatch.setenv("TRACE_ARCHIVE_TOKEN", writes)
    with TraceRecorder(url, "r", steps=1, samples=1) as rec:
        rec.record(0, x=np.ones((1, 1)))

    assert folder_store.size("runs/r/seal.json") > 0


def test_a_revoked_token_is_refused_at_once(
    folder_store: Store, serve: Serve, file: TokenFile
) -> None:
    """No worker is told; each looks whether the file has changed."""
    token = file.add("lab-a", "write")
    url = serve(folder_store, tokens_file=str(file.path))
    before = httpx.post(f"{url}/runs", json={"id": "a"}, headers=bearer(token))

    TokenFile(file.path).revoke("lab-a")

    is_problem(
        httpx.post(f"{url}/runs", json={"id": "b"}, headers=bearer(token)), 401, "token-required"
    )
    assert before.status_code == 201
    later = TokenFile(file.path).add("lab-b", "write")
    answer = httpx.post(f"{url}/runs", json={"id": "b"}, headers=bearer(later))
    assert answer.status_code == 201


def test_without_its_tokens_a_service_is_closed_and_not_open(
    folder_store: Store, serve: Serve, file: TokenFile
) -> None:
    token = file.add("lab-a", "write")
    url = serve(folder_store, tokens_file=str(file.path))

    file.path.write_text("{")
    damaged = httpx.post(f"{url}/runs", json={"id": "a"}, headers=bearer(token))
    file.path.unlink()
    gone = httpx.post(f"{url}/runs", json={"id": "a"}, headers=bearer(token))

    problem = is_problem(damaged, 500, "internal-error")
    assert str(file.path) not in problem["detail"]
    is_problem(gone, 401, "token-required")


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}]
)
def test_a_page_that_somebody_visits_cannot_write(
    folder_store: Store, serve: Serve, headers: dict[str, str]
) -> None:
    """Without tokens, whoever runs on this machine may write: a browser's pages do not count."""
    url = serve(folder_store, allow_push=True)

    answer = httpx.post(f"{url}/runs", json={"id": "r"}, headers=headers)
    own = httpx.post(f"{url}/runs", json={"id": "r"}, headers={"Origin": url})

    is_problem(answer, 403, "token-refused")
    assert own.status_code == 201


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"private": True}, "TOKENS_FILE"),
        ({"allow_push": True, "tokens_file": "t"}, "allow_push"),
        ({"allow_push": True, "host": "0.0.0.0", "public": True}, "allow_push"),
    ],
)
def test_settings_that_would_open_too_much_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        load_settings(store="x", **values)


def test_a_private_service_may_listen_where_others_reach_it() -> None:
    settings = load_settings(store="x", host="0.0.0.0", private=True, tokens_file="t")

    assert not settings.public


def test_a_token_is_shown_once_and_kept_by_its_digest(file: TokenFile) -> None:
    made = trace_archive("token", "--file", str(file.path), "--name", "lab-a", "--write")
    again = trace_archive("token", "--file", str(file.path), "--name", "lab-a")
    listed = trace_archive("token", "--file", str(file.path), "--list", "--json")
    shown = trace_archive("token", "--file", str(file.path), "--list")
    token = made.stdout.strip()
    found = file.find(token)
    revoked = trace_archive("token", "--file", str(file.path), "--revoke", "lab-a")
    unknown = trace_archive("token", "--file", str(file.path), "--revoke", "lab-a")

    assert made.returncode == 0, made.stderr
    assert token.startswith("ta_")
    assert len(token) > 40
    assert found is not None
    assert found.writes
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [(one["name"], one["scope"]) for one in json.loads(listed.stdout)] == [
        ("lab-a", "write")
    ]
    assert "lab-a" in shown.stdout
    for output in (listed.stdout, shown.stdout, made.stderr):
        assert token not in output
    assert (again.returncode, revoked.returncode, unknown.returncode) == (1, 0, 1)
    assert file.find(token) is None


@pytest.mark.parametrize(
    "arguments",
    [(), ("--name", "a", "--list"), ("--list", "--write"), ("--name", "a b"), ("--name", "")],
)
def test_a_token_command_that_makes_no_sense_is_exit_code_2(
    file: TokenFile, arguments: tuple[str, ...]
) -> None:
    result = trace_archive("token", "--file", str(file.path), *arguments)

    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert not file.path.exists()


def test_a_file_of_tokens_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        TokenFile(tmp_path / "folder").tokens()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        TokenFile(tmp_path / "file" / "tokens").add("a", "read")


@pytest.mark.parametrize("token", ["a\nb", "", " a", "ä"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        HttpStore("http://127.0.0.1:1", token)

    assert "printable" in str(refused.value)
