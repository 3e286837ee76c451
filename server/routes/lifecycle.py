"""Runs that are declared, tagged, sealed and removed over HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response

from archive_schema.annotations import Annotations, put_annotations
from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import check_run_id
from archive_schema.wire import (
    AnnotationsDocument,
    AnnotationsPatch,
    Problem,
    RemovedDocument,
    RunDeclaration,
    RunDocument,
    SyncRequest,
)
from server.access import CALLER
from server.conditional import none_matches
from server.documents import annotations_document, run_document
from server.problems import LOG
from server.push.keys import check_path
from server.push.lifecycle import declare as declare_run
from server.push.lifecycle import remove as remove_run
from server.push.lifecycle import seal as seal_run
from server.replies import document_tag, known_parameters, reply
from server.service import Service, service_of

router: Final = APIRouter(
    tags=["writing"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)
_Force = Annotated[bool, Query(description="Also while somebody records it.")]
_IfMatch = Annotated[str | None, Header(description="Tag of the version that is meant.")]


@router.post(
    "/runs",
    response_model=RunDocument,
    summary="Declare a run",
    status_code=201,
    responses={200: {"model": RunDocument, "description": "An equal run is there already."}},
)
def declare(request: Request, declaration: Annotated[RunDeclaration, Body()]) -> Response:
    """Create the run, or find the equal one that is there; another of its id is a conflict."""
    service = service_of(request)
    created = declare_run(service.store, declaration)
    status = 201 if created else 200
    response = _document(service, declaration.id, status)
    below = request.scope.get("root_path", "")
    response.headers["Location"] = f"{below}/runs/{declaration.id}"
    return response


@router.post("/runs/{run}/seal", response_model=RunDocument, summary="Finish a run")
def seal(request: Request, run: str, *, force: _Force = False) -> Response:
    """Seal the run, so that nothing can be added to it; nothing happens if it is sealed."""
    service = service_of(request)
    service.pushes.close(check_run_id(run))
    seal_run(service.store, run, force=force)
    return _document(service, run)


@router.post("/runs/{run}/sync", status_code=204, summary="Make objects survive a power cut")
def sync(request: Request, run: str, wanted: Annotated[SyncRequest, Body()]) -> Response:
    """Return once the objects are on the device; an object store does that by itself."""
    service_of(request).gateway.sync(check_run_id(run), map(check_path, wanted.keys))
    return Response(status_code=204)


@router.get(
    "/runs/{run}/annotations", response_model=AnnotationsDocument, summary="Tags and note of a run"
)
def annotations(request: Request, run: str) -> Response:
    """Return what of the run may change at any time, with the tag that `PATCH` takes."""
    return reply(request, _annotations(service_of(request), run))


@router.patch("/runs/{run}", response_model=AnnotationsDocument, summary="Tag a run, or note")
def annotate(
    request: Request,
    run: str,
    patch: Annotated[AnnotationsPatch, Body()],
    *,
    if_match: _IfMatch = None,
) -> Response:
    """Replace the tags or the note, of a sealed run too; the last word counts."""
    service = service_of(request)
    view = service.archive.run(run)
    known = service.annotations(view)
    tag = document_tag(annotations_document(view, known))
    if if_match is not None and not none_matches(if_match, tag):
        message = f"the annotations of run {run!r} are {tag} now, not {if_match[:100]}: read again"
        raise ConflictError(ErrorKind.RUN_DIFFERS, message)
    changed = patch.model_dump(exclude_unset=True)
    if not changed:
        message = "expected tags, note or both; got neither"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    said = {
        "tags": None if known is None else known.tags,
        "note": "" if known is None else known.note,
        **changed,
    }
    said["note"] = said["note"] or ""
    found = Annotations(uid=view.manifest.uid, time=datetime.now(UTC), **said)
    put_annotations(service.store, run, found)
    service.catalogue.nudge()
    return reply(request, annotations_document(view, found))


@router.delete("/runs/{run}", response_model=RemovedDocument, summary="Remove a run")
def remove(
    request: Request,
    run: str,
    *,
    confirm: Annotated[str | None, Query(description="The id again.")] = None,
    force: _Force = False,
    if_match: _IfMatch = None,
) -> Response:
    """Remove the run and everything in it for good: `confirm` names it, or If-Match its uid."""
    service = service_of(request)
    check_run_id(run)
    if if_match is not None:
        uid = service.archive.run(run).manifest.uid
        if not none_matches(if_match, f'"{uid}"'):
            message = f"run {run!r} has uid {uid}, not {if_match[:100]}"
            raise ConflictError(ErrorKind.RUN_DIFFERS, message)
    elif confirm != run:
        message = f"parameter 'confirm': expected {run!r}, the id again; got {confirm!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    if force:
        service.pushes.close(run)
    count = remove_run(service.store, run, force=force)
    LOG.warning("run %s removed by %s: %d objects", run, request.scope.get(CALLER, "-"), count)
    service.forget(run)
    return reply(request, RemovedDocument(run=run, objects=count))


def _document(service: Service, run_id: str, status: int = 200) -> Response:
    service.archive.forget(run_id)  # what just became of it is not to be missing
    view = service.archive.run(run_id)
    data = run_document(view, service.annotations(view)).model_dump_json()
    return Response(data, status, media_type="application/json")


def _annotations(service: Service, run_id: str) -> AnnotationsDocument:
    view = service.archive.run(run_id)
    return annotations_document(view, service.annotations(view))
