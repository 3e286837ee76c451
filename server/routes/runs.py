"""The list of runs, and the documents of one run."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from archive_schema.models import Place
from archive_schema.wire import FieldTable, LayerTable, Problem, RunDocument, RunPage
from server.catalogue import LARGEST_PAGE, RunFilter
from server.documents import field_table, layer_table, run_document
from server.parameters import query_parameters
from server.query import matching_layers
from server.replies import METADATA, known_parameters, reply
from server.service import service_of

router: Final = APIRouter(
    tags=["runs"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)


@router.get("/runs", response_model=RunPage, summary="A page of runs")
def runs(
    request: Request,
    *,
    system: Annotated[
        str | None, Query(description="Upstream system.", examples=["d3-dna"])
    ] = None,
    status: Annotated[str | None, Query(description="recording, sealed or incomplete.")] = None,
    tag: Annotated[str | None, Query(description="A tag that the run has.")] = None,
    q: Annotated[str | None, Query(description="Text in its id, tags or metadata.")] = None,
    _meta: Annotated[
        str | None, Query(alias="meta.<key>", description="Value of a key of the metadata.")
    ] = None,
    sort: Annotated[
        str, Query(description="created, id, steps, samples or bytes; falling with `-` before it.")
    ] = "-created",
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Runs on the page.")] = 50,
    cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """Return runs, newest first; `next` is the cursor of the page after it."""
    given = query_parameters(request.scope["query_string"])
    asked = RunFilter(
        system=system,
        status=status,
        tag=tag,
        q=q,
        metadata={
            name.removeprefix(METADATA): value
            for name, value in given.items()
            if name.startswith(METADATA)
        },
        sort=sort,
        limit=limit,
        cursor=cursor,
    )
    return reply(request, service_of(request).catalogue.page(asked))


@router.get("/runs/{run}", response_model=RunDocument, summary="Everything about a run")
def run(request: Request, run: str) -> Response:
    """Return status, metadata, recorded steps, and every field and layer."""
    # Never immutable, not even of a sealed run: tags can change.
    service = service_of(request)
    view = service.archive.run(run)
    return reply(request, run_document(view, service.annotations(view)))


@router.get("/runs/{run}/fields", response_model=FieldTable, summary="The fields of a run")
def fields(request: Request, run: str) -> Response:
    """Return the fields that are recorded at steps, without those of layers."""
    return _fields(request, run, Place.TRACE)


@router.get("/runs/{run}/inputs", response_model=FieldTable, summary="The inputs of a run")
def inputs(request: Request, run: str) -> Response:
    """Return the fields that the sampler began with."""
    return _fields(request, run, Place.INPUTS)


@router.get("/runs/{run}/outputs", response_model=FieldTable, summary="The results of a run")
def outputs(request: Request, run: str) -> Response:
    """Return the fields that hold final results."""
    return _fields(request, run, Place.OUTPUTS)


@router.get("/runs/{run}/layers", response_model=LayerTable, summary="The layers of a run")
def layers(
    request: Request,
    run: str,
    layer: Annotated[
        str | None,
        Query(description="Only layers that match this glob, as people count.", examples=["down*"]),
    ] = None,
) -> Response:
    """Return every layer with its fields, their shapes, dtypes and bytes."""
    view = service_of(request).archive.run(run)
    table = layer_table(view)
    if layer is not None:
        named = {one.name: one for one in table.layers}
        table = LayerTable(layers=tuple(named[name] for name in matching_layers(view, layer)))
    return reply(request, table, sealed=view.sealed)


def _fields(request: Request, run_id: str, place: Place) -> Response:
    view = service_of(request).archive.run(run_id)
    return reply(request, field_table(view, place), sealed=view.sealed)
