"""What is new in a run: to poll, and as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from archive_schema.errors import ArchiveError
from archive_schema.wire import Changes, Problem
from server.documents import changes as changes_of
from server.problems import LOG
from server.query import RunView
from server.replies import known_parameters, reply
from server.service import Service, service_of

POLL_S: Final = 0.5
"""How often the run is looked at for those who listen."""
HEARTBEAT_S: Final = 15.0
"""How long a stream is silent at most, so that proxies keep it open."""

router: Final = APIRouter(
    tags=["changes"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)
_Since = Annotated[
    str | None, Query(description="`version` of an earlier answer; everything without one.")
]


@router.get("/runs/{run}/changes", response_model=Changes, summary="What is new since a version")
def changes(request: Request, run: str, since: _Since = None) -> Response:
    """Return the steps and fields with something new; cheap, and 304 while nothing is."""
    return reply(request, changes_of(service_of(request).archive.run(run), since))


@router.get(
    "/runs/{run}/events",
    summary="What is new, as it comes",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events."}},
)
async def events(request: Request, run: str, since: _Since = None) -> Response:
    """Send a `change` event for everything new and end with `sealed`.

    The data of both is what `changes` answers; the id of an event is the version, so that a
    browser that reconnects goes on where it was.
    """
    service = service_of(request)
    since = request.headers.get("last-event-id") or since
    view = await service.run(run)
    first = await run_sync(changes_of, view, since)  # so that a bad `since` is a clear 422
    return StreamingResponse(
        _events(service, view, first),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _events(service: Service, view: RunView, told: Changes) -> AsyncIterator[str]:
    yield f"retry: 2000\n{_event('sealed' if view.sealed else 'change', told)}"
    spoken_s = monotonic()
    while not view.sealed:
        await asyncio.sleep(POLL_S)
        try:
            view = await service.run(view.manifest.id)
            if view.version != told.version or view.status != told.status:
                told = await run_sync(changes_of, view, told.version)
                yield _event("sealed" if view.sealed else "change", told)
                spoken_s = monotonic()
        except ArchiveError as error:
            # The client connects again and gets the error as an answer of its own.
            LOG.warning("events of run %s end: %s (%s)", view.manifest.id, error, error.kind)
            return
        if monotonic() - spoken_s > HEARTBEAT_S:
            yield ": still here\n\n"
            spoken_s = monotonic()


def _event(name: str, told: Changes) -> str:
    return f"event: {name}\nid: {told.version}\ndata: {told.model_dump_json()}\n\n"
