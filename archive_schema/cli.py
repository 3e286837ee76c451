"""`trace-archive`: finds its commands among the installed packages and runs one.

A command lives in the package that does its work and is found through the entry-point
group ``trace_archive.commands``, so no package imports another for the command line.

Exit codes: 0 done, 1 the archive or its store refused, 2 the arguments are wrong,
3 a check found damage.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console

from archive_schema.errors import ArchiveError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint

GROUP: Final = "trace_archive.commands"
FAILED: Final = 1
USAGE: Final = 2
DAMAGED: Final = 3


def main() -> None:
    """Run the command named on the command line."""
    try:
        application(sys.argv[1:])()
    except ArchiveError as error:
        Console(stderr=True, soft_wrap=True).print(f"error ({error.kind}): {error}", markup=False)
        sys.exit(USAGE if isinstance(error, InvalidInputError) else FAILED)


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the command-line application.

    It has every command that is installed, or only the one that *arguments* begin with: a
    command need not wait for what the others import.
    """
    app = typer.Typer(
        name="trace-archive",
        help="Record, serve, inspect and export traces of generative samplers.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    # With it, an application of one command still takes the command's name.
    app.callback()(lambda: None)
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name in [n for n in arguments[:1] if n in entries] or sorted(entries):
        app.command(name)(_loaded(entries[name]))
    return app


def _loaded(entry: EntryPoint) -> Callable[..., object]:
    try:
        command: Callable[..., object] = entry.load()
    except ModuleNotFoundError as error:
        missing, package = error.name, entry.module.partition(".")[0]

        def unavailable() -> None:
            typer.echo(
                f"{entry.name} needs the module {missing!r}:"
                f" pip install 'trace-archive[{package}]'",
                err=True,
            )
            raise typer.Exit(FAILED)

        unavailable.__doc__ = f"Not installed: needs trace-archive[{package}]."
        return unavailable
    return command
