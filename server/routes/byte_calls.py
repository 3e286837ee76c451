"""The byte calls, found before FastAPI and what it wraps around a route.

Behind the layers that every request passes: counters, access, the last resort. A call costs a
regular expression here, and an error becomes a problem document as it does everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import compile_path

from archive_schema.errors import ArchiveError
from server.problems import problem_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from server.routes.call import Call


class ByteCalls:
    """Answers GET and HEAD of *calls*, and passes on everything else.

    Parameters
    ----------
    calls
        Tried one after another, like routes.
    store_url
        Left out of what errors tell.
    """

    def __init__(self, app: ASGIApp, calls: Sequence[Call], store_url: str) -> None:
        self._app = app
        self._store_url = store_url
        # A path's parameters are texts, of which no converter makes anything else.
        self._found = [
            (compile_path(call.path)[0].match, call) for call in calls if call.method == "GET"
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path = scope["path"]
            if scope.get("root_path"):
                path = path.removeprefix(scope["root_path"])
            for match, call in self._found:
                named = match(path)
                if named is None:
                    continue
                scope["path_params"] = named.groupdict()
                scope["route"] = call  # for the metrics
                try:
                    await call.answer(scope, receive, send)
                except ArchiveError as error:
                    problem = problem_response(error, scope["path"], self._store_url)
                    await problem(scope, receive, send)
                return
        await self._app(scope, receive, send)
