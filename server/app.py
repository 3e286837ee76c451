"""The application: every route over one store, described by one OpenAPI document."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.routing import BaseRoute, Match

from archive_schema.wire import DIMS_HEADER, DTYPE_HEADER, SHAPE_HEADER, STEPS_HEADER
from server.access import Access
from server.body_limit import BodyLimit
from server.metrics import Counted
from server.problems import LastResort, install
from server.routes import changes, files, health, lifecycle, query, runs, steps
from server.routes.byte_calls import ByteCalls
from server.routes.exports import NOTES_HEADER, export_calls
from server.routes.objects import object_calls
from server.routes.slices import slice_calls
from server.routes.systems import system_routers
from server.routes.tiles import tile_calls
from server.routes.zarr import zarr_calls
from server.service import Service
from server.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.routes.call import Call
    from server.settings import Settings

_TITLE: Final = "trace-archive"
_SUMMARY: Final = "Every step of a generative sampler, and any slice of it, over HTTP."
_MOST_BODY_NBYTES: Final = 1 << 20
_EXPOSED: Final = (
    DTYPE_HEADER, SHAPE_HEADER, DIMS_HEADER, STEPS_HEADER, NOTES_HEADER,
    "Accept-Ranges", "Content-Disposition", "Content-Length", "Content-Range", "ETag",
    "Retry-After", "Server-Timing",
)  # fmt: skip
"""Headers that pages of other origins may read."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    settings
        By default those of the environment (``TRACE_ARCHIVE_*``).
    """
    settings = settings or load_settings()
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with service:
            yield

    app = FastAPIOffline(
        title=_TITLE,
        summary=_SUMMARY,
        version=version("trace-archive"),
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        # OpenTelemetry's providers would be looked up three times a request. Who has one can
        # instrument the application from outside; what we count is at /metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = service
    calls = [
        *slice_calls(service),
        *export_calls(service),
        *zarr_calls(service),
        *object_calls(service),
        *tile_calls(service),
    ]
    # First, because a router tries one route after another. `ByteCalls` answers them where it
    # can; here they say which methods they take.
    app.router.routes[:0] = [call.route() for call in calls]
    for module in (runs, steps, files, query, changes, lifecycle, health):
        app.include_router(module.router)
    for router in system_routers():
        app.include_router(router)
    app.router.routes.append(_HeadOfDocuments(app))
    _describe(app, calls)
    install(app)
    # The last that is added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=_MOST_BODY_NBYTES)
    app.add_middleware(ByteCalls, calls=calls, store_url=service.store.url)
    app.add_middleware(Access, settings=settings)
    app.add_middleware(LastResort)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=[
                "Authorization",
                "Range",
                "If-Match",
                "If-None-Match",
                "If-Range",
                "Content-Type",
            ],
            expose_headers=_EXPOSED,
        )
    if settings.root_path:
        app.add_middleware(_Below, root_path=settings.root_path)
    app.add_middleware(Counted, metrics=service.metrics)
    return app


class _Below:
    """Says below which path a proxy shows the service, whether or not it takes the path away."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        scope["root_path"] = self._root_path
        await self._app(scope, receive, send)


class _HeadOfDocuments(BaseRoute):
    """Answers HEAD as GET without the body, where a route knows only GET.

    FastAPI's routes do not know HEAD by themselves, and listing it beside GET would describe
    every call twice. Byte routes come first, and answer HEAD without reading anything.
    """

    def __init__(self, app: FastAPI) -> None:
        self._router = app.router

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every HEAD that no route before matched."""
        head = scope["type"] == "http" and scope["method"] == "HEAD"
        return (Match.FULL if head else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for the same by GET."""

        async def bodiless(message: Message) -> None:
            # Complete with its headers: an event stream would otherwise keep a HEAD waiting.
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        asked = {**scope, "method": "GET"}
        await self._router(asked, receive, bodiless)
        scope["route"] = asked.get("route")


def _describe(app: FastAPI, calls: Sequence[Call]) -> None:
    """Make OpenAPI describe the byte routes beside those that FastAPI knows."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                summary=app.summary,
                version=app.version,
                openapi_version=app.openapi_version,
                routes=app.routes,
            )
            for call in calls:
                operations = schema["paths"].setdefault(call.openapi_path, {})
                operations[call.method.lower()] = call.operation()
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
