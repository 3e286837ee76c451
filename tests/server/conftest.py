"""One store with everything in it, served once; see `tests.server_fixture`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
import numpy as np
import pytest

from archive_schema.models import Codec, Place, StepColumn
from archive_schema.store import open_store
from tests.query.builder import Builder, spec_of
from tests.server_fixture import serve, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store

__all__ = ["serve"]

STEPS: Final = 5
SAMPLES: Final = 7
LAYER: Final = "blocks.11.mlp"


@dataclass(frozen=True)
class Served:
    """A served store and what was written to it."""

    store: Store
    url: str
    sealed: Builder
    live: Builder


def write_run(store: Store, run_id: str) -> Builder:
    """Write a run that is not sealed: NaN and ±inf, tokens, text, layers, a ragged field."""
    rng = np.random.default_rng(1)
    run = Builder(store, run_id, uid=f"uid-{run_id}", steps=STEPS, samples=SAMPLES)
    score = rng.normal(size=(STEPS, SAMPLES, 6, 4)).astype(np.float16)
    score[0, 0, 0] = np.nan, np.inf, -np.inf, 0
    sequence = rng.integers(0, 4, (STEPS, SAMPLES, 6))
    output = rng.normal(size=(STEPS, SAMPLES, 3)).astype(np.float32)
    loss = rng.normal(size=STEPS)
    labels = np.array([f"cell-{n}" for n in range(SAMPLES)])
    run.declare(
        spec_of("score", score[0], tile=3, block=(1, 6, 4)),
        spec_of("sequence", sequence[0], tile=7, tokens=True),
        spec_of("loss", loss[0]),
        spec_of("output", output[0], place=Place.LAYERS, layer=LAYER, tile=4),
        spec_of("start", sequence[0], place=Place.INPUTS, tile=7, tokens=True),
        spec_of("label", labels, place=Place.OUTPUTS, tile=7),
        spec_of("mask", sequence[0] > 1, tile=7, codec=Codec(name="raw")),
        spec_of("uneven", output[0], ragged=True),
    ).zarr(steps=STEPS, samples=SAMPLES)
    run.put_step("inputs/start", sequence[0]).put_step("outputs/label", labels)
    for step in range(STEPS):
        run.put_step("trace/score", score[step], step)
        run.put_step("trace/sequence", sequence[step], step)
        run.put_step(f"layers/{LAYER}/output", output[step], step)
        run.put_step("trace/mask", sequence[step] > 1, step)
        run.put("trace/uneven", output[step, : step + 1], step)
        run.commit(
            run.columns("trace/loss", step, 0, np.array(loss[step])),
            coordinates=(
                StepColumn(name="timestep", dtype="float64", step=(step,), value=(1 - step / 5,)),
            ),
        )
    return run


@pytest.fixture(scope="session")
def served_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = open_store(tmp_path_factory.mktemp("served"))
    sealed, live = write_run(store, "sealed").seal(), write_run(store, "live")
    with served(store.url, cors_origins="https://viewer.example") as url:
        yield Served(store, url, sealed, live)


@pytest.fixture
def http(served_store: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served_store.url) as client:
        yield client
