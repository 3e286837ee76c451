"""BATCHIE's answers: distances, thetas, scores, evaluations and screens of a simulation."""

from typing import Annotated, Final, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.selection import take_steps
from archive_schema.wire import CoordinateTable, Problem
from server.formats.tables import TABLE_FORMATS
from server.replies import known_parameters, reply
from server.routes.computed import FORMATS, Computed, reply_array, reply_table
from server.routes.slices import step_number
from server.service import service_of
from server.systems.batchie import (
    Simulation,
    distances,
    evaluation,
    evaluations,
    score_table,
    screen_table,
    thetas,
)
from server.systems.batchie.documents import (
    ChainDocument,
    DistancesDocument,
    EvaluationDocument,
    PlateFolderDocument,
    SimulationDocument,
    ThetasDocument,
)

router: Final = APIRouter(
    prefix="/runs/{run}/batchie",
    tags=["batchie"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)
_Format = Annotated[str | None, Query(description=f"One of {', '.join(FORMATS)}.")]
_TableFormat = Annotated[str | None, Query(description=f"One of {', '.join(TABLE_FORMATS)}.")]


@router.get("", response_model=SimulationDocument, summary="Plate folders")
def simulation(request: Request, run: str) -> Response:
    """Return which step is which plate folder, and the files of each that are whole."""
    found = _simulation(request, run)
    folders = tuple(
        PlateFolderDocument(
            step=one.step,
            path=one.path,
            attempt=one.attempt,
            current=one.current,
            files=tuple(file.about.path for file in found.files(one.step)),
        )
        for one in found.folders
    )
    document = SimulationDocument(run=run, screen=found.screen, folders=folders)
    return reply(request, document, sealed=found.run.sealed)


@router.get("/evaluations", response_model=CoordinateTable, summary="Learning curve")
def learning_curve(request: Request, run: str, format: _TableFormat = None) -> Response:  # noqa: A002
    """Return errors of prediction by iteration, with a warning where they cannot be compared."""
    found = _simulation(request, run)
    return reply_table(request, found.run, evaluations(found), format)


@router.get("/steps/{step}/scores", response_model=CoordinateTable, summary="Scores by plate")
def scores(request: Request, run: str, step: str, format: _TableFormat = None) -> Response:  # noqa: A002
    """Return score, rank, selection and observation of each plate, by its name."""
    found = _simulation(request, run)
    return reply_table(request, found.run, score_table(found, _step(found, step)), format)


@router.get(
    "/steps/{step}/screens/{layer}", response_model=CoordinateTable, summary="A screen's rows"
)
def screen(
    request: Request,
    *,
    run: str,
    step: str,
    layer: str,
    masked: Annotated[
        Literal["show", "hide"],
        Query(description="Whether observations of unobserved plates are told."),
    ] = "show",
    format: _TableFormat = None,  # noqa: A002
) -> Response:
    """Return the experiments of `advanced_screen`, `training.screen` or `test.screen`."""
    found = _simulation(request, run)
    table = screen_table(found, _step(found, step), layer, hide_masked=masked == "hide")
    return reply_table(request, found.run, table, format)


@router.get(
    "/steps/{step}/distances/report",
    response_model=DistancesDocument,
    summary="Completeness of the distances",
)
def distances_report(request: Request, run: str, step: str) -> Response:
    """Return which pairs are missing, come twice, or disagree; and which theta is which draw."""
    found = _simulation(request, run)
    known = distances(found, _step(found, step))
    document = DistancesDocument(
        step=known.step,
        size=known.size,
        chunks=known.chunks,
        complete=known.complete,
        pairs=known.pairs,
        pairs_wanted=known.size * (known.size - 1) // 2,
        missing=known.missing,
        repeated=known.repeated,
        differing=known.differing,
        thetas=known.thetas,
        notes=known.notes,
    )
    return reply(request, document, sealed=found.run.sealed)


@router.get("/steps/{step}/distances", summary="Distances between thetas")
def distance_matrix(
    request: Request,
    *,
    run: str,
    step: str,
    rows: Annotated[str | None, Query(description="Selector of thetas.")] = None,
    columns: Annotated[str | None, Query(description="Selector of thetas.")] = None,
    format: _Format = None,  # noqa: A002
) -> Response:
    """Return the matrix, or a part of it; NaN where no chunk has the pair."""
    found = _simulation(request, run)
    known = distances(found, _step(found, step))
    notes = list(known.notes)
    if not known.complete:
        lacking = known.size * (known.size - 1) // 2 - known.pairs
        notes.append(f"{lacking} pairs are missing, and NaN")
    if known.differing:
        notes.append(f"{len(known.differing)} pairs come with two values; the first counts")
    matrix = Computed(found.run, "distances", ("row", "column"), known.dense, notes)
    return reply_array(request, matrix, {"row": rows, "column": columns}, format)


@router.get("/steps/{step}/thetas", response_model=ThetasDocument, summary="Parameters")
def parameters(request: Request, run: str, step: str) -> Response:
    """Return the chains, how many draws each has, and the names of the parameters."""
    found = _simulation(request, run)
    known = thetas(found, _step(found, step))
    chains = zip(known.chains, known.capacities, strict=True)
    document = ThetasDocument(
        step=known.step,
        theta_class=known.theta_class,
        theta_module=known.theta_module,
        chains=tuple(
            ChainDocument(chain=chain, draws=draws, capacity=capacity)
            for (chain, draws), capacity in chains
        ),
        private=known.private,
        shared=known.shared,
    )
    return reply(request, document, sealed=found.run.sealed)


@router.get("/steps/{step}/thetas/{parameter}", summary="Samples of a parameter")
def parameter(
    request: Request,
    *,
    run: str,
    step: str,
    parameter: str,
    chain: Annotated[int | None, Query(description="Number of one chain; by default all.")] = None,
    draws: Annotated[str | None, Query(description="Selector of draws.")] = None,
    format: _Format = None,  # noqa: A002
) -> Response:
    """Return a parameter stacked as (chain, draw, …), or (draw, …) of one chain."""
    found = _simulation(request, run)
    dims, values, note = thetas(found, _step(found, step)).parameter(parameter, chain)
    computed = Computed(found.run, parameter, dims, values, [note] if note else [])
    return reply_array(request, computed, {"draw": draws}, format)


@router.get(
    "/steps/{step}/evaluation", response_model=EvaluationDocument, summary="Evaluation of the model"
)
def model_evaluation(request: Request, run: str, step: str) -> Response:
    """Return the errors, and which experiments they are of."""
    found = _simulation(request, run)
    known = evaluation(found, _step(found, step))
    document = EvaluationDocument(
        step=known.step,
        rows_from=known.rows_from,
        warning=known.warning,
        chain_ids=tuple(known.chain_ids.tolist()),
        draws=tuple(known.draws),
        sample_names=known.sample_names,
        observations=tuple(known.observations.tolist()),
        **known.errors(),
    )
    return reply(request, document, sealed=found.run.sealed)


@router.get("/steps/{step}/predictions", summary="Predictions")
def predictions(
    request: Request,
    *,
    run: str,
    step: str,
    sample_name: Annotated[
        str | None, Query(description="Only experiments of this sample.")
    ] = None,
    chain: Annotated[int | None, Query(description="Number of one chain; by default all.")] = None,
    draws: Annotated[str | None, Query(description="Selector of draws.")] = None,
    experiments: Annotated[str | None, Query(description="Selector of experiments.")] = None,
    format: _Format = None,  # noqa: A002
) -> Response:
    """Return predictions as (experiment, chain, draw), or (experiment, draw) of one chain."""
    found = _simulation(request, run)
    known = evaluation(found, _step(found, step))
    values, chains = known.by_chain()
    dims: tuple[str, ...] = ("experiment", "chain", "draw")
    if sample_name is not None:
        values = values[np.array(known.sample_names) == sample_name]
        if not len(values):
            names = ", ".join(sorted(set(known.sample_names)))
            message = f"no experiment is of sample {sample_name!r}; expected one of {names}"
            raise NotFoundError(ErrorKind.NOT_RECORDED, message)
    if chain is not None:
        if chain not in chains:
            message = f"expected a chain of {list(chains)}, got {chain}"
            raise NotFoundError(ErrorKind.NOT_RECORDED, message)
        dims, values = ("experiment", "draw"), values[:, chains.index(chain)]
    notes = [known.warning] if known.warning else []
    computed = Computed(found.run, "predictions", dims, values, notes)
    return reply_array(request, computed, {"experiment": experiments, "draw": draws}, format)


def _simulation(request: Request, run: str) -> Simulation:
    return Simulation(service_of(request).archive.run(run))


def _step(found: Simulation, text: str) -> int:
    number = take_steps(step_number(text), found.run.steps)
    if not isinstance(number, int):
        raise TypeError(number)
    return number
