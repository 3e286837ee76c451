"""Arrays by coordinates: what NumPy takes from the tables, resolved before values are asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from clients import ArchiveClient, AsyncArchiveClient
from clients.choosing import wanted_of
from recorder import TraceRecorder
from tests.clients.conftest import SAMPLES, STEPS, serve

if TYPE_CHECKING:
    from pathlib import Path

    from clients import Run
    from tests.clients.conftest import Recorded
    from tests.server_fixture import Serve

__all__ = ["serve"]


@pytest.mark.parametrize(
    ("choices", "steps", "samples"),
    [
        ({"timestep": 0.45}, [1], range(SAMPLES)),
        ({"timestep": [0.9, 0.1]}, [0, 8], range(SAMPLES)),
        ({"timestep": slice(0.2, 0.5)}, [2, 3, 4], range(SAMPLES)),
        ({"label": "s3"}, [3], range(SAMPLES)),
        ({"label": ["s3", "s7"], "timestep": 0.0}, [7], range(SAMPLES)),
        ({"seed": np.arange(102, 105)}, range(STEPS), [2, 3, 4]),
        ({"seed_": slice(108, None), "step.timestep": 1.0}, [0], [8, 9]),
        ({"name": ("n7", "n2"), "sample": slice(None, None, -1)}, range(STEPS), [7, 2]),
        ({"step": slice(0, 4), "timestep": 0.0}, [3], range(SAMPLES)),
    ],
)
def test_an_array_is_narrowed_by_what_coordinates_hold(
    everything: Run, recorded: Recorded, choices: dict[str, Any], steps: Any, samples: Any
) -> None:
    chosen = everything["f4"].sel(**choices)

    assert chosen.dims == ("step", "sample", "position", "channel")
    assert chosen.steps == tuple(steps)
    expected = recorded.values["f4"][np.ix_(steps, samples)]
    np.testing.assert_array_equal(chosen.read(), expected)
    np.testing.assert_array_equal(chosen.max("position"), expected.max(axis=2))


def test_the_nearest_is_that_of_the_field_and_of_what_was_taken(everything: Run) -> None:
    assert everything["sparse"].sel(timestep=0.4).steps == (4,)
    assert everything["f4"].select(step=slice(5, None)).sel(timestep=1).steps == (5,)


def test_labels_come_along(everything: Run) -> None:
    array = everything["f4"].sel(timestep=0.26, seed=[103, 107]).to_xarray()

    assert array.coords["timestep"].values.tolist() == [0.25]
    assert array.coords["seed"].values.tolist() == [103, 107]
    assert array.coords["name"].values.tolist() == ["n3", "n7"]


@pytest.mark.parametrize(
    ("choices", "kind"),
    [
        ({"nothing": 1}, ErrorKind.UNKNOWN_PARAMETER),
        ({"step.seed": 1}, ErrorKind.UNKNOWN_PARAMETER),
        ({"step": 3, "timestep": 0.5}, ErrorKind.INVALID_PARAMETER),
        ({"label": 3}, ErrorKind.INVALID_SELECTION),
        ({"label": slice("a", "b")}, ErrorKind.INVALID_SELECTION),
        ({"timestep": "0.5"}, ErrorKind.INVALID_SELECTION),
        ({"timestep": float("nan")}, ErrorKind.INVALID_SELECTION),
        ({"timestep": slice(0, 1, 2)}, ErrorKind.INVALID_SELECTION),
        ({"timestep": []}, ErrorKind.INVALID_SELECTION),
        ({"seed": 100.5}, ErrorKind.INVALID_SELECTION),
        ({"seed": True}, ErrorKind.INVALID_SELECTION),
        ({"seed": 99}, ErrorKind.NOTHING_MATCHES),
        ({"label": ["s1", "s99"]}, ErrorKind.NOTHING_MATCHES),
        ({"timestep": slice(2, 3)}, ErrorKind.NOTHING_MATCHES),
    ],
)
def test_what_cannot_be_meant_is_told(
    everything: Run, choices: dict[str, Any], kind: ErrorKind
) -> None:
    with pytest.raises((InvalidInputError, NotFoundError)) as caught:
        everything["f4"].sel(**choices)

    assert caught.value.kind is kind


def test_truth_values_are_no_numbers() -> None:
    assert wanted_of([True, False], "done", "bool") == (True, False)
    assert wanted_of(2.0, "n", "int64") == (2,)
    with pytest.raises(InvalidInputError, match="True, False"):
        wanted_of(1, "done", "bool")


def test_an_event_loop_has_the_same(recorded: Recorded) -> None:
    async def chosen() -> Any:
        async with AsyncArchiveClient(recorded.url) as client:
            run = await client.run("everything")
            array = await run["f4"].sel(timestep=0.45, seed=103)
            return await array.read()

    np.testing.assert_array_equal(asyncio.run(chosen()), recorded.values["f4"][1:2, 3:4])


def test_layers_by_glob_and_files_by_coordinates(tmp_path: Path, serve: Serve) -> None:
    values = np.arange(24.0).reshape(2, 4, 3)
    with TraceRecorder(str(tmp_path / "store"), "run", steps=2, samples=4) as recorder:
        for step in range(2):
            for layer in ("downs.10", "downs.2", "mid"):
                recorder.record(step, layer=layer, out=values[step], t=1 - step / 2)
        names: dict[str, Any] = {"class": ["a, b", "a, b", "c", "d"]}
        recorder.sample_coordinates(**names)
    with ArchiveClient(serve(str(tmp_path / "store"))) as client:
        run = client.run("run")

        assert list(run.layers("downs.*")) == ["downs.2", "downs.10"]
        assert list(run.layers("mid")) == ["mid"]
        with pytest.raises(NotFoundError, match="there is: downs"):
            run.layers("up*")
        found = run.query({name: one["out"].sel(class_="a, b") for name, one in
                           run.layers("downs.*").items()})  # fmt: skip
        np.testing.assert_array_equal(found["downs.10"], values[:, :2])
        largest = run.layer("mid")["out"].top(2)
        assert largest.places["step"].tolist() == [1, 1]
        assert largest.values.tolist() == [23.0, 22.0]
        path = run.download(
            tmp_path / "part.npz", where={"class": ["a, b", "c"], "t": 0.4}, layers=["downs.?"]
        )
    with np.load(path) as file:
        assert [name for name in file if "out" in name] == ["layers/downs.2/out"]
        np.testing.assert_array_equal(file["layers/downs.2/out"], values[1:, :3])
