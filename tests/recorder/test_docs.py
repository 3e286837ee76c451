"""The Python in docs/many-writers.md runs as it stands, in every process of its job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from tests.recorder.reading import zarr_array

if TYPE_CHECKING:
    import pytest

PAGE: Final = Path(__file__).parents[2] / "docs" / "many-writers.md"


def test_the_scripts_of_the_page_record_one_run_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As their launchers start them, though one after the other: nobody needs the others."""
    ranks, tasks, stages = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        exec(ranks, {})
    for task in range(20):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        exec(tasks, {})
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "4")
        exec(stages, {})

    store = open_store("archive")
    for run in ("by-ranks", "by-tasks", "by-stages"):
        assert RunRecords(store, run).status() is RunStatus.SEALED
    assert zarr_array(store, "by-ranks", "trace/recorded").all()
    assert zarr_array(store, "by-ranks", "trace/x").shape == (10, 1000, 8)
    assert not np.isnan(zarr_array(store, "by-tasks", "trace/x")).any()
    assert len(RunRecords(store, "by-stages").ledger.fields) == 24
