"""The files that a run's own tree is made of: their names, and each of them."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as InPath

from archive_schema.wire import Problem, WireDocument
from server.answers import BodyResponse, Head, raw_header
from server.conditional import cache_control, etag, none_matches
from server.exporters import MadeFile, export_tree, tree_file
from server.formats import Body
from server.replies import known_parameters, reply
from server.service import service_of

router: Final = APIRouter(
    tags=["files"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)


class FileDocument(WireDocument):
    """One file of a tree."""

    path: str
    nbytes: int
    """Of the file that was taken over; the one that is given may be a little longer or shorter."""


class FilesDocument(WireDocument):
    """The files of a run whose system has a tree of files."""

    run: str
    files: tuple[FileDocument, ...]
    notes: tuple[str, ...]


@router.get("/runs/{run}/files", response_model=FilesDocument, summary="Files of the run's tree")
def files(request: Request, run: str) -> Response:
    """Return the names of the files that the run's system reads."""
    view = service_of(request).archive.run(run)
    tree = export_tree(view)
    document = FilesDocument(
        run=run,
        files=tuple(FileDocument(path=file.path, nbytes=file.nbytes) for file in tree.files),
        notes=tree.notes,
    )
    return reply(request, document, sealed=view.sealed)


@router.get(
    "/runs/{run}/files/{path:path}",
    summary="A file of the run's tree",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def file(
    request: Request,
    run: str,
    path: Annotated[str, InPath(description="As `/runs/{run}/files` names it.")],
) -> Response:
    """Return one file, as the programs of the run's system read it."""
    view = service_of(request).archive.run(run)
    found = tree_file(view, path)
    tag, lifetime = etag(found.digest, "file"), cache_control(sealed=view.sealed)
    if none_matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": lifetime})
    made = MadeFile(found)
    name = found.path.rpartition("/")[2]
    headers = [raw_header("Content-Disposition", f'attachment; filename="{name}"')]
    body = Body("application/octet-stream", made.nbytes, made.parts)
    return BodyResponse(Head(tag, lifetime, headers), body)
