"""Commands that read an archive, `serve`, `ls`, `show` and `export`, and `token`."""

import json
import os
import sys
import tempfile
from contextlib import ExitStack, suppress
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import typer
import uvicorn
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from uvicorn.config import LOGGING_CONFIG

from archive_schema.annotations import read_annotations
from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.flags import StorePlace, takes_store
from archive_schema.selection import parse_selector
from server.catalogue import LARGEST_PAGE, Catalogue, RunFilter
from server.documents import run_document
from server.exporters import Tree, export_tree, formats_of, tree_formats
from server.exporters import export as export_run
from server.metrics import SHARED_FOLDER
from server.output import write_file, write_tree
from server.query import Archive, narrowed
from server.settings import PREFIX, Settings, load_settings
from server.tables import field_table, head_table, run_table, token_table, writer_table
from server.tokens import Scope, TokenFile

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]

_APPLICATION: Final = "server.app:create_app"
_GRACE_S: Final = 5
"""How long open answers, event streams among them, may go on when the service is told to end."""
_OTHER_NAMES: Final = {"hdf5": "h5", "fa": "fasta"}
"""Endings that are another spelling of a format's name."""


@takes_store
def serve(
    *,
    store: StorePlace,
    host: Annotated[str | None, typer.Option(help="Address to listen at; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 8000. 0 takes any free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer; 1.")] = None,
    public: Annotated[
        bool | None,
        typer.Option("--public", help="Let other machines read every run, without a login."),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="File of tokens, made by `trace-archive token`.")
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private", help="Ask for a token to read, too.")
    ] = None,
    allow_push: Annotated[
        bool | None, typer.Option("--allow-push", help="Let this machine write without a token.")
    ] = None,
) -> None:
    """Serve a store over HTTP, until it is interrupted.

    Everything else is a variable TRACE_ARCHIVE_*; docs/http.md lists them.
    """
    given = {
        "store": store.url,
        "store_endpoint_url": store.options.endpoint_url,
        "store_region": store.options.region,
        "store_path_style": store.options.path_style,
        "store_profile": store.options.profile,
        "store_anonymous": store.options.anonymous,
        "host": host,
        "port": port,
        "workers": workers,
        "public": public,
        "tokens_file": tokens,
        "private": private,
        "allow_push": allow_push,
    }
    settings = load_settings(**given)
    # Workers are processes of their own, and find the settings where an operator would put them.
    os.environ |= {f"{PREFIX}{k.upper()}": str(v) for k, v in given.items() if v is not None}
    with ExitStack() as stack:
        if settings.workers > 1 and SHARED_FOLDER not in os.environ:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trace-archive-"))
            os.environ[SHARED_FOLDER] = folder
        options: dict[str, Any] = {
            "factory": True,
            "host": settings.host,
            "port": settings.port,
            "access_log": settings.access_log,
            "log_config": _logging(),
            "log_level": "info" if settings.access_log else "warning",
            "timeout_graceful_shutdown": _GRACE_S,
        }
        if settings.workers > 1:
            _announce(settings, settings.port)
            uvicorn.run(_APPLICATION, workers=settings.workers, **options)
            return
        config = uvicorn.Config(_APPLICATION, **options)
        listening = stack.enter_context(config.bind_socket())
        _announce(settings, listening.getsockname()[1])
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


