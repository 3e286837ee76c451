"""`trace-archive` in this process: a command takes what it does, and not a second of imports.

What only a process of its own can show (how it is installed, signals, what outlives it) is tried
by those that start one.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

import pytest

from archive_schema.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def trace_archive(
    *arguments: object, text: str = "", environment: Mapping[str, str] | None = None
) -> Done:
    """Run a command, and return what it printed and how it exits.

    Parameters
    ----------
    arguments
        After the program's name.
    text
        What it reads from its standard input.
    environment
        All the variables that it sees; those of this process by default.

    Raises
    ------
    Exception
        What a user would see as a traceback.
    """
    out, err, status = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["trace-archive", *map(str, arguments)])
        patch.setattr(sys, "stdin", StringIO(text))
        if environment is not None:
            for name in os.environ.keys() - environment.keys():
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())
