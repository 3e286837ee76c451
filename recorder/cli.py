"""Commands that write an archive: import, verify, repair, compact, drain, rm and demo."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from archive_schema.cli import DAMAGED, FAILED
from archive_schema.errors import ErrorKind, InvalidInputError, StorageError
from archive_schema.flags import StorePlace, takes_options, takes_store
from archive_schema.records import run_ids
from archive_schema.store import StoreOptions  # noqa: TC001  typer reads it
from recorder import demonstration
from recorder.compaction import compact_run
from recorder.drain import Target
from recorder.drain import drain as drain_spool
from recorder.importers import following_until_told, import_file, importable_systems
from recorder.maintenance import (
    GRACE_S,
    remove_run,
    repair_run,
    sweep_compacted_run,
    verify_run,
)
from recorder.spool import chosen_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recorder.compaction import Compacted
    from recorder.drain import Drained
    from recorder.importers import ImportReport
    from recorder.maintenance import Repair

_DEMO_STORE: Final = StorePlace("demo-archive")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@takes_store
def import_run(
    system: Annotated[str, typer.Argument(help=f"One of {', '.join(importable_systems())}.")],
    path: Annotated[
        str, typer.Argument(help="The file or tree: a path, or any URL that fsspec opens.")
    ],
    run: Annotated[str, typer.Option("--run", help="Id of the new run.")],
    store: StorePlace,
    *,
    part: Annotated[
        str | None, typer.Option("--part", help="Which of several runs in a tree: a screen.")
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Look again as the tree grows, until its end or Ctrl-C."),
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0, help="Seconds between two looks.")
    ] = 2.0,
    seal: Annotated[
        bool | None,
        typer.Option("--seal/--no-seal", help="Finish the run; by default at the tree's end."),
    ] = None,
    flag: Annotated[
        list[str] | None,
        typer.Option(
            "--flag",
            metavar="NAME=VALUE",
            help="What the files do not say; the system's page names its flags.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take over a file, or a tree of files, of an upstream system as a run."""
    flags = dict(_named(text) for text in flag or ())
    with ExitStack() as stack:
        following = stack.enter_context(following_until_told(interval)) if follow else None
        progress = stack.enter_context(_bar("importing", as_json))
        report = import_file(
            system,
            path,
            store.open(),
            run,
            options=store.options,
            progress=progress,
            part=part,
            following=following,
            seal=seal,
            flags=flags,
        )
    if as_json:
        _print_json(report)
        return
    _print_import(report)


@takes_store
def verify(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    store: StorePlace,
    as_json: Json = False,
) -> None:
    """Read a run back against its commits; exit code 3 if anything is lost or damaged.

    What is harmless (orphans, tiles that wait for the seal, writers that died) is listed too.
    """
    with _bar("verifying", as_json) as progress:
        report = verify_run(store.open_existing(), run, progress)
    if as_json:
        _print_json({"sound": report.sound, **asdict(report)})
    else:
        console = Console()
        if report.found:
            table = Table("finding", _whole("object"), "detail", "repair")
            for one in report.found:
                table.add_row(one.finding, one.key, one.detail, "can" if one.repairable else "")
            console.print(table)
        state = "sound" if report.sound else "NOT sound"
        console.print(f"run {report.run}: {report.tiles} tiles, {report.nbytes} bytes, {state}")
    if not report.sound:
        raise typer.Exit(DAMAGED)


@takes_store
def repair(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    store: StorePlace,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    withdraw: Annotated[
        bool,
        typer.Option(
            "--withdraw",
            help="Let tiles that are lost count as not recorded, to be recorded again.",
        ),
    ] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Remove what dead writers left and nothing names.")
    ] = False,
    fence: Annotated[
        bool, typer.Option("--fence", help="End writers that were silent for the grace.")
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds; what is younger is let alone.")
    ] = GRACE_S,
    as_json: Json = False,
) -> None:
    """Rebuild of a run what can be rebuilt; exit code 3 if anything is lost for good."""
    with _bar("repairing", as_json) as progress:
        result = repair_run(
            store.open_existing(),
            run,
            dry_run=dry_run,
            withdraw=withdraw,
            sweep_orphans=sweep,
            fence=fence,
            grace_s=grace,
            progress=progress,
        )
    if as_json:
        _print_json(result)
    else:
        _print_repair(result)
    if result.lost:
        raise typer.Exit(DAMAGED)


@takes_store
def compact(
    run: Annotated[str, typer.Argument(help="Id of a sealed run.")],
    store: StorePlace,
    *,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Remove what lies as it did before, once the grace is over."),
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that earlier readers are left.")
    ] = GRACE_S,
    as_json: Json = False,
) -> None:
    """Rewrite a sealed run with many steps in one object: smaller, and quick through all steps.

    What any reader is given stays the same. A run that is compact already is let alone.
    """
    opened = store.open_existing()
    with _bar("compacting", as_json) as progress:
        result = compact_run(opened, run, progress=progress)
    removed = sweep_compacted_run(opened, run, grace_s=grace) if sweep else ()
    if as_json:
        _print_json({**asdict(result), "removed": removed})
        return
    _print_compacted(result)
    for action in removed:
        typer.echo(f"  {action.key}: {action.detail}")


@takes_store
def rm(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    store: StorePlace,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also while it is recorded.")] = False,
) -> None:
    """Remove a run and everything in it."""
    opened = store.open_existing()
    if not yes:
        typer.confirm(f"Remove run {run} from {opened.url} for good?", abort=True)
    with _bar("removing", quiet=False) as progress:
        count = remove_run(opened, run, force=force, progress=progress)
    typer.echo(f"run {run} removed: {count} objects")


