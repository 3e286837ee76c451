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
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

GROUP: Final = "trace_archive.commands"
FAILED: Final = 1
USAGE: Final = 2
DAMAGED: Final = 3


def main() -> None:
    """Run the command named on the command line."""
    try:
        application()()
    except ArchiveError as error:
        Console(stderr=True, soft_wrap=True).print(f"error ({error.kind}): {error}", markup=False)
        sys.exit(USAGE if isinstance(error, InvalidInputError) else FAILED)


def application() -> typer.Typer:
    """Return the command-line application with every command that is installed."""
    app = typer.Typer(
        name="trace-archive",
        help="Record, serve, inspect and export traces of generative samplers.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        app.command(entry.name)(_loaded(entry))
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
