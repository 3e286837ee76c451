"""The client against the service: what was recorded is what comes back."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_schema.errors import (
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    TooLargeError,
)
from archive_schema.models import RunStatus
from clients import ArchiveClient, AsyncArchiveClient, Top
from tests.clients.conftest import SAMPLES, STEPS, TILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients import Run
    from tests.clients.conftest import Recorded
    from tests.server_fixture import Serve

LIVE = settings(
    max_examples=60,
    deadline=None,
    # The fixtures only hold what never changes: a sealed run that is served.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def picks(length: int) -> st.SearchStrategy[Any]:
    within = st.integers(-length, length - 1)
    ends = st.none() | st.integers(-length - 1, length + 1)
    strides = st.none() | st.integers(-3, 3).filter(bool)
    return st.one_of(within, st.builds(slice, ends, ends, strides), st.lists(within, max_size=4))


@LIVE
@given(st.data())
def test_a_slice_is_the_slice_that_numpy_gives(
    recorded: Recorded, everything: Run, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["f4", "tokens", "text", "flag"]))
    values = recorded.values[name]
    key = tuple(data.draw(picks(length)) for length in values.shape)
    expected = values
    for axis in reversed(range(values.ndim)):
        pick = np.array(key[axis], int) if isinstance(key[axis], list) else key[axis]
        # With an ellipsis the result is an array, also of one text, whose dtype would shrink.
        expected = expected[(slice(None),) * axis + (pick, ...)]

    found = everything[name][key]

    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "name", ["f4", "f2", "f8", "tokens", "i8", "flag", "text", "bytes", "empty"]
)
def test_every_dtype_survives_bit_by_bit(recorded: Recorded, everything: Run, name: str) -> None:
    """NaN, infinities, empty texts and axes of length 0 included; tokens come as int64."""
    array = everything[name]

    found = np.asarray(array)

    assert found.tobytes() == recorded.values[name].tobytes()
    assert found.shape == array.shape == recorded.values[name].shape
    assert found.dtype == array.dtype == recorded.values[name].dtype
    assert array.nbytes == found.nbytes
    assert np.asarray(array[3, 2]).tobytes() == recorded.values[name][3, 2].tobytes()


def test_a_read_in_many_small_parts_is_the_same_read(recorded: Recorded) -> None:
    with ArchiveClient(recorded.url, max_request_bytes=100) as client:
        run = client.run("everything")

        assert np.array_equal(
            run["f4"][:, [7, 0, 3], ::-2], recorded.values["f4"][:, [7, 0, 3], ::-2], equal_nan=True
        )
        asked = {"a": run["f8"], "b": run["tokens"].select(step=1), "c": run["flag"]}
        found = run.query(asked)

    for name, array in {"a": "f8", "c": "flag"}.items():
        assert np.array_equal(found[name], recorded.values[array])


def test_inputs_outputs_and_layers_are_arrays_too(recorded: Recorded, everything: Run) -> None:
    output = everything.layer("blocks.11")["output"]

    assert np.array_equal(output[::4, 0], recorded.values["f2"][::4, 0])
    assert output.layer == "blocks.11"
    assert list(everything.layers) == ["blocks.11"]
    assert np.array_equal(everything.inputs["codebook"][1], [3, 4, 5])
    assert everything.inputs["scalar"].read() == 7
    assert everything.inputs["scalar"].read().shape == ()
    assert everything.inputs["scalar"].steps == ()
    assert np.array_equal(everything.outputs["sequence"].read(), recorded.values["tokens"][-1])


def test_a_field_recorded_every_fourth_step_is_selected_by_step_number(
    recorded: Recorded, everything: Run
) -> None:
    sparse = everything["sparse"]
    values = recorded.values["f4"][:, :, 0]

    assert sparse.steps == (0, 4, 8)
    assert np.array_equal(sparse[4], values[4])
    assert np.array_equal(sparse[-1], values[8])
    assert np.array_equal(sparse[1:8, 0], values[[4], 0])
    assert np.array_equal(np.stack(list(sparse))[1:], values[[4, 8]])
    with pytest.raises(NotFoundError, match="step 5 is not recorded") as caught:
        sparse[5]
    assert caught.value.kind is ErrorKind.STEP_NOT_RECORDED


def test_a_field_whose_shape_changes_is_read_step_by_step(everything: Run) -> None:
    plates = everything["plates"]

    assert plates.shape == (STEPS, None)
    assert plates.nbytes is None
    assert np.array_equal(plates[6], np.arange(6))
    assert np.array_equal(plates[6, -2:], [4, 5])
    assert np.array_equal(plates.select(step=6)[2], 2)
    with pytest.raises(InvalidInputError, match="select one step"):
        plates.read()


def test_reductions_are_those_of_numpy_in_double_precision(
    recorded: Recorded, everything: Run
) -> None:
    array, values = everything["f2"], recorded.values["f2"].astype("f8")

    assert np.allclose(array.mean(over="sample"), values.mean(1), rtol=1e-12)
    assert np.allclose(array.std(over=("step", "sample")), values.std((0, 1)), rtol=1e-12)
    assert np.allclose(array.sum(), values.sum())
    assert np.allclose(array.l2("step"), np.sqrt((values**2).sum(0)))
    assert array.max("sample").dtype == np.float16
    assert np.array_equal(array.max("sample"), values.max(1))
    assert np.array_equal(array.select(step=[8, 0]).min("sample"), values[[8, 0]].min(1))
    share = np.exp(values) / np.exp(values).sum(0)
    assert array.entropy().shape == ()
    assert np.isnan(array.entropy()), "negative values have no entropy"
    assert share.shape == values.shape
    with pytest.raises(InvalidInputError, match="over"):
        array.mean(over="colour")


def test_the_largest_values_come_with_their_places(recorded: Recorded, everything: Run) -> None:
    matrix = recorded.values["f8"]

    top = everything["f8"].top(5, threshold=0.5)

    assert isinstance(top, Top)
    order = np.argsort(-matrix, axis=None)[:5]
    assert np.array_equal(top.values, matrix.flat[order])
    assert np.array_equal(top.rows * SAMPLES + top.columns, order)
    assert len(everything["f8"].top(5, threshold=1e9).values) == 0


def test_several_slices_come_in_one_answer(recorded: Recorded, everything: Run) -> None:
    values = recorded.values
    asked = {
        "one step": everything["f4"].select(step=-1, sample=slice(2, 5)),
        "one sample": everything["text"].select(sample=3),
        "layer": everything.layer("blocks.11")["output"].select(step=0),
        "input": everything.inputs["scalar"],
        "ragged": everything["plates"].select(step=3),
    }

    found = everything.query(asked)

    assert list(found) == list(asked)
    assert np.array_equal(found["one step"], values["f4"][-1, 2:5])
    assert np.array_equal(found["one sample"], values["text"][:, 3])
    assert np.array_equal(found["layer"], values["f2"][0])
    assert found["input"] == 7
    assert np.array_equal(found["ragged"], [0, 1, 2])
    assert everything.query({}) == {}


def test_an_array_of_another_run_is_no_part_of_a_query(client: ArchiveClient) -> None:
    other = client.run("live")["x"]

    with pytest.raises(InvalidInputError, match="an array of run 'live'; expected one of"):
        client.run("everything").query({"x": other})


def test_coordinates_come_as_arrays_of_their_dtype(everything: Run) -> None:
    steps = everything.step_coordinates([8, 0])
    samples = everything.sample_coordinates(slice(2, 4))

    assert np.array_equal(steps["step"], [8, 0])
    assert np.array_equal(steps["timestep"], [1 / 9, 1.0])
    assert steps["label"].tolist() == ["s8", "s0"]
    assert samples["sample"].tolist() == [2, 3]
    assert samples["seed"].dtype == np.int64
    assert samples["seed"].tolist() == [102, 103]
    assert samples["name"].tolist() == ["n2", "n3"]
    assert len(everything.step_coordinates()["step"]) == STEPS
    assert everything.sample_coordinates([])["seed"].shape == (0,)


def test_xarray_gets_names_and_coordinates(recorded: Recorded, everything: Run) -> None:
    array = everything["f4"].select(sample=[5, 2], channel=slice(1, None)).to_xarray()

    assert array.name == "f4"
    assert array.dims == ("step", "sample", "position", "channel")
    expected = recorded.values["f4"][7, 2, :, 1:]
    assert np.array_equal(array.sel(step=7, sample=2).values, expected)
    assert array.timestep.dims == ("step",)
    assert array.channel.values.tolist() == [1, 2]
    assert "position" not in array.coords
    one = everything["f4"].select(step=3).to_xarray()
    assert one.step == 3
    assert one.label == "s3"
    assert everything.inputs["scalar"].to_xarray().shape == ()


def test_a_run_is_a_dataset_that_fetches_what_is_computed_with(
    recorded: Recorded, everything: Run
) -> None:
    values = recorded.values

    dataset = everything.to_xarray()

    assert isinstance(dataset, xarray.Dataset)
    assert dataset.attrs["run"] == "everything"
    chosen = dataset.f4.sel(step=[7, 2], sample=slice(3, 5)).isel(position=-1)
    assert np.array_equal(chosen.values, values["f4"][[7, 2], 3:6, -1])
    assert np.array_equal(dataset.sparse.sel(step_sparse=4).values, values["f4"][4, :, 0])
    assert dataset.seed.sel(sample=4) == 104
    assert "plates" not in dataset
    layer = everything.to_xarray(layer="blocks.11")
    assert np.array_equal(layer.output.isel(step=0), values["f2"][0])
    assert list(everything.to_xarray(["f8"]).data_vars) == ["f8"]


def test_what_is_not_recorded_is_an_error_or_a_mask_and_never_zero(
    recorded: Recorded, client: ArchiveClient
) -> None:
    run = client.run("live")
    array, values = run["x"], recorded.values["f4"]

    assert run.status is RunStatus.RECORDING
    assert array.shape == (3, SAMPLES, 6, 3)
    assert np.array_equal(array[1, :TILE], values[1, :TILE])
    with pytest.raises(NotFoundError, match="recorded there: samples 0:4") as caught:
        array[1]
    assert caught.value.kind is ErrorKind.NOT_RECORDED
    found = array.masked()
    assert found.shape == array.shape
    recorded_there = [[True] * 2 * TILE + [False] * 2] + 2 * [[True] * TILE + [False] * 6]
    assert np.array_equal(~np.ma.getmaskarray(found)[:, :, 0, 0], recorded_there)
    assert np.array_equal(found[0, : 2 * TILE].data, values[0, : 2 * TILE], equal_nan=True)
    assert found[2, TILE:].mask.all()
    with ArchiveClient(recorded.url, max_request_bytes=200) as small:
        parts = small.run("live")["x"].masked()
    assert np.array_equal(parts.mask, found.mask)
    assert np.array_equal(parts.filled(0), found.filled(0), equal_nan=True)
    assert not everything_masked(client)


def everything_masked(client: ArchiveClient) -> bool:
    return bool(np.ma.getmaskarray(client.run("everything")["level"].select(step=1).masked()))


def test_runs_are_found_by_what_they_are(client: ArchiveClient) -> None:
    def ids(**filters: Any) -> list[str]:
        return [run.id for run in client.runs(**filters)]

    assert sorted(ids()) == ["everything", "live"]
    assert ids(sort="id") == ["everything", "live"]
    assert ids(sort="-id", limit=1) == ["live"]
    assert ids(tag="good", status="sealed", system="generic", q="EVERY") == ["everything"]
    assert ids(tag="bad") == []
    assert ids(dry=True) == ids(**{"model.layers": 12}) == ["everything"]
    assert ids(dry=False) == []
    with pytest.raises(InvalidInputError, match="sort"):
        ids(sort="beauty")


def test_what_the_server_refuses_is_the_library_s_own_error(
    recorded: Recorded, client: ArchiveClient, serve: Serve
) -> None:
    with pytest.raises(NotFoundError) as absent:
        client.run("nothing")
    assert absent.value.kind is ErrorKind.RUN_NOT_FOUND

    with ArchiveClient(serve(recorded.store, max_answer_bytes=100)) as small:
        with pytest.raises(TooLargeError, match="ask for parts of it, such as") as refused:
            small.run("everything")["f4"].read()
    assert refused.value.kind is ErrorKind.ANSWER_TOO_LARGE


def test_threads_may_share_a_client(recorded: Recorded, everything: Run) -> None:
    found: dict[int, bytes] = {}

    def read(step: int) -> None:
        for _ in range(5):
            found[step] = everything["f4"][step].tobytes()

    threads = [threading.Thread(target=read, args=(step,)) for step in range(STEPS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    values = recorded.values["f4"]
    assert found == {step: values[step].tobytes() for step in range(STEPS)}


@pytest.mark.parametrize(
    "ask",
    [
        lambda run: run["f4"][3, 0:8, ..., 0],
        lambda run: run["text"].select(sample=1).read(),
        lambda run: run.layer("blocks.11")["output"][::4, 0],
        lambda run: run["f8"].std(over="step"),
        lambda run: run["f8"].top(3),
        lambda run: run["f8"].masked(),
        lambda run: run.query({"a": run["f8"].select(step=1), "b": run["flag"]}),
        lambda run: run.step_coordinates(slice(2, 5)),
        lambda run: run.sample_coordinates(),
    ],
    ids=["slice", "select", "layer", "std", "top", "masked", "query", "steps", "samples"],
)
def test_the_asynchronous_client_gives_what_the_other_gives(
    recorded: Recorded, everything: Run, ask: Callable[[Any], Any]
) -> None:
    async def awaited() -> Any:
        async with AsyncArchiveClient(recorded.url) as client:
            return await ask(await client.run("everything"))

    np.testing.assert_equal(asyncio.run(awaited()), ask(everything))


def test_the_asynchronous_client_lists_refreshes_and_labels(
    recorded: Recorded, everything: Run
) -> None:
    async def awaited() -> tuple[list[str], xarray.DataArray, str]:
        async with AsyncArchiveClient(recorded.url) as client:
            ids = [run.id async for run in client.runs(sort="id")]
            run = await client.run("everything")
            refreshed = await run.refresh()
            return ids, await run["f8"].select(step=2).to_xarray(), refreshed.version

    ids, array, version = asyncio.run(awaited())

    assert ids == ["everything", "live"]
    assert array.identical(everything["f8"].select(step=2).to_xarray())
    assert version == everything.refresh().version