@takes_options
def drain(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="Of the spools; by default TRACE_ARCHIVE_SPOOL or that in the user's home.",
            show_default=False,
        ),
    ] = None,
    *,
    store: Annotated[
        str | None, typer.Option("--store", help="Where the archive is, if it has moved.")
    ] = None,
    options: StoreOptions,
    seal: Annotated[
        bool,
        typer.Option("--seal", help="Seal runs that nobody else records, whoever left them."),
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget-refused", help="Remove what an archive refused earlier.")
    ] = False,
    deadline_s: Annotated[
        float, typer.Option("--deadline", min=0, help="Seconds to go on while nothing gets done.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Store what recorders left on this disk while their store was away.

    Recorders that are alive drain their own spool and are let alone. Exit code 1 if anything
    is left.
    """
    place = chosen_place() if folder is None else Path(folder).absolute()
    if folder is not None and not place.is_dir():
        message = f"there is no folder {place}, and so no spool"
        raise StorageError(ErrorKind.STORE_UNREACHABLE, message)
    with _bar("draining", as_json) as progress:
        results = drain_spool(
            place,
            Target(store, options),
            seal=seal,
            forget=forget,
            deadline_s=deadline_s,
            progress=progress,
        )
    if as_json:
        _print_json(results)
    else:
        _print_drained(place, results)
    if not all(one.done for one in results):
        raise typer.Exit(FAILED)


@takes_store
def demo(
    *,
    store: StorePlace = _DEMO_STORE,
    port: Annotated[int, typer.Option("--port", help="Where to serve.")] = 8000,
    samples: Annotated[int, typer.Option("--samples", min=1)] = 200,
    steps: Annotated[int, typer.Option("--steps", min=1)] = 128,
    training: Annotated[int, typer.Option("--training", min=1, help="Iterations.")] = 300,
    once: Annotated[bool, typer.Option("--once", help="End when the run is recorded.")] = False,
) -> None:
    """Record a real sampler into a local archive, serve it meanwhile, and say where to look."""
    run_id = demonstration.free_run_id(run_ids(store.open()))
    url = f"http://127.0.0.1:{port}"
    numbers = {"--samples": samples, "--steps": steps, "--training": training}
    arguments = [text for pair in numbers.items() for text in map(str, pair)]
    with (
        demonstration.server(store, port) as server,
        demonstration.sampler(store, run_id, arguments) as sampler,
    ):
        typer.echo(
            f"""
Recording run {run_id} into {store.url}: a network learns real regulatory DNA first,
then samples it. While it records, and after:

  {url}/docs
  curl '{url}/runs/{run_id}'
  curl '{url}/runs/{run_id}/steps/3/score_matrix?samples=0:8'
  curl -O {url}/runs/{run_id}.h5
"""
        )
        demonstration.await_end(sampler, server)
        typer.echo(f"Run {run_id} is sealed.")
        if not once:
            typer.echo(f"Serving {url} until Ctrl-C.")
            try:
                server.wait()
            except KeyboardInterrupt:
                typer.echo("Stopped.")


def _named(text: str) -> tuple[str, str]:
    """Return the name and the value of a flag."""
    name, sign, value = text.partition("=")
    if not (name and sign):
        message = f"--flag: expected NAME=VALUE, got {text!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return name, value


def _whole(name: str) -> Column:
    """Return a column of keys, which are of no use when they are cut short."""
    return Column(name, overflow="fold")


def _print_import(report: ImportReport) -> None:
    done = "is there already, equal" if report.known else "imported"
    counts = [(report.files, "file"), (report.steps, "step"), (report.samples, "sample")]
    said = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    end = "" if report.sealed else ", not sealed"
    # What is piped into another program must not be cut at a terminal's width.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    typer.echo(f"run {report.run} {done}: generation {report.generation}, {said}{end}")
    if report.missing or report.odd:
        table = Table("finding", "what")
        for word, sentences in (("missing", report.missing), ("odd", report.odd)):
            for sentence in sentences:
                table.add_row(word, escape(sentence))
        console.print(table)


def _print_repair(result: Repair) -> None:
    console = Console()
    if result.done or result.lost:
        done = "would be done" if result.dry_run else "done"
        table = Table("finding", _whole("object"), done)
        for action in result.done:
            table.add_row(action.finding, action.key, action.detail)
        for found in result.lost:
            table.add_row(found.finding, found.key, f"LOST: {found.detail}")
        console.print(table)
    would = "would be " if result.dry_run else ""
    console.print(
        f"run {result.run}: {len(result.done)} {would}put right, {len(result.lost)} lost for good"
    )


def _print_compacted(result: Compacted) -> None:
    done = "is compact already" if result.known else "compacted"
    ratio = result.recorded_nbytes / max(result.nbytes, 1)
    typer.echo(
        f"run {result.run} {done}: {result.recorded_nbytes} bytes as recorded,"
        f" {result.nbytes} now ({ratio:.2f} times smaller)"
    )
    if result.copied:
        typer.echo(f"  as recorded: {', '.join(result.copied)}")


def _print_drained(place: Path, results: list[Drained]) -> None:
    console = Console(soft_wrap=True)
    if not results:
        console.print(f"nothing waits in {place}", markup=False)
        return
    table = Table("run", "writer", "store", "state", "stored", "left")
    for one in results:
        table.add_row(one.run, one.writer, one.store, one.state, str(one.tiles), str(one.left))
    console.print(table)
    for one in results:
        for remark in one.remarks:
            console.print(f"{one.run} ({one.folder}): {remark}", markup=False)


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, and nothing where a program reads."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print_json(report: object) -> None:
    typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
