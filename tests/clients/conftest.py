"""A service with recorded runs in it, on a real socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from clients import ArchiveClient
from recorder import TraceRecorder
from tests.server_fixture import serve, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from clients import Run

__all__ = ["serve"]

STEPS, SAMPLES, TILE = 9, 10, 4


@dataclass(frozen=True)
class Recorded:
    """Where the runs are served, and what was recorded of ``everything``."""

    store: str
    url: str
    values: dict[str, NDArray[Any]]
    """Over all steps: shape (steps, samples, …)."""


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Record a sealed run with every dtype and shape, ``everything``, and a live one, ``live``."""
    store = str(tmp_path_factory.mktemp("archive") / "store")
    values = _values(np.random.default_rng(0))
    _record_everything(store, values)
    with TraceRecorder(store, "live", samples=SAMPLES, seal_at_exit=False) as recorder:
        for step in range(3):
            recorder.record(step, slice(0, TILE), x=values["f4"][step, :TILE])
        recorder.record(0, slice(TILE, 2 * TILE), x=values["f4"][0, TILE : 2 * TILE])
        recorder.flush()
        with served(store) as url:
            yield Recorded(store, url, values)


@pytest.fixture(scope="session")
def client(recorded: Recorded) -> Iterator[ArchiveClient]:
    """Open the served archive."""
    with ArchiveClient(recorded.url) as client:
        yield client


@pytest.fixture
def everything(client: ArchiveClient) -> Run:
    """Open the run ``everything``."""
    return client.run("everything")


def _values(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    lead = (STEPS, SAMPLES)
    floats = rng.normal(size=(*lead, 6, 3)).astype("<f4")
    floats[0, 0, 0] = np.nan, np.inf, -np.inf
    return {
        "f4": floats,
        "f2": rng.normal(size=(*lead, 5)).astype("<f2"),
        "f8": rng.normal(size=lead),
        "tokens": rng.integers(0, 4, (*lead, 7)),
        "i8": rng.integers(-(2**62), 2**62, (*lead, 2)),
        "flag": rng.random((*lead, 3)) < 0.5,
        "text": rng.choice(np.array(["", "naïve", "CD8+ T", "x" * 8], "<U8"), (*lead, 2)),
        "bytes": rng.choice(np.array([b"", b"ACGT"], "S4"), (*lead, 2)),
        "empty": np.empty((*lead, 0), "<i4"),
    }


def _record_everything(store: str, values: dict[str, NDArray[Any]]) -> None:
    with TraceRecorder(
        store,
        "everything",
        steps=STEPS,
        samples=SAMPLES,
        tile=TILE,
        metadata={"model": {"layers": 12}, "dry": True},
        tags=["all", "good"],
    ) as recorder:
        recorder.declare("f4", dims=("sample", "position", "channel"))
        recorder.declare("tokens", dims=("sample", "token"), tokens=True)
        recorder.declare("sparse", every=4, dims=("sample", "unit"))
        recorder.declare("level", dims=())
        recorder.declare("plates", dims=("plate",), ragged=True)
        for start in range(0, SAMPLES, TILE):
            for step in range(STEPS):
                part = slice(start, min(start + TILE, SAMPLES))
                fields: dict[str, Any] = {name: array[step, part] for name, array in values.items()}
                recorder.record(step, part, timestep=1.0 / (step + 1), label=f"s{step}", **fields)
                recorder.record(step, part, sparse=values["f4"][step, part, 0])
                recorder.record(step, part, layer="blocks.11", output=values["f2"][step, part])
        for step in range(STEPS):
            recorder.record(step, level=np.array(step / 2), plates=np.arange(step))
        recorder.inputs(codebook=np.arange(6.0).reshape(2, 3), scalar=np.array(7, "<i4"))
        recorder.outputs(sequence=values["tokens"][-1])
        recorder.sample_coordinates(
            seed=np.arange(SAMPLES) + 100, name=[f"n{n}" for n in range(SAMPLES)]
        )