@takes_store
def ls(
    *,
    store: StorePlace,
    system: Annotated[str | None, typer.Option(help="Only runs of this system.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only recording, sealed or incomplete runs.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only runs with this tag.")] = None,
    q: Annotated[
        str | None,
        typer.Option("--search", "-q", help="Only runs with it in id, tags or metadata."),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="created, id, steps, samples or bytes; falling with - before it.")
    ] = "-created",
    limit: Annotated[int, typer.Option(help=f"At most so many, up to {LARGEST_PAGE}.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of a store."""
    asked = RunFilter(
        system=system, status=status, tag=tag, q=q, sort=sort, limit=limit, cursor=cursor
    )
    with Archive(store.open_existing()) as archive, Catalogue(archive) as catalogue:
        catalogue.catch_up()
        page = catalogue.page(asked)
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
    else:
        _console().print(run_table(page))


@takes_store
def show(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    *,
    store: StorePlace,
    as_json: AsJson = False,
) -> None:
    """Show what is recorded of a run."""
    with Archive(store.open_existing()) as archive:
        view = archive.run(run)
        document = run_document(view, read_annotations(archive.store, view.manifest))
    if as_json:
        typer.echo(document.model_dump_json(indent=2))
        return
    console = _console()
    console.print(head_table(document))
    if document.writers:
        console.print(writer_table(document))
    console.print(field_table(document))


@takes_store
def export(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    out: Annotated[
        str, typer.Argument(help="Path or URL to write: run.h5, s3://bucket/run.npz, folder/.")
    ],
    *,
    store: StorePlace,
    format: Annotated[  # noqa: A002  the word of the API
        str | None, typer.Option(help="Name of a format; by default OUT's ending.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help="Selector of steps: ::10.")] = None,
    samples: Annotated[str | None, typer.Option(help="Selector of samples: 0:8.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Coordinate of steps or samples: cell_type=K562; may be given again."),
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Names of fields, with commas.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Globs of layers, with commas: 'blocks.*'.")
    ] = None,
    compression: Annotated[
        str | None, typer.Option(help="gzip of HDF5, deflate of NPZ; by default none.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a run as a file or a tree of files of its system, or as plain HDF5 or NPZ."""
    with Archive(store.open_existing()) as archive:
        view = archive.run(run)
        trees = tree_formats(view.manifest.system)
        axes = {"step": steps, "sample": samples}
        selectors = {a: parse_selector(t, f"{a}s") for a, t in axes.items() if t is not None}
        if where:
            among = {"step": view.steps, "sample": range(view.samples)}
            selectors = narrowed(view, selectors, _conditions(where), among)
        if format in trees or (trees and format is None and not PurePosixPath(out).suffix):
            if "sample" in selectors or fields is not None or layers is not None:
                message = "a tree has whole files: expected --steps, or --where of steps, alone"
                raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
            tree = export_tree(view, format, steps=selectors.get("step"))
            _write_tree(tree, out, store, force=force)
            return
        exported = export_run(
            view,
            format or _format_of(out, view.manifest.system),
            steps=selectors.get("step"),
            samples=selectors.get("sample"),
            fields=None if fields is None else [name.strip() for name in fields.split(",")],
            layers=None if layers is None else [glob.strip() for glob in layers.split(",")],
            compression=compression,
        )
        written = 0

        def advance(nbytes: int) -> None:
            nonlocal written
            written += nbytes
            progress.advance(task, nbytes)

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(out, total=exported.nbytes)
            write_file(
                exported.read(),
                out,
                options=store.options,
                overwrite=force,
                advance=advance,
            )
    for note in exported.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    typer.echo(f"wrote {decimal(written)} to {out}")


def _conditions(where: list[str]) -> dict[str, str]:
    """Return what coordinates must be by their names, from ``name=value``."""
    found: dict[str, str] = {}
    for text in where:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            message = f"--where {text!r}: expected NAME=VALUE, each name once"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        found[name] = value
    return found


def _write_tree(tree: Tree, out: str, store: StorePlace, *, force: bool) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(out, total=len(tree.files))
        nbytes = write_tree(
            tree,
            out,
            options=store.options,
            overwrite=force,
            advance=lambda count: progress.advance(task, count),
        )
    for note in tree.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    typer.echo(f"wrote {len(tree.files)} files, {decimal(nbytes)}, to {out}")


def token(
    *,
    file: Annotated[
        Path,
        typer.Option(
            envvar=f"{PREFIX}TOKENS_FILE", help="File of tokens; made if it is not there."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Make a token of this name, and show it once.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="A token that may write, too.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show the names there are.")] = False,
    revoke: Annotated[str | None, typer.Option(help="Remove the token of this name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make, list or revoke the tokens with which people read and write over HTTP."""
    if [name is not None, listed, revoke is not None].count(True) != 1 or (write and not name):
        message = "expected one of --name NAME [--write], --list and --revoke NAME"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    tokens = TokenFile(file)
    if name is not None:
        scope: Scope = "write" if write else "read"
        text = tokens.add(name, scope)
        typer.echo(json.dumps({"name": name, "scope": scope, "token": text}) if as_json else text)
        typer.echo(f"token {name!r} may {scope}; it is shown this once", err=True)
    elif revoke is not None:
        tokens.revoke(revoke)
        typer.echo(f"token {revoke!r} is revoked")
    else:
        rows = [one.model_dump(mode="json", exclude={"sha256"}) for one in tokens.tokens()]
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        else:
            _console().print(token_table(tokens.tokens()))


def _announce(settings: Settings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}{settings.root_path}"
    typer.echo(f"serving {settings.store} at {url} (calls: {url}/docs)")


def _console() -> Console:
    # What is piped into another program must not be cut at a terminal's width.
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def _format_of(out: str, system: str) -> str:
    ending = PurePosixPath(out).suffix.lower().removeprefix(".")
    known = formats_of(system)
    name = _OTHER_NAMES.get(ending, ending)
    if name not in known:
        message = (
            f"runs of system {system!r} are written as {', '.join(known)};"
            f" {out!r} ends in none of them: say --format"
        )
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
    return name


def _logging() -> dict[str, Any]:
    """Return uvicorn's logging, with this service's own messages beside it."""
    config = deepcopy(LOGGING_CONFIG)
    config["loggers"]["trace_archive"] = {"handlers": ["default"], "level": "INFO"}
    return config
