"""VizFold's answers: what there is, attention of a head, statistics a layer, the structure."""

from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from numpy.typing import NDArray

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.selection import Selector, parse_selector, plural
from archive_schema.wire import CoordinateTable, Problem
from server.limits import check_size
from server.query import reduce
from server.replies import known_parameters, reply, reply_bytes
from server.routes.computed import FORMATS, Computed, reply_array, reply_table
from server.service import service_of
from server.systems.vizfold import (
    Attention,
    Prediction,
    StrongestEntries,
    pdb_text,
    strongest,
    summarised,
    summary,
)
from server.systems.vizfold.documents import PredictionDocument, SummaryDocument, describe

router: Final = APIRouter(
    prefix="/runs/{run}/vizfold",
    tags=["vizfold"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)
_MEAN: Final = "mean"
_PDB: Final = "chemical/x-pdb"
_Recycle = Annotated[
    int | None, Query(description="Pass, from 0; negative from the last, which is the default.")
]


@router.get("", response_model=PredictionDocument, summary="What there is to ask for")
def prediction(request: Request, run: str) -> Response:
    """Return kinds of attention, their layers, heads and residues, the sequence and the model."""
    found = _prediction(request, run)
    return reply(request, describe(found), sealed=found.run.sealed)


@router.get("/attention/{kind}", summary="Attention of a head")
def attention(
    request: Request,
    *,
    run: str,
    kind: str,
    layer: Annotated[str, Query(description="Number of the layer, or its whole name.")],
    head: Annotated[str, Query(description="Number of a head, or `mean` of all.")] = _MEAN,
    residue: Annotated[
        int | None, Query(description="Of which there is a map; the mean over residues without.")
    ] = None,
    recycle: _Recycle = None,
    top: Annotated[
        int | None, Query(ge=1, description="Only so many of the strongest, as triplets.")
    ] = None,
    threshold: Annotated[
        float | None, Query(description="Only entries as strong as this, as triplets.")
    ] = None,
    queries: Annotated[str | None, Query(description="Selector of the map's rows.")] = None,
    keys: Annotated[str | None, Query(description="Selector of the map's columns.")] = None,
    format: Annotated[str | None, Query(description=f"One of {', '.join(FORMATS)}.")] = None,  # noqa: A002
) -> Response:
    """Return a map (query, key), or its strongest entries as (src, dst, weight), strongest first.

    What is recorded as its strongest entries only answers `top` and `threshold` as far as they
    reach, exactly; anything beyond them is refused, because absent is not zero.
    """
    found = _prediction(request, run)
    number = _head(head)
    step = found.step(recycle)
    where = found.find(kind, layer, residue)
    wants_entries = top is not None or threshold is not None
    if wants_entries and where.sparse and number is not None:
        entries = where.strongest(step, head=number, residue=residue, top=top, threshold=threshold)
        return _reply_entries(request, found, entries, format)
    window = {
        dim: parse_selector(text, plural(dim))
        for dim, text in (("query", queries), ("key", keys))
        if text is not None
    }
    if wants_entries and window:
        message = "top= and threshold= are of whole maps: leave out queries= and keys="
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    dims, values, positions = _read(request, where, step, number, residue, window)
    if wants_entries:
        return _reply_entries(request, found, strongest(values, top, threshold), format)
    notes = _notes(where, residue)
    computed = Computed(found.run, where.name, dims, values, notes, positions)
    return reply_array(request, computed, {}, format)


@router.get("/summary", response_model=SummaryDocument, summary="Statistics a layer")
def statistics(
    request: Request,
    *,
    run: str,
    recycle: _Recycle = None,
    layers: Annotated[
        str | None, Query(description="Whole names, with commas; by default all.")
    ] = None,
) -> Response:
    """Return mean, standard deviation, entropy, sparsity and norm, as ESMFold's summary.json."""
    found = _prediction(request, run)
    step = found.step(recycle)
    slices = summarised(found, step, None if layers is None else set(layers.split(",")))
    limit = service_of(request).settings.max_reduced_bytes
    for values in slices.values():
        check_size(values, limit, "a summary of one field")
    told = summary(slices)
    number = next((n for n, at in found.passes.items() if at == step), None)
    document = SummaryDocument(run=run, recycle=number, **told)
    return reply(request, document, sealed=found.run.sealed)


@router.get("/structure", summary="The structure as PDB text")
def structure(request: Request, run: str) -> Response:
    """Return the PDB file that was recorded, or the alpha carbons of recorded coordinates."""
    found = _prediction(request, run)
    data, _ = pdb_text(found)
    return reply_bytes(request, data, _PDB, sealed=found.run.sealed)


def _prediction(request: Request, run: str) -> Prediction:
    return Prediction(service_of(request).archive.run(run))


def _head(text: str) -> int | None:
    if text == _MEAN:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 9:  # noqa: PLR2004  more than any
        message = f"head: expected a number or {_MEAN!r}, got {text[:40]!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return int(text)


def _read(  # noqa: PLR0917  all of them say what is read
    request: Request,
    where: Attention,
    step: int,
    head: int | None,
    residue: int | None,
    window: dict[str, Selector],
) -> tuple[tuple[str, ...], NDArray[Any], dict[str, NDArray[np.int64]]]:
    """Return a map, or the mean of all heads' maps: its axes, values and positions."""
    settings = service_of(request).settings
    first = -len(where.heads) if head is None else head
    one = where.map(step, head=first, residue=residue, window=window)
    check_size(one, settings.max_answer_bytes, "a map of attention")
    if head is not None:
        return one.dims, one.array(), one.coordinates()
    planned = where.map(step, head=None, residue=residue, window=window)
    check_size(planned, settings.max_reduced_bytes, "a mean over heads")
    dims, mean = reduce(planned, "mean", (where.head,))
    return dims, mean.astype(np.float32), one.coordinates()


def _notes(where: Attention, residue: int | None) -> list[str]:
    if where.lead is not None and residue is not None:
        return [f"the map of residue {residue}"]
    return ["the mean over residues"] if where.mean else []


def _reply_entries(
    request: Request, found: Prediction, entries: StrongestEntries, name: str | None
) -> Response:
    columns = {"src": entries.rows, "dst": entries.columns, "weight": entries.weights}
    table = CoordinateTable(
        axis="rank",
        index=tuple(range(len(entries.rows))),
        coordinates={name: tuple(values.tolist()) for name, values in columns.items()},
    )
    return reply_table(request, found.run, table, name)
