"""Every error that leaves the service, as a problem document (RFC 9457) with a stable kind.

One table gives the HTTP status of each class of error, and of the few kinds that HTTP tells
apart more finely. An error nobody foresaw is logged with an id, and the answer tells the id.
"""

from __future__ import annotations

import logging
import math
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from archive_schema.errors import (
    AccessError,
    ArchiveError,
    ConflictError,
    ErrorKind,
    FormatError,
    InvalidInputError,
    NotFoundError,
    ServerError,
    StorageError,
    TooLargeError,
)
from archive_schema.wire import KIND_HEADER, PROBLEM_MEDIA_TYPE, Problem
from server.ranges import UnsatisfiableRangeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG: Final = logging.getLogger("trace_archive.server")
RETRY_AFTER_S: Final = 2

_STATUS_OF_KIND: Final[dict[ErrorKind, HTTPStatus]] = {
    ErrorKind.FORMAT_NOT_ACCEPTABLE: HTTPStatus.NOT_ACCEPTABLE,
    ErrorKind.RANGE_NOT_SATISFIABLE: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ErrorKind.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    ErrorKind.TOKEN_REQUIRED: HTTPStatus.UNAUTHORIZED,
    ErrorKind.BODY_DAMAGED: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorKind.DEADLINE_PASSED: HTTPStatus.REQUEST_TIMEOUT,
    ErrorKind.STORE_FULL: HTTPStatus.INSUFFICIENT_STORAGE,
    ErrorKind.PRECONDITION_FAILED: HTTPStatus.PRECONDITION_FAILED,
}
_STATUS_OF_CLASS: Final[dict[type[Exception], HTTPStatus]] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    FormatError: HTTPStatus.INTERNAL_SERVER_ERROR,
    StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
    AccessError: HTTPStatus.FORBIDDEN,
    ServerError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ArchiveError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_KIND_OF_STATUS: Final[dict[int, ErrorKind]] = {
    HTTPStatus.NOT_FOUND: ErrorKind.ROUTE_NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorKind.METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ErrorKind.REQUEST_TOO_LARGE,
}
_OF_THE_STORE: Final[dict[ErrorKind, str]] = {
    ErrorKind.STORE_UNREACHABLE: "the store of the archive does not answer",
    ErrorKind.STORE_REFUSED: "the store of the archive refuses this service; its log says why",
}
"""What is told instead of the store's own words, which name hosts, keys and users."""
_CLIENT_FAULTS: Final = range(400, 500)


def status_of(error: ArchiveError) -> HTTPStatus:
    """Return the status of *error*: by its kind, else by its nearest class in the table."""
    by_class = next(_STATUS_OF_CLASS[c] for c in type(error).__mro__ if c in _STATUS_OF_CLASS)
    return _STATUS_OF_KIND.get(error.kind, by_class)


def problem_response(error: ArchiveError, path: str, store_url: str = "") -> Response:
    """Return the answer that tells *error* to whoever asked for *path*.

    Where the store lies, its *store_url*, and as whom it is asked, is told to the log alone.
    """
    status = status_of(error)
    headers = {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        asked_s = error.retry_after_s if isinstance(error, StorageError) else None
        headers["Retry-After"] = str(RETRY_AFTER_S if asked_s is None else math.ceil(asked_s))
    if isinstance(error, UnsatisfiableRangeError):
        headers["Content-Range"] = f"bytes */{error.size}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.kind is not ErrorKind.STORE_BUSY:
        LOG.error("%s: %s (%s)", path, error, error.kind)
    detail = _OF_THE_STORE.get(error.kind, str(error))
    if store_url:
        detail = detail.replace(f"{store_url}/", "").replace(store_url, "the archive")
    return _response(status, error.kind, detail, path, headers)


def install(app: FastAPI) -> None:
    """Answer every error that leaves a route."""
    app.add_exception_handler(ArchiveError, _archive_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid_request)


class LastResort:
    """Answers with a problem document when a route fails in a way that nobody foresaw.

    After the first byte nothing can be answered: then the connection ends before the answer
    does, so that a client sees a cut answer and never takes it for a short one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http":
                raise
            number = secrets.token_hex(6)
            LOG.exception("%s: unexpected error %s", scope["path"], number)
            if not started:
                message = f"unexpected error; the server's log tells more under {number}"
                error = ServerError(ErrorKind.INTERNAL_ERROR, message)
                await problem_response(error, scope["path"])(scope, receive, send)


async def _archive_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ArchiveError):
        raise error
    return problem_response(error, request.url.path, request.app.state.service.store.url)


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path, status = request.url.path, HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # a body that is no text, like one that is no JSON
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    if status is HTTPStatus.NOT_FOUND:
        detail = f"nothing is served at {path}; /docs lists every call"
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{path} takes {allowed}; got {request.method}"
    else:
        detail = str(error.detail)
    fault = ErrorKind.INVALID_PARAMETER if status in _CLIENT_FAULTS else ErrorKind.INTERNAL_ERROR
    kind = _KIND_OF_STATUS.get(status, fault)
    return _response(status, kind, detail, path, error.headers or {})


async def _invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    told = (
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one.get('input')!r:.200}"
        for one in error.errors()
    )
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = ErrorKind.INVALID_PARAMETER
    return _response(status, kind, "; ".join(told), request.url.path, {})


def _response(
    status: HTTPStatus, kind: ErrorKind, detail: str, path: str, headers: Mapping[str, str]
) -> Response:
    problem = Problem(
        title=status.phrase, status=status.value, detail=detail, kind=kind, instance=path
    )
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=status,
        # The kind again: the answer to a HEAD has no body.
        headers={**headers, KIND_HEADER: kind, "Cache-Control": "no-store"},
        media_type=PROBLEM_MEDIA_TYPE,
    )
