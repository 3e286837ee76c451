"""Answers on the wire: headers first, then a body whose parts are computed while they go.

A body is never held whole. Its first part is computed before the status is sent, so that a
damaged tile is a clear 500; if a later part fails, the connection is cut in the middle of the
body, which every client notices.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from anyio.to_thread import run_sync
from starlette.responses import Response

from archive_schema.errors import ArchiveError
from server.conditional import none_matches
from server.formats import Body
from server.problems import LOG
from server.ranges import requested_range
from server.recent import RecentAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from starlette.types import Receive, Scope, Send

    from server.formats import Part
    from server.recent import Asked, RawHeaders


class Head(NamedTuple):
    """What an answer says before its body."""

    tag: str
    cache_control: str
    headers: Sequence[tuple[bytes, bytes]] = ()
    varies: bool = False
    """Whether ``Accept`` decided the format."""


class Exchange(NamedTuple):
    """One request and the way back: what plain ASGI gives."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def path(self) -> dict[str, str]:
        """What the path names: ``{"run": "ds-eval-0041"}``."""
        found: dict[str, str] = self.scope["path_params"]
        return found

    @property
    def asked(self) -> Asked:
        """What decides the answer, beside the state of the run."""
        return self.scope["path"], self.scope["query_string"], self.header(b"accept")

    def header(self, name: bytes) -> str | None:
        """Return the header *name* (in lower case) of the request; None if it has none."""
        found: str | None = None
        for key, value in self.scope["headers"]:
            if key == name:
                text = value.decode("latin-1")
                found = text if found is None else f"{found}, {text}"
        return found


async def send_not_modified(exchange: Exchange, head: Head) -> bool:
    """Answer 304 if the client holds this representation already; return whether it does."""
    if not none_matches(exchange.header(b"if-none-match"), head.tag):
        return False
    await _start(exchange, HTTPStatus.NOT_MODIFIED, _raw(head))
    await exchange.send({"type": "http.response.body"})
    return True


def whole_answer(head: Head, body: Body, version: str, *, began: float) -> RecentAnswer:
    """Return the answer with its whole body: for what takes less than the way to a thread.

    Parameters
    ----------
    version
        Of the run that is answered about.
    began : float, seconds of `perf_counter`
        When work on the answer began, for ``Server-Timing``.
    """
    planned = perf_counter()
    data = b"".join(body.parts())
    headers = _raw(head, body.media_type, len(data))
    headers.append(_timing(began, planned))
    return RecentAnswer(version, head.tag, headers, data)


async def send_whole(exchange: Exchange, answer: RecentAnswer) -> None:
    """Send an answer that is there, or 304 if the client holds it already."""
    send, status, headers, body = exchange.send, HTTPStatus.OK, answer.headers, answer.body
    if none_matches(exchange.header(b"if-none-match"), answer.tag):
        status, body = HTTPStatus.NOT_MODIFIED, b""
        headers = [pair for pair in headers if not pair[0].startswith(b"content-")]
    elif exchange.scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_body(
    exchange: Exchange,
    head: Head,
    body: Body,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    began: float | None = None,
) -> None:
    """Send *body*, whose parts are computed in a thread.

    Parameters
    ----------
    began : float, seconds of `perf_counter`, optional
        When work on the answer began, for ``Server-Timing``.
    """
    headers = _raw(head, body.media_type, body.nbytes)
    if exchange.scope["method"] == "HEAD":
        await _start(exchange, status, headers)
        await exchange.send({"type": "http.response.body"})
        return
    planned = perf_counter()
    parts = body.parts()
    # The first part may be a mere header: what can fail is in the second.
    first = await run_sync(lambda: list(islice(parts, 2)))
    headers.append(_timing(began, planned))
    await _start(exchange, status, headers)
    await _stream(exchange, first, parts)


async def send_range(
    exchange: Exchange,
    head: Head,
    media_type: str,
    size: int,
    read: Callable[[int, int], Iterator[Part]],
) -> None:
    """Send the whole of something of *size* bytes, or the one range that is asked for.

    Parameters
    ----------
    read
        Gives the bytes ``[start, stop)``.

    Raises
    ------
    UnsatisfiableRangeError
        ``range-not-satisfiable``.
    """
    asked = None
    if exchange.scope["method"] == "GET":
        asked = requested_range(
            exchange.header(b"range"),
            size,
            if_range=exchange.header(b"if-range"),
            tag=head.tag,
        )
    start, stop = asked or (0, size)
    ranged = [(b"accept-ranges", b"bytes")]
    if asked is not None:
        ranged.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, size)))
    body = Body(media_type, stop - start, partial(read, start, stop))
    status = HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT
    await send_body(exchange, head._replace(headers=(*head.headers, *ranged)), body, status=status)


async def _stream(exchange: Exchange, first: Sequence[Part], parts: Iterator[Part]) -> None:
    gone = asyncio.ensure_future(_disconnected(exchange.receive))
    try:
        for part in first:
            await exchange.send({"type": "http.response.body", "body": part, "more_body": True})
        async for part in _threaded(parts):
            if gone.done():
                return
            await exchange.send({"type": "http.response.body", "body": part, "more_body": True})
        await exchange.send({"type": "http.response.body"})
    except ArchiveError as error:
        # To return before the body is complete makes the server close the connection.
        LOG.error("%s: cut in the middle: %s (%s)", exchange.scope["path"], error, error.kind)
    finally:
        gone.cancel()


async def _threaded(parts: Iterator[Part]) -> AsyncIterator[Part]:
    """Yield parts, each computed in a thread."""
    while (part := await run_sync(next, parts, None)) is not None:
        yield part


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(exchange: Exchange, status: HTTPStatus, headers: RawHeaders) -> None:
    message = {"type": "http.response.start", "status": status.value, "headers": headers}
    await exchange.send(message)


def raw_header(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header as ASGI takes it."""
    return name.lower().encode(), value.encode()


def _raw(head: Head, media_type: str | None = None, nbytes: int | None = None) -> RawHeaders:
    headers = [(b"etag", head.tag.encode()), (b"cache-control", head.cache_control.encode())]
    if head.varies:
        headers.append((b"vary", b"Accept"))
    headers += head.headers
    if media_type is not None:
        headers.append((b"content-type", media_type.encode()))
    if nbytes is not None:
        headers.append((b"content-length", b"%d" % nbytes))
    return headers


def _timing(began: float | None, planned: float) -> tuple[bytes, bytes]:
    read_ms = (perf_counter() - planned) * 1e3
    if began is None:
        return b"server-timing", b"read;dur=%.2f" % read_ms
    plan_ms = (planned - began) * 1e3
    return b"server-timing", b"plan;dur=%.2f, read;dur=%.2f" % (plan_ms, read_ms)


class BodyResponse(Response):
    """A `Body` as the response of a FastAPI route."""

    def __init__(self, head: Head, body: Body) -> None:
        super().__init__()
        self._head = head
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send_body(Exchange(scope, receive, send), self._head, self._body)
