"""Runs the examples of a page in docs/systems/ from top to bottom, as a reader would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

from archive_schema.cli import application

PAGES = Path(__file__).parents[2] / "docs/systems"
SERVER = "http://localhost:8000"
"""What the pages call the server; in shell lines they say ``$A``."""


def run_page(name: str, url: str) -> dict[str, Any]:
    """Run every ``bash`` and ``python`` block of a page in the current folder.

    Returns
    -------
    dict
        The names that the Python blocks left.
    """
    names: dict[str, Any] = {}
    text = (PAGES / name).read_text("utf-8")
    for kind, block in re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            exec(compile(block.replace(SERVER, url), name, "exec"), names)
            continue
        for line in block.splitlines():
            if line.strip():
                _run(shlex.split(line.replace("$A", url), comments=True))
    return names


def _run(words: list[str]) -> None:
    if words[0] == "curl":
        assert httpx.get(words[1]).is_success, words
        return
    result = CliRunner().invoke(application(), words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
