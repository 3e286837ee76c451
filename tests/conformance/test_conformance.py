"""Runs that were stored by every version of the format are read as they were meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import zarr

from archive_schema.models import FORMAT_VERSION, Place, RunStatus
from archive_schema.store import open_store
from recorder.maintenance import verify_run
from server.query import Archive

HERE: Final = Path(__file__).parent
VERSIONS: Final = sorted(path for path in HERE.iterdir() if path.name.startswith("v"))
SAMPLES: Final = 5


def expected(version: Path, run: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(version / f"{run}.npz") as arrays:
        return dict(arrays)


def test_every_version_has_its_runs() -> None:
    assert [path.name for path in VERSIONS] == [f"v{n}" for n in range(1, FORMAT_VERSION + 1)]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
@pytest.mark.parametrize("run", ["dense", "compacted", "displaced", "sparse"])
def test_a_stored_run_is_sound(version: Path, run: str) -> None:
    report = verify_run(open_store(version / "store"), run)

    assert report.sound
    assert report.tiles > 0


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
@pytest.mark.parametrize("stored", ["dense", "compacted"])
def test_a_sealed_run_of_every_dtype_is_read_as_it_was_recorded(version: Path, stored: str) -> None:
    wanted = expected(version, stored)
    with Archive(open_store(version / "store")) as archive:
        run = archive.run(stored)

        assert run.status is RunStatus.SEALED
        for name, values in wanted.items():
            field = {
                "layer": lambda: run.field("output", layer="blocks.1"),
                "inputs": lambda: run.field("inputs", place=Place.INPUTS),
            }.get(name, lambda name=name: run.field(name))()
            given = field.select({}).array()
            np.testing.assert_array_equal(given, values, err_msg=name)
            assert given.dtype == values.dtype, name
        assert run.ledger.step_coordinates["noise"].values[3] == 0.25
        assert run.ledger.sample_coordinates["label"].values[4] == 40


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_an_unsealed_run_with_gaps_is_read_as_it_was_recorded(version: Path) -> None:
    wanted = expected(version, "sparse")
    with Archive(open_store(version / "store")) as archive:
        run = archive.run("sparse")

        assert run.status is not RunStatus.SEALED
        assert run.steps == tuple(wanted["steps"].tolist())
        np.testing.assert_array_equal(run.field("value").select({}).array(), wanted["value"])
        for step in run.steps:
            scores = run.field("scores").select({"step": step}).array()
            np.testing.assert_array_equal(scores, wanted[f"scores_{step}"])


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_a_tile_that_lies_aside_is_read_as_it_was_recorded(version: Path) -> None:
    wanted = expected(version, "displaced")
    with Archive(open_store(version / "store")) as archive:
        field = archive.run("displaced").field("value")

        assert field.ledger.aside(1) == "displaced/main/000001/trace/value/c.1.0"
        np.testing.assert_array_equal(field.select({}).array(), wanted["value"])


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_plain_zarr_reads_it_too(version: Path) -> None:
    wanted = expected(version, "dense")
    group = zarr.open_group(version / "store/runs/dense/trace.zarr", mode="r")

    for name in ("tokens", "half", "single", "double", "flags", "eight"):
        array: Any = group[f"trace/{name}"]
        np.testing.assert_array_equal(array[...], wanted[name], err_msg=name)
    coordinates: Any = group["trace/noise"]
    np.testing.assert_allclose(coordinates[...], 1 / np.arange(1, 7))
    recorded: Any = group["trace/recorded"]
    assert recorded[...].all()
    assert recorded.shape == (6, SAMPLES)
