"""Everything in docs/systems/d3-dna.md runs as it stands, on a file of the real logger."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.server_fixture import served
from tests.systems.pages import run_page

if TYPE_CHECKING:
    import pytest

DATA = Path(__file__).parents[1] / "data/d3_dna"


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DATA / "evaluation_visualization_data.h5", tmp_path)
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    with served((tmp_path / "archive").as_uri()) as url:
        names = run_page("d3-dna.md", url)

    assert names["score"].shape == (32, 8, 249, 4)
