"""The Python in docs/clients.md runs as it stands, against a real service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recorder import TraceRecorder

if TYPE_CHECKING:
    import pytest

    from tests.server_fixture import Serve

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def record(store: str) -> None:
    """Record the run that the page reads."""
    rng = np.random.default_rng(0)
    with TraceRecorder(
        store,
        "ds-eval-0041",
        steps=20,
        samples=16,
        metadata={"dataset": "promoters"},
        tags=["paper"],
    ) as recorder:
        recorder.declare("score_matrix", dims=("sample", "position", "channel"))
        recorder.declare("attention", dims=("sample", "head", "query", "key"), every=5)
        recorder.inputs(original_samples=rng.integers(4, size=(16, 50)))
        names: dict[str, Any] = {"class": ["K562", "HepG2"] * 8}
        recorder.sample_coordinates(label=rng.integers(2, size=16), **names)
        for step in range(20):
            recorder.record(
                step,
                noise_level=1 - step / 20,
                score_matrix=rng.normal(size=(16, 50, 4)).astype("f2"),
                sequence=rng.integers(4, size=(16, 50)),
                attention=rng.random((16, 4, 8, 8), "f4"),
            )
            recorder.record(step, layer="blocks.11", output=rng.normal(size=(16, 8)).astype("f4"))


def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one session, as a reader would paste it."""
    record(str(tmp_path / "store"))
    url = serve(str(tmp_path / "store"), allow_push=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block.replace("http://localhost:8000", url), names)

    names["client"].close()
    said = capsys.readouterr().out
    shown = "<Array score_matrix (step: 20, sample: 16, position: 50, channel: 4) float16>"
    assert shown in said
    assert shown in PAGE.read_text("utf-8")
    assert said.count("ds-eval-0041") == 1
    assert "run-not-found" in said
    assert re.search(r"^19 -?\d", said, re.MULTILINE), "the last step was followed"
    assert (tmp_path / "run.h5").stat().st_size > 0
    assert (tmp_path / "first.npz").stat().st_size > 0
    assert names["scores"].select(sample=3, position=slice(10, 20)).shape == (20, 10, 4)
