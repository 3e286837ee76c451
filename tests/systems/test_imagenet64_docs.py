"""Everything in docs/systems/imagenet64.md runs as it stands, on a real batch."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from tests.server_fixture import served
from tests.systems.pages import run_page
from tests.systems.test_imagenet64_import import REAL, files_in

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(REAL, tmp_path / "train")
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    with served((tmp_path / "archive").as_uri()) as url:
        names = run_page("imagenet64.md", url)

    with np.load(REAL / "train_data_batch_1.npz") as file:
        expected = file["data"][file["labels"] == 174]
    np.testing.assert_array_equal(
        names["pictures"], expected.reshape(-1, 3, 64, 64).transpose(0, 2, 3, 1)
    )
    assert files_in(tmp_path / "again") == files_in(REAL)
