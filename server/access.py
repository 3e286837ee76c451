"""Who may do what: stands before every route, so that no route can be forgotten.

1. Reading is open, unless the service is private; then every call but ``/healthz`` needs a token.
2. Writing, which is every method but GET, HEAD, OPTIONS and the queries that are posted, needs a
   token that may write. A service without tokens takes no writes.
3. ``--allow-push`` lets this machine write without a token. A web page that its user happens to
   visit could then write too, as that user's browser runs here: requests of other origins are
   refused, and so is any host name but this machine's own.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from archive_schema.errors import (
    AccessError,
    ArchiveError,
    ErrorKind,
    InvalidInputError,
    ServerError,
)
from server.problems import problem_response
from server.settings import is_loopback
from server.tokens import TokenFile

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.settings import Settings

LOG: Final = logging.getLogger("trace_archive.server")
CALLER: Final = "trace_archive.caller"
"""Where the scope of a request tells whose token came with it; absent where none was needed."""
_READING: Final = ("GET", "HEAD", "OPTIONS")
_POSTED_QUERY: Final = re.compile(r"/runs/[^/]+/query")
_ALWAYS_OPEN: Final = ("/healthz",)
_REALM: Final = 'Bearer realm="trace-archive"'


class Access:
    """Passes on what the caller may do, and answers the rest with 401 or 403."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._file = None if settings.tokens_file is None else TokenFile(settings.tokens_file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ArchiveError as error:
                response = problem_response(error, scope["path"])
                if error.kind is ErrorKind.TOKEN_REQUIRED:
                    response.headers["WWW-Authenticate"] = _REALM
                await response(scope, receive, send)
                return
        await self._app(scope, receive, _unshared(send) if self._settings.private else send)

    def _check(self, scope: Scope) -> None:
        """Refuse what the caller may not do.

        Raises
        ------
        AccessError
            ``token-required`` or ``token-refused``.
        """
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        writes = scope["method"] not in _READING and not (
            scope["method"] == "POST" and _POSTED_QUERY.fullmatch(path)
        )
        if not writes and (not self._settings.private or path in _ALWAYS_OPEN):
            return
        if self._file is None:
            self._check_local(scope)
            return
        text = _bearer(scope)
        if text is None:
            what = "to write" if writes else "to read"
            message = f"this service asks for a token {what}: Authorization: Bearer <token>"
            raise AccessError(ErrorKind.TOKEN_REQUIRED, message)
        try:
            token = self._file.find(text)
        except InvalidInputError as error:  # not the caller's fault
            LOG.error("%s", error)  # noqa: TRY400  the sentence says it all
            message = "the service cannot read its tokens; its log tells more"
            raise ServerError(ErrorKind.INTERNAL_ERROR, message) from error
        if token is None:
            message = "this service does not know the token; it may have been revoked"
            raise AccessError(ErrorKind.TOKEN_REQUIRED, message)
        if writes and not token.writes:
            message = f"token {token.name!r} may read and not write"
            raise AccessError(ErrorKind.TOKEN_REFUSED, message)
        scope[CALLER] = token.name

    def _check_local(self, scope: Scope) -> None:
        if not self._settings.allow_push:
            message = (
                "this service takes no writes: start it with a file of tokens"
                " (`trace-archive token`) or, for this machine alone, with --allow-push"
            )
            raise AccessError(ErrorKind.TOKEN_REFUSED, message)
        host = urlsplit(f"//{_header(scope, b'host') or ''}").hostname or ""
        if not is_loopback(host):
            message = f"without tokens only this machine may write; the request names {host!r}"
            raise AccessError(ErrorKind.TOKEN_REFUSED, message)
        origin = _header(scope, b"origin")
        own = f"{scope['scheme']}://{_header(scope, b'host')}"
        if origin not in (None, own, *self._settings.cors_origins):
            message = f"without tokens pages of other origins may not write; got {origin!r}"
            raise AccessError(ErrorKind.TOKEN_REFUSED, message)


def _unshared(send: Send) -> Send:
    """Return *send* for answers that no cache may keep for others than the one who asked."""

    async def private(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, value.replace(b"public", b"private") if name == b"cache-control" else value)
                for name, value in message["headers"]
            ]
        await send(message)

    return private


def _bearer(scope: Scope) -> str | None:
    scheme, _, text = (_header(scope, b"authorization") or "").partition(" ")
    return text.strip() or None if scheme.lower() == "bearer" else None


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None
