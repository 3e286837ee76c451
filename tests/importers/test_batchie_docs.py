"""Everything in docs/systems/batchie.md runs as it stands, on BATCHIE's own files."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from typer.testing import CliRunner

from archive_schema.cli import application
from tests.importers.test_batchie_round_trip import REAL, tree_of
from tests.server_fixture import served

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs/systems/batchie.md"


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(REAL, tmp_path / "out")
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with served((tmp_path / "archive").as_uri()) as url:
        for kind, block in re.findall(
            r"```(bash|python)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
        ):
            if kind == "python":
                exec(block.replace("http://localhost:8000", url), names)
                continue
            for line in block.splitlines():
                run(shlex.split(line.replace("$A", url), comments=True))

    assert names["W"].shape == (2, 3, 2, 2)
    assert names["r_hat"].shape == (2, 2)
    assert tree_of(tmp_path / "again") == tree_of(REAL)


def run(words: list[str]) -> None:
    if words[0] == "curl":
        assert httpx.get(words[1]).is_success, words
        return
    result = CliRunner().invoke(application(), words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
