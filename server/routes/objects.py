"""The objects of a run by key: what a recorder over HTTP reads, lists and puts."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson
from anyio.to_thread import run_sync
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.errors import (
    ArchiveError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
)
from archive_schema.layout import ANNOTATIONS, RUNS, run_prefix
from archive_schema.models import check_run_id
from archive_schema.wire import CONTENT_DIGEST_HEADER, content_digest, digested_crc32c
from server.answers import Exchange
from server.conditional import REVALIDATE
from server.parameters import query_parameters, refuse_unknown
from server.push.keys import check_path, object_key
from server.push.upload import ClientGoneError, Upload
from server.ranges import requested_range
from server.routes.call import Call, Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import Receive, Scope, Send

    from server.service import Service

LOG: Final = logging.getLogger("trace_archive.server")
LINES_MEDIA_TYPE: Final = "application/jsonl"
_BINARY: Final = "application/octet-stream"
_DOCUMENT_ENDING: Final = ".json"
_LINES_A_PART: Final = 500


class ObjectAnswer:
    """Gives one object, whole or a range of it, with the checksum of what it sends."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        refuse_unknown(query_parameters(scope["query_string"]), ())
        path = check_path(_key(exchange))
        key = f"{_folder(exchange)}/{path}"
        try:
            if scope["method"] == "HEAD":
                size = await self._service.writing(self._service.store.size, key)
                described = [("Content-Type", _BINARY), ("Content-Length", str(size))]
                await _send(exchange, HTTPStatus.OK, described)
            elif key.endswith(_DOCUMENT_ENDING) and exchange.header(b"range") is None:
                # Small, and read by the hundred when a run is opened: one question each.
                data = await self._service.writing(self._service.store.read, key)
                with self._service.inflight.holding(len(data)):
                    await self._send_data(exchange, HTTPStatus.OK, data)
            else:
                await self._send_range(exchange, key)
        except NotFoundError as error:
            raise NotFoundError(ErrorKind.OBJECT_NOT_FOUND, f"there is no {key}") from error

    async def _send_range(self, exchange: Exchange, key: str) -> None:
        size = await self._service.writing(self._service.store.size, key)
        asked = requested_range(exchange.header(b"range"), size, if_range=None, tag="")
        start, stop = asked or (0, size)
        most = self._service.settings.max_object_bytes
        if stop - start > most:
            message = (
                f"the object has {size:,} bytes, and one answer at most {most:,}: ask by Range"
            )
            raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, message)
        with self._service.inflight.holding(stop - start):
            read = self._service.store.read_range
            data = await self._service.writing(read, key, start, stop) if stop > start else b""
            if asked is None:
                await self._send_data(exchange, HTTPStatus.OK, data)
            else:
                described = ("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
                await self._send_data(exchange, HTTPStatus.PARTIAL_CONTENT, data, described)

    async def _send_data(
        self, exchange: Exchange, status: HTTPStatus, data: bytes, *others: tuple[str, str]
    ) -> None:
        headers = [
            ("Content-Type", _BINARY),
            ("Content-Length", str(len(data))),
            (CONTENT_DIGEST_HEADER, content_digest(await run_sync(crc32c, data))),
            ("Accept-Ranges", "bytes"),
            *others,
        ]
        # Whoever reads slowly must not hold the memory of all others.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._service.settings.upload_timeout_s):
                await _send(exchange, status, headers, data)


class ObjectPut:
    """Takes one object, once its memory is granted, its length kept and its checksum found."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        refuse_unknown(query_parameters(scope["query_string"]), ())
        at = object_key(exchange.path["run"], _key(exchange))
        exclusive = _is_exclusive(exchange)
        length = _length(exchange)
        settings = self._service.settings
        if length > settings.max_object_bytes:
            message = (
                f"one object has at most {settings.max_object_bytes:,} bytes, this one has"
                f" {length:,}: record in smaller tiles"
            )
            raise TooLargeError(ErrorKind.REQUEST_TOO_LARGE, message)
        with self._service.inflight.holding(length):
            upload = Upload(receive, length, max_bytes=length, timeout_s=settings.upload_timeout_s)
            try:
                data = bytes(await upload.whole())
            except ClientGoneError:  # in the middle of the body: there is nothing to store
                return
            digest = digested_crc32c(exchange.header(CONTENT_DIGEST_HEADER.lower().encode()))
            put = partial(self._service.gateway.put, at, data, digest, exclusive=exclusive)
            await self._service.writing(put)
        status = HTTPStatus.CREATED if exclusive else HTTPStatus.NO_CONTENT
        await _send(exchange, status, [("Content-Length", "0")] if exclusive else [])


class ListingAnswer:
    """Gives the keys below a prefix as lines of JSON, the last of which tells how many came."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        given = query_parameters(scope["query_string"])
        refuse_unknown(given, ("prefix", "delimiter"))
        prefix, delimiter = given.get("prefix"), given.get("delimiter")
        if delimiter not in (None, "/"):
            message = f"parameter 'delimiter': expected '/', got {delimiter[:100]!r}"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        if "run" in exchange.path:
            folder = _folder(exchange)
            prefix = f"{folder}/{check_path(prefix)}" if prefix else folder
        elif (prefix, delimiter) not in ((RUNS, "/"), (ANNOTATIONS, None)):
            message = (
                f"expected prefix={RUNS}&delimiter=/ or prefix={ANNOTATIONS};"
                f" got prefix {str(prefix)[:100]!r} and delimiter {delimiter!r}"
            )
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        lines = self._folders if delimiter else self._objects
        await self._stream(exchange, _parts(lines(str(prefix))))

    async def _stream(self, exchange: Exchange, parts: Iterator[bytes]) -> None:
        # The first part before the status: a store that does not answer is a clear 503.
        part = await self._service.writing(next, parts, b"")
        headers = [("Content-Type", LINES_MEDIA_TYPE), ("Cache-Control", "no-store")]
        await _start(exchange, HTTPStatus.OK, headers)
        if exchange.scope["method"] == "GET":
            try:
                while part:
                    await exchange.send(
                        {"type": "http.response.body", "body": part, "more_body": True}
                    )
                    part = await self._service.writing(next, parts, b"")
            except ArchiveError as error:  # the last line is missing, which tells
                LOG.error("%s: cut: %s (%s)", exchange.scope["path"], error, error.kind)  # noqa: TRY400
                return
        await exchange.send({"type": "http.response.body"})

    def _folders(self, prefix: str) -> Iterator[dict[str, Any]]:
        for name in self._service.store.folders(prefix):
            yield {"folder": name}

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        for found in self._service.store.objects(prefix):
            yield {
                "key": found.key,
                "nbytes": found.nbytes,
                "modified_s": found.modified_s,
            }


def object_calls(service: Service) -> list[Call]:
    """Return the calls that read, list and put objects."""
    path = "/runs/{run}/objects/{key:path}"
    listing = ListingAnswer(service)
    delimiter = Parameter("delimiter", "Names of folders instead of all objects below.", ("/",))
    prefix = Parameter("prefix", "Folder to list, inside the run.", example="commits")
    access = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return [
        Call(
            path,
            ObjectAnswer(service),
            "object",
            "An object of the run as it is stored, with its checksum",
            "objects",
            media_types=(_BINARY,),
            statuses=(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            ),
            successes=((HTTPStatus.OK, "OK"), (HTTPStatus.PARTIAL_CONTENT, "A range of it.")),
        ),
        Call(
            path,
            ObjectPut(service),
            "put_object",
            "Create an object of the run, or rewrite one that may change",
            "objects",
            statuses=(
                *access,
                HTTPStatus.METHOD_NOT_ALLOWED,
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.CONFLICT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            ),
            method="PUT",
            body=(_BINARY,),
            successes=((HTTPStatus.CREATED, "Created."), (HTTPStatus.NO_CONTENT, "Rewritten.")),
        ),
        Call(
            "/runs/{run}/objects",
            listing,
            "objects",
            "The objects of a run, a line of JSON each",
            "objects",
            (prefix, delimiter),
            (LINES_MEDIA_TYPE,),
            successes=((HTTPStatus.OK, "OK"),),
        ),
        Call(
            "/annotations/{key}",
            ObjectAnswer(service),
            "annotations_object",
            "What somebody said of a run, as it is stored",
            "objects",
            media_types=(_BINARY,),
            successes=((HTTPStatus.OK, "OK"),),
        ),
        Call(
            "/objects",
            listing,
            "store_objects",
            "The names of all runs, or what there is of annotations, a line of JSON each",
            "objects",
            (replace(prefix, description="runs or annotations.", example="runs"), delimiter),
            (LINES_MEDIA_TYPE,),
            successes=((HTTPStatus.OK, "OK"),),
        ),
    ]


def _key(exchange: Exchange) -> str:
    """Return the key in a path, all of it: a route leaves out a line break at the end."""
    key = exchange.path["key"]
    return key if exchange.scope["path"].endswith(key) else f"{key}\n"


def _folder(exchange: Exchange) -> str:
    """Return the folder of the store that a path leads into."""
    run_id = exchange.path.get("run")
    return ANNOTATIONS if run_id is None else run_prefix(check_run_id(run_id))


def _parts(lines: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    count = 0
    part: list[bytes] = []
    for line in lines:
        part.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        count += 1
        if len(part) == _LINES_A_PART:
            yield b"".join(part)
            part.clear()
    part.append(orjson.dumps({"count": count}, option=orjson.OPT_APPEND_NEWLINE))
    yield b"".join(part)


def _is_exclusive(exchange: Exchange) -> bool:
    condition = exchange.header(b"if-none-match")
    if condition not in (None, "*"):
        message = f"If-None-Match: expected *, which creates an object, got {condition[:100]!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return condition is not None


def _length(exchange: Exchange) -> int:
    text = exchange.header(b"content-length")
    if text is None:
        message = "expected Content-Length: the memory for a body is granted before it comes"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return int(text)


async def _send(
    exchange: Exchange, status: HTTPStatus, headers: list[tuple[str, str]], body: bytes = b""
) -> None:
    await _start(exchange, status, [("Cache-Control", REVALIDATE), *headers])
    await exchange.send({"type": "http.response.body", "body": body})


async def _start(
    exchange: Exchange, status: HTTPStatus, headers: Sequence[tuple[str, str]]
) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    await exchange.send({"type": "http.response.start", "status": status.value, "headers": raw})
