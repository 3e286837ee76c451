"""Runs as files: `.h5`, `.npz` and the other formats of their system, with Range."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync

from archive_schema.errors import ErrorKind, InvalidInputError
from server.answers import Exchange, Head, send_not_modified, send_range
from server.conditional import cache_control, etag
from server.exporters import export, formats_of
from server.parameters import query_parameters, select
from server.routes.call import Call, Parameter

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from server.service import Service

ENDINGS: Final = ("h5", "npz", "json", "csv", "fasta", "txt")
"""``/runs/{run}.{ending}`` is the format of that name; a run's id cannot end so."""
NOTES_HEADER: Final = "X-Trace-Notes"
"""What the file lacks, a sentence each."""
_LONGEST_NOTES: Final = 1000
_PARAMETERS: Final = (
    Parameter("steps", "Selector of steps, by step number.", example="::10"),
    Parameter("samples", "Selector of samples.", example="0:8"),
    Parameter("fields", "Names of fields, with commas between them.", example="score_matrix"),
)


class ExportAnswer:
    """Answers with a run as a file of one format; of any, where *format* is None."""

    def __init__(self, service: Service, format: str | None = None) -> None:  # noqa: A002  the word of the API
        self._service = service
        self._format = format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        options = ["fields"] if self._format else ["format", "fields"]
        given = query_parameters(scope["query_string"])
        selectors, others = select(given, ("step", "sample"), options)
        run = await self._service.run(exchange.path["run"])
        name = self._format or others.get("format")
        if name is None:
            known = ", ".join(formats_of(run.manifest.system))
            message = f"parameter 'format': expected one of {known}, got nothing"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        fields = others["fields"].split(",") if "fields" in others else None
        build = partial(
            export,
            run,
            name,
            steps=selectors.get("step"),
            samples=selectors.get("sample"),
            fields=fields,
        )
        exported = await run_sync(build)
        digest = await run_sync(lambda: exported.file.digest)
        headers = [("Content-Disposition", f'attachment; filename="{exported.filename}"')]
        if exported.notes:
            text = "; ".join(exported.notes)[:_LONGEST_NOTES]
            headers.append((NOTES_HEADER, text.encode("ascii", "replace").decode()))
        file = exported.file
        head = Head(etag(digest, name), cache_control(sealed=run.sealed), headers)
        if not await send_not_modified(exchange, head):
            await send_range(exchange, head, exported.media_type, file.size, file.read)


def export_calls(service: Service) -> list[Call]:
    """Return the calls that answer with a run as a file."""
    media_types = {"h5": "application/x-hdf5", "npz": "application/x-npz"}
    statuses = (HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
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
