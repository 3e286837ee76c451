"""Everything in docs/systems/batchie.md runs as it stands, on BATCHIE's own files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.importers.test_batchie_round_trip import REAL, tree_of
from tests.server_fixture import served
from tests.systems.pages import run_page

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(REAL, tmp_path / "out")
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    with served((tmp_path / "archive").as_uri()) as url:
        names = run_page("batchie.md", url)

    assert names["W"].shape == (2, 3, 2, 2)
    assert names["r_hat"].shape == (2, 2)
    assert tree_of(tmp_path / "again") == tree_of(REAL)
