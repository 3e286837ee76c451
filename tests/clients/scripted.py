"""A real HTTP server that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from archive_schema.errors import ErrorKind
from archive_schema.models import RunStatus
from archive_schema.wire import (
    PROBLEM_MEDIA_TYPE,
    FieldDocument,
    Problem,
    RunDocument,
    WireDocument,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True)
class Answer:
    """One answer; *cut* ends the connection after so many bytes of the body."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Script:
    """What a server answers, in this order, and what it was asked."""

    url: str
    answers: list[Answer | Callable[[Asked], Answer]]
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def scripted(*answers: Answer | Callable[[Asked], Answer]) -> Iterator[Script]:
    """Serve *answers*, the last of them again and again."""
    script = Script("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked = Asked(self.command, self.path, dict(self.headers), self.rfile.read(length))
            script.asked.append(asked)
            said = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            said = said if isinstance(said, Answer) else said(asked)
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body[: said.cut])
            self.close_connection = said.cut is not None

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  the base class names them

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


def document(answer: WireDocument) -> Answer:
    """Return a JSON document."""
    return Answer(answer.model_dump_json().encode(), headers={"Content-Type": "application/json"})


def problem(status: int, kind: str, detail: str = "so it is", **headers: str) -> Answer:
    """Return a problem document."""
    said = Problem(title="A title", status=status, kind=kind, detail=detail)
    return Answer(
        said.model_dump_json().encode(), status, {"Content-Type": PROBLEM_MEDIA_TYPE, **headers}
    )


def values(body: bytes, shape: tuple[int, ...], dims: tuple[str, ...], dtype: str) -> Answer:
    """Return an array in the raw format."""
    headers = {
        "X-Trace-Dtype": dtype,
        "X-Trace-Shape": ",".join(map(str, shape)),
        "X-Trace-Dims": ",".join(dims),
    }
    return Answer(body, headers=headers)


def run_document(**changes: Any) -> RunDocument:
    """Return a run with one field ``x``: steps 0, 1, 2 and 4 samples of int16."""
    shape = FieldDocument(
        name="x",
        dims=("step", "sample"),
        shape=(3, 4),
        dtype="int16",
        place="trace",
        source_dtype="int16",
        steps=((0, 3, 1),),
        bytes=24,
        stored_bytes=24,
        complete=True,
    )
    described = {
        "id": "r",
        "uid": "u",
        "system": "generic",
        "status": RunStatus.SEALED,
        "created": "2026-01-02T03:04:05Z",
        "steps": 3,
        "samples": 4,
        "stored_bytes": 24,
        "step_ranges": ((0, 3, 1),),
        "fields": (shape,),
        "version": "v1",
    }
    return RunDocument.model_validate({**described, **changes})


BUSY = problem(503, ErrorKind.STORE_UNREACHABLE, "the store is away", **{"Retry-After": "0"})
