"""Steps and samples: their coordinates, as documents and as tables."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from archive_schema.selection import ALL, Selector, plural, take, take_steps
from archive_schema.wire import MEDIA_TYPES, CoordinateTable, Problem, StepDocument
from server.documents import sample_table, step_document, step_table
from server.formats import choose_format
from server.formats.tables import TABLE_FORMATS, encode_table
from server.parameters import query_parameters, select
from server.query import RunView, narrowed
from server.replies import known_parameters, reply, reply_bytes
from server.routes.call import COORDINATES, query_parameter
from server.routes.slices import step_number
from server.service import service_of

router: Final = APIRouter(
    tags=["steps"],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)
_COORDINATES: Final = {"parameters": [query_parameter(COORDINATES)]}
_Format = Annotated[str | None, Query(description=f"One of {', '.join(TABLE_FORMATS)}.")]


@router.get(
    "/runs/{run}/steps",
    response_model=CoordinateTable,
    summary="Step coordinates",
    openapi_extra=_COORDINATES,
)
def steps(
    request: Request,
    run: str,
    steps: Annotated[str | None, Query(description="Selector of steps, by number.")] = None,  # noqa: ARG001  read with the coordinates
    format: _Format = None,  # noqa: A002  the word of the API
) -> Response:
    """Return the recorded steps and their coordinates: timestep, noise level, ….."""
    view = service_of(request).archive.run(run)
    taken = take_steps(_selector(request, view, "step", view.steps), view.steps)
    numbers = (taken,) if isinstance(taken, int) else taken
    return _table(request, step_table(view, numbers), format, sealed=view.sealed)


@router.get(
    "/runs/{run}/steps/{step}",
    response_model=StepDocument,
    summary="One step",
    dependencies=[Depends(known_parameters)],
)
def step(request: Request, run: str, step: str) -> Response:
    """Return one step: its coordinates and the fields recorded at it."""
    view = service_of(request).archive.run(run)
    number = take_steps(step_number(step), view.steps)
    if not isinstance(number, int):
        raise TypeError(number)
    return reply(request, step_document(view, number), sealed=view.sealed)


@router.get(
    "/runs/{run}/samples",
    response_model=CoordinateTable,
    summary="Sample coordinates",
    openapi_extra=_COORDINATES,
)
def samples(
    request: Request,
    run: str,
    samples: Annotated[str | None, Query(description="Selector of samples.")] = None,  # noqa: ARG001  read with the coordinates
    format: _Format = None,  # noqa: A002  the word of the API
) -> Response:
    """Return the samples and their coordinates: label, class name, seed, ….."""
    view = service_of(request).archive.run(run)
    among = range(view.samples)
    taken = take(_selector(request, view, "sample", among), "sample", view.samples)
    numbers = (taken,) if isinstance(taken, int) else tuple(taken)
    return _table(request, sample_table(view, numbers), format, sealed=view.sealed)


def _selector(request: Request, view: RunView, axis: str, among: Sequence[int]) -> Selector:
    """Return what a request takes of *axis*, by its selector and by coordinates."""
    given = query_parameters(request.scope["query_string"])
    selectors, _, named = select(given, (axis,), ("format",))
    if named:
        selectors = narrowed(view, selectors, named, {axis: among}, (plural(axis), "format"))
    return selectors.get(axis, ALL)


def _table(request: Request, table: CoordinateTable, name: str | None, *, sealed: bool) -> Response:
    chosen = choose_format(name, request.headers.get("accept"), TABLE_FORMATS)
    data = encode_table(table, chosen)
    return reply_bytes(request, data, MEDIA_TYPES[chosen], sealed=sealed, varies=name is None)
