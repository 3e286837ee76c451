"""Answers on the wire: headers first, then a body whose parts are computed while they go.

A body is never held whole. Its first part is computed before the status is sent, so that a
damaged tile is a clear 500; if a later part fails, the connection is cut in the middle of the
body, which every client notices.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from anyio.to_thread import run_sync

from archive_schema.errors import ArchiveError
from server.conditional import none_matches
from server.problems import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import Receive, Scope, Send

    from server.formats import Body, Part

_END: Final = object()


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer says before its body."""

    tag: str
    cache_control: str
    headers: Sequence[tuple[str, str]] = ()
    varies: bool = False
    """Whether ``Accept`` decided the format."""


def request_header(scope: Scope, name: bytes) -> str | None:
    """Return the header *name* (in lower case) of a request; None if it has none."""
    found = [value for key, value in scope["headers"] if key == name]
    return b", ".join(found).decode("latin-1") if found else None


async def send_not_modified(scope: Scope, send: Send, head: Head) -> bool:
    """Answer 304 if the client holds this representation already; return whether it does."""
    if not none_matches(request_header(scope, b"if-none-match"), head.tag):
        return False
    await _start(send, HTTPStatus.NOT_MODIFIED, head, ())
    await send({"type": "http.response.body"})
    return True


async def send_body(
    scope: Scope,
    receive: Receive,
    send: Send,
    head: Head,
    body: Body,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    inline: bool = False,
) -> None:
    """Send *body*.

    Parameters
    ----------
    inline
        Compute the parts here rather than in a thread: for what takes less than the way to
        a thread and back.
    """
    described = [("Content-Type", body.media_type)]
    if body.nbytes is not None:
        described.append(("Content-Length", str(body.nbytes)))
    if scope["method"] == "HEAD":
        await _start(send, status, head, described)
        await send({"type": "http.response.body"})
        return
    began = perf_counter()
    parts = body.parts()
    if inline:
        whole = b"".join(parts)
        described.append(_timing(began))
        await _start(send, status, head, described)
        await send({"type": "http.response.body", "body": whole})
        return
    first = await run_sync(next, parts, _END)
    described.append(_timing(began))
    await _start(send, status, head, described)
    if first is not _END:
        await _stream(scope, receive, send, parts, first)


async def _stream(
    scope: Scope, receive: Receive, send: Send, parts: Iterator[Part], part: Any
) -> None:
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        while part is not _END:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if gone.done():
                return
            part = await run_sync(next, parts, _END)
        await send({"type": "http.response.body"})
    except ArchiveError as error:
        # To return before the body is complete makes the server close the connection.
        LOG.error("%s: cut in the middle: %s (%s)", scope["path"], error, error.kind)  # noqa: TRY400  the message says it all
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(
    send: Send, status: HTTPStatus, head: Head, described: Sequence[tuple[str, str]]
) -> None:
    headers = [
        ("ETag", head.tag),
        ("Cache-Control", head.cache_control),
        *([("Vary", "Accept")] if head.varies else []),
        *head.headers,
        *described,
    ]
    await send(
        {
            "type": "http.response.start",
            "status": status.value,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }
    )


def _timing(began: float) -> tuple[str, str]:
    return "Server-Timing", f"read;dur={(perf_counter() - began) * 1e3:.2f}"
