"""Runs as files: `.h5`, `.npz` and the other formats of their system, with Range."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError, NotFoundError
from archive_schema.selection import parse_selector
from server.answers import Exchange, Head, raw_header, send_body, send_not_modified, send_range
from server.conditional import cache_control, etag, matches
from server.exporters import export, export_tree, formats_of, tree_formats, zip_parts
from server.formats import Body
from server.parameters import query_parameters, select
from server.query import narrowed
from server.routes.call import COORDINATES, Call, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from archive_schema.selection import Selector
    from server.exporters import Export
    from server.query import RunView
    from server.service import Service

ENDINGS: Final = ("h5", "npz", "json", "csv", "fasta", "txt")
"""``/runs/{run}.{ending}`` is the format of that name; a run's id cannot end so."""
NOTES_HEADER: Final = "X-Trace-Notes"
"""What the file lacks, a sentence each."""
_LONGEST_NOTES: Final = 1000
_GROWN: Final = re.compile(r'"[0-9a-f]+-[a-z0-9-]+@([0-9:]{1,60}),([0-9:]{1,40})\.[0-9]+"')
"""Tag of a file of a run that was recorded at the time: it holds selectors of what is in it."""
_OPTIONS: Final = ("compression", "fields", "layers")
_COMPRESSIONS: Final = ("gzip", "deflate")
_PARAMETERS: Final = (
    Parameter("steps", "Selector of steps, by step number.", example="::10"),
    Parameter("samples", "Selector of samples.", example="0:8"),
    Parameter("fields", "Names of fields, with commas between them.", example="score_matrix"),
    Parameter("layers", "Globs of layers, with commas between them.", example="blocks.*"),
    Parameter(
        "compression", "Smaller, without ranges: gzip of HDF5, deflate of NPZ.", _COMPRESSIONS
    ),
    COORDINATES,
)


class ExportAnswer:
    """Answers with a run as a file of one format; of any, where *format* is None."""

    def __init__(self, service: Service, format: str | None = None) -> None:  # noqa: A002  the word of the API
        self._service = service
        self._format = format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        options = [*_OPTIONS] if self._format else ["format", *_OPTIONS]
        given = query_parameters(scope["query_string"])
        selectors, others, named = select(given, ("step", "sample"), options)
        run = await self._service.run(exchange.path["run"])
        if named:
            among = {"step": run.steps, "sample": range(run.samples)}
            others_known = ("steps", "samples", *options)
            selectors = await run_sync(narrowed, run, selectors, named, among, others_known)
        name = self._format or others.get("format")
        trees = tree_formats(run.manifest.system)
        if name in trees:
            await self._send_tree(exchange, run, name, selectors, others)
            return
        if name is None:
            known = ", ".join([*formats_of(run.manifest.system), *trees])
            message = f"parameter 'format': expected one of {known}, got nothing"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        build = partial(
            export,
            run,
            name,
            fields=others["fields"].split(",") if "fields" in others else None,
            layers=others["layers"].split(",") if "layers" in others else None,
            compression=others.get("compression"),
        )
        steps, samples = selectors.get("step"), selectors.get("sample")
        exported = await run_sync(partial(build, steps=steps, samples=samples))
        tag = _tag(exported, name, sealed=run.sealed)
        older = await _named_before(exchange, name, tag, build)
        if older is not None:
            exported, tag = older
        disposition = f'attachment; filename="{exported.filename}"'
        headers = [raw_header("Content-Disposition", disposition)]
        headers += notes_header(exported.notes)
        head = Head(tag, cache_control(sealed=run.sealed and older is None), headers)
        if await send_not_modified(exchange, head):
            return
        if exported.compression is None:
            file = exported.file
            await send_range(exchange, head, exported.media_type, file.size, file.read)
        else:
            headers.append(raw_header("Accept-Ranges", "none"))
            await send_body(exchange, head, Body(exported.media_type, None, exported.read))

    async def _send_tree(
        self,
        exchange: Exchange,
        run: RunView,
        name: str,
        selectors: Mapping[str, Selector],
        others: Mapping[str, str],
    ) -> None:
        """Answer with a tree of files as one ZIP."""
        if "sample" in selectors or {*_OPTIONS} & others.keys():
            message = f"the files of {name} are whole: expected steps= or step coordinates alone"
            raise InvalidInputError(ErrorKind.UNKNOWN_PARAMETER, message)
        tree = await run_sync(partial(export_tree, run, name, steps=selectors.get("step")))
        filename = f"{run.manifest.id}.zip"
        headers = [raw_header("Content-Disposition", f'attachment; filename="{filename}"')]
        headers += notes_header(tree.notes)
        tag = etag(tree.digest, name)
        head = Head(tag, cache_control(sealed=run.sealed), headers)
        if not await send_not_modified(exchange, head):
            await send_body(exchange, head, Body("application/zip", None, partial(zip_parts, tree)))


def _tag(exported: Export, name: str, *, sealed: bool) -> str:
    """Return the tag of a file; of a run that still grows it says how far the file goes."""
    digest = exported.file.digest
    if exported.compression is not None:
        # Another machine may compress the same values to other bytes.
        return f"W/{etag(digest, f'{name}+{exported.compression}')}"
    if sealed or exported.selection is None:
        return etag(digest, name)
    return etag(digest, f"{name}@{','.join(exported.selection)}")


async def _named_before(
    exchange: Exchange, name: str, tag: str, build: Callable[..., Export]
) -> tuple[Export, str] | None:
    """Return the file of a run that has grown since, as it was when the client got its tag.

    So a download goes on, and ranges of one file are never of two states. None if the file
    as it is now, with *tag*, is meant.

    Raises
    ------
    ConflictError
        ``precondition-failed`` if ``If-Match`` names files that there are no more.
    """
    condition = exchange.header(b"if-match")
    named = condition
    if condition is None and exchange.header(b"range") is not None:
        named = exchange.header(b"if-range")
    if matches(named, tag):
        return None
    found = _GROWN.search(named or "")
    if found is not None:
        steps, samples = (parse_selector(text, "selection") for text in found.groups())
        with suppress(NotFoundError, InvalidInputError):
            exported = await run_sync(partial(build, steps=steps, samples=samples))
            if _tag(exported, name, sealed=False) == found.group():
                return exported, found.group()
    if condition is None:
        return None
    message = f"expected If-Match to name {tag}, which the file has now; got {condition:.200}"
    raise ConflictError(ErrorKind.PRECONDITION_FAILED, message)


def notes_header(notes: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """Return the header that tells what a file lacks, if it lacks anything."""
    text = "; ".join(notes)[:_LONGEST_NOTES]
    return [raw_header(NOTES_HEADER, text.encode("ascii", "replace").decode())] if notes else []


def export_calls(service: Service) -> list[Call]:
    """Return the calls that answer with a run as a file."""
    media_types = {"h5": "application/x-hdf5", "npz": "application/x-npz"}
    statuses = (
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    )
    calls = [
        Call(
            f"/runs/{{run}}.{ending}",
            ExportAnswer(service, ending),
            f"run_{ending}",
            f"The run as {ending}, in the format of its system",
            "files",
            _PARAMETERS,
            (media_types.get(ending, "application/octet-stream"),),
            statuses,
        )
        for ending in ENDINGS
    ]
    chosen = Parameter("format", "Name of a format of the run's system.", example="fasta")
    return [
        *calls,
        Call(
            "/runs/{run}/export",
            ExportAnswer(service),
            "run_export",
            "The run in any format of its system",
            "files",
            (chosen, *_PARAMETERS),
            ("application/octet-stream",),
            statuses,
        ),
    ]
