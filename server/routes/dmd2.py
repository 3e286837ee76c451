"""DMD2's answers: neighbours of a sample, and sheets of pictures."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.selection import ALL, parse_selector, take, take_steps
from archive_schema.systems.dmd2 import IMAGE, RECONSTRUCTED, SAMPLE_ID
from archive_schema.systems.png import png
from archive_schema.wire import CoordinateTable, Problem
from server.conditional import cache_control, etag, none_matches
from server.formats.tables import TABLE_FORMATS
from server.replies import document_tag, known_parameters, reply
from server.routes.computed import reply_table
from server.routes.slices import step_number
from server.service import service_of
from server.systems.dmd2 import ImageSet, features_of, image_set
from server.systems.dmd2.atlas import cells, sheet
from server.systems.dmd2.documents import (
    AtlasDocument,
    CellDocument,
    ImageLayerDocument,
    ImageSetDocument,
)
from server.systems.dmd2.neighbours import (
    activation_distances,
    neighbour_table,
    projected_distances,
)

router: Final = APIRouter(
    prefix="/runs/{run}/dmd2",
    tags=["dmd2"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)
_TableFormat = Annotated[str | None, Query(description=f"One of {', '.join(TABLE_FORMATS)}.")]


@router.get("", response_model=ImageSetDocument, summary="The data set")
def dataset(request: Request, run: str) -> Response:
    """Return layers with their shapes and places in a flat row, codebook, pictures, embeddings."""
    found = _dataset(request, run)
    layers: list[ImageLayerDocument] = []
    start = 0
    for field in found.layers:
        features = features_of(field)
        layers.append(
            ImageLayerDocument(
                layer=str(field.spec.layer),
                dims=field.dims[2:],
                shape=field.spec.tail,
                features=features,
                start=start,
            )
        )
        start += features
    tables = () if found.embeddings is None else found.embeddings.tables
    document = ImageSetDocument(
        run=run,
        model=found.model,
        samples=found.run.samples,
        named=sum(SAMPLE_ID in one for one in found.samples),
        class_order=found.class_order,
        classes=len(found.classes),
        layers=tuple(layers),
        width=start,
        pictures=tuple(name for name in (IMAGE, RECONSTRUCTED) if found.pictures(name)),
        embeddings=tuple(table.name for table in tables),
    )
    return reply(request, document, sealed=found.run.sealed)


@router.get("/neighbours", response_model=CoordinateTable, summary="Nearest neighbours")
def neighbours(
    request: Request,
    *,
    run: str,
    sample: Annotated[str, Query(description="A position, or the id of a sample.")] = "0",
    k: Annotated[int, Query(ge=1, le=10_000, description="How many.")] = 10,
    space: Annotated[
        Literal["activation", "umap"],
        Query(description="Between activations, or between points of the projection."),
    ] = "activation",
    layers: Annotated[
        str | None, Query(description="Names with commas between them; all by default.")
    ] = None,
    step: Annotated[str | None, Query(description="A step, the first by default.")] = None,
    metric: Annotated[
        Literal["euclidean", "cosine"], Query(description="Between activations.")
    ] = "euclidean",
    format: _TableFormat = None,  # noqa: A002  the word of the API
) -> Response:
    """Return the exact nearest neighbours with their distances, and what is known of them."""
    found = _dataset(request, run)
    position = _position(found, sample)
    if space == "umap":
        distances = projected_distances(found, position)
    else:
        numbers = found.run.steps
        at = take_steps(min(numbers, default=0) if step is None else step_number(step), numbers)
        distances = activation_distances(
            found,
            position,
            None if layers is None else layers.split(","),
            at if isinstance(at, int) else at[0],
            metric,
            limit=service_of(request).settings.max_reduced_bytes,
        )
    table = neighbour_table(found, position, k, distances)
    return reply_table(request, found.run, table, format)


@router.get(
    "/atlas",
    summary="A sheet of pictures",
    response_class=Response,
    responses={
        200: {"model": AtlasDocument, "content": {"image/png": {}}},
    },
)
def atlas(
    request: Request,
    *,
    run: str,
    samples: Annotated[str | None, Query(description="Selector of samples.")] = None,
    size: Annotated[int, Query(ge=1, le=1024, description="Of a cell, in pixels.")] = 64,
    columns: Annotated[int, Query(ge=1, le=4096, description="Cells in a row.")] = 16,
    field: Annotated[str, Query(description="The output that holds the pictures.")] = IMAGE,
    format: Annotated[  # noqa: A002  the word of the API
        Literal["png", "json"], Query(description="The sheet, or which sample is where on it.")
    ] = "png",
) -> Response:
    """Return many pictures as one PNG, or the map that says which sample is where on it."""
    found = _dataset(request, run)
    selector = ALL if samples is None else parse_selector(samples, "samples")
    taken = take(selector, "sample", found.run.samples)
    positions = (taken,) if isinstance(taken, int) else taken
    limit = service_of(request).settings.max_answer_bytes
    wanted = cells(found, field, positions, size, columns, limit=limit)
    document = AtlasDocument(
        run=run,
        field=field,
        size=size,
        columns=columns,
        cells=tuple(CellDocument(**asdict(cell)) for cell in wanted),
    )
    if format == "json":
        return reply(request, document, sealed=found.run.sealed)
    pictures = found.pictures(field)
    # Of pictures that are recorded nothing changes any more: the map tells the sheet.
    uid = found.run.manifest.uid
    said = document_tag(document).strip('"')
    tag = etag(f"{said}-{uid}-{0 if pictures is None else pictures.ledger.count}", "png")
    headers = {"ETag": tag, "Cache-Control": cache_control(sealed=found.run.sealed)}
    if none_matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    data = png(sheet(found, field, wanted, size))
    return Response(data, media_type="image/png", headers=headers)


def _dataset(request: Request, run: str) -> ImageSet:
    return image_set(service_of(request).archive.run(run))


def _position(found: ImageSet, text: str) -> int:
    """Return the position of a sample that is named by it, or by its id."""
    by_id = {one.get(SAMPLE_ID): at for at, one in enumerate(found.samples)}
    if text in by_id:
        return by_id[text]
    selector = parse_selector(text, "sample") if text.lstrip("+-").isdigit() else None
    if not isinstance(selector, int):
        message = f"run {found.run.manifest.id!r} has no sample {text!r}"
        raise NotFoundError(ErrorKind.NOTHING_MATCHES, message)
    taken = take(selector, "sample", found.run.samples)
    return taken if isinstance(taken, int) else taken[0]
