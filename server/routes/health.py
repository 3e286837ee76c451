"""Whether the service lives, whether it can answer, and what it counted."""

from contextlib import suppress
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from archive_schema.errors import NotFoundError
from archive_schema.wire import Problem
from server.replies import known_parameters
from server.service import service_of

router: Final = APIRouter(
    tags=["service"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)
_UNCACHED: Final = {"Cache-Control": "no-store"}


@router.get("/healthz", summary="Whether the process answers")
async def healthz(response: Response) -> dict[str, str]:
    """Answer as long as the process can; the store is not asked."""
    response.headers.update(_UNCACHED)
    return {"status": "ok", "version": version("trace-archive")}


@router.get("/readyz", summary="Whether the store answers")
def readyz(request: Request, response: Response) -> dict[str, str | int]:
    """Answer 503 while the store cannot be read."""
    service = service_of(request)
    with suppress(NotFoundError):  # an answer, too
        service.store.size("runs/ready/run.json")
    response.headers.update(_UNCACHED)
    return {"status": "ok", "pending": service.catalogue.pending}


@router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
def metrics(request: Request) -> Response:
    """Return what was answered, how fast and how much, in Prometheus' text format."""
    data, media_type = service_of(request).metrics.exposition()
    return Response(data, media_type=media_type, headers=_UNCACHED)


@router.get("/", include_in_schema=False)
async def root(request: Request) -> Response:
    """Lead a person to the description of all calls."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")
