"""Zarr clients open `…/zarr` over HTTP, and see what the commits say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import numpy as np
import orjson
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.layout import tile_key, zarr_key
from archive_schema.models import Codec, Place
from archive_schema.store import open_store
from server.query import Archive
from server.zarr_view import stored_tile
from tests.query.builder import Builder, spec_of
from tests.server.conftest import LAYER, SAMPLES, STEPS, write_run

if TYPE_CHECKING:
    from archive_schema.store import Store
    from tests.server.conftest import Served
    from tests.server_fixture import Serve


@pytest.mark.parametrize("run_id", ["sealed", "live"])
def test_zarr_python_reads_over_http_what_was_recorded(served_store: Served, run_id: str) -> None:
    builder = served_store.sealed if run_id == "sealed" else served_store.live
    expected, _ = builder.whole("trace/score", list(range(STEPS)), SAMPLES)

    root = zarr.open_group(f"{served_store.url}/runs/{run_id}/zarr", mode="r")

    assert sorted(root.group_keys()) == ["inputs", "layers", "outputs", "trace"]
    score, output = root["trace/score"], root[f"layers/{LAYER}/output"]
    assert isinstance(score, zarr.Array)
    assert isinstance(output, zarr.Array)
    np.testing.assert_array_equal(score[...], expected)
    assert output.shape == (STEPS, SAMPLES, 3)


@pytest.mark.parametrize("run_id", ["sealed", "live"])
def test_xarray_opens_a_group_that_it_cannot_list(served_store: Served, run_id: str) -> None:
    builder = served_store.sealed if run_id == "sealed" else served_store.live
    expected, _ = builder.whole("trace/score", list(range(STEPS)), SAMPLES)

    with xr.open_zarr(f"{served_store.url}/runs/{run_id}/zarr", group="trace") as dataset:
        assert dataset["score"].dims == ("step", "sample", "axis0", "axis1")
        np.testing.assert_array_equal(dataset["score"][3, 1:3].to_numpy(), expected[3, 1:3])


def test_a_group_carries_the_documents_below_it(http: httpx.Client) -> None:
    root = http.get("/runs/live/zarr/zarr.json").json()
    inner = http.get("/runs/live/zarr/layers/zarr.json").json()

    below = root["consolidated_metadata"]["metadata"]
    assert below["trace/score"]["node_type"] == "array"
    assert set(inner["consolidated_metadata"]["metadata"]) == {LAYER, f"{LAYER}/output"}


def test_an_array_is_given_as_it_is_stored(http: httpx.Client, served_store: Served) -> None:
    stored = served_store.store.read(zarr_key("live", "trace/score/zarr.json"))

    assert http.get("/runs/live/zarr/trace/score/zarr.json").content == stored


def test_a_tile_without_a_commit_is_not_there(folder_store: Store, serve: Serve) -> None:
    """Its writer may have died before it was whole."""
    run = write_run(folder_store, "run")
    key = tile_key("run", run.specs["trace/loss"], STEPS, 0)
    folder_store.write(key, b"half a tile")

    with httpx.Client(base_url=serve(folder_store)) as client:
        answer = client.get(f"/runs/run/zarr/{key.partition('trace.zarr/')[2]}")

    assert answer.status_code == 404


def test_a_tile_has_a_tag_that_its_content_decides(folder_store: Store, serve: Serve) -> None:
    """Of raw blocks of one length, not even the checksum of the object tells contents apart."""
    values = np.zeros((2, 3))
    spec = spec_of("x", values, tile=2, codec=Codec(name="raw"))
    key = "zarr/trace/x/c.0.0.0"
    tags = []

    for store, number in ((folder_store, 0), (open_store(f"memory://tag-{next(_NUMBERS)}"), 1)):
        Builder(store, "run").declare(spec).put("trace/x", values + number)
        tags.append(httpx.head(f"{serve(store)}/runs/run/{key}").headers["etag"])

    assert tags[0] != tags[1]


@given(
    place=st.sampled_from(list(Place)),
    tile=st.none() | st.integers(0, 1),
    declared=st.sampled_from([None, 12, (0, 3, 4, 9, 20, 21)]),
    cadence=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    data=st.data(),
)
def test_the_key_of_every_tile_leads_back_to_it(
    place: Place,
    tile: int | None,
    declared: int | tuple[int, ...] | None,
    cadence: tuple[int, int],
    data: st.DataObject,
) -> None:
    """`layout.tile_key` is the oracle."""
    every, first = cadence if place.stepped else (1, 0)
    axis = declared if isinstance(declared, tuple) else range(declared or 30)
    step = data.draw(st.sampled_from(axis[first::every])) if place.stepped else 0
    layer = "a/b" if place is Place.LAYERS else None
    store = open_store(f"memory://keys-{next(_NUMBERS)}")
    builder = Builder(store, "run", steps=declared).declare(
        spec_of(
            "field", np.zeros((2, 3)), place=place, layer=layer, every=every, first=first,
            tile=0 if tile is None else 2,
        )
    )  # fmt: skip
    (path,) = builder.specs
    expected = builder.put(path, np.ones((2, 3)), step, tile or 0).key(path, step, tile or 0)

    found = stored_tile(Archive(store).run("run"), expected.removeprefix(zarr_key("run", "")))

    assert found is not None
    assert found.key == expected
    assert found.nbytes == len(store.read(expected))


def test_a_tile_of_a_ragged_field_is_found_too(served_store: Served, http: httpx.Client) -> None:
    for step in range(STEPS):
        key = served_store.sealed.key("trace/uneven", step)
        answer = http.get(f"/runs/sealed/zarr/{key.partition('trace.zarr/')[2]}")

        assert answer.content == served_store.store.read(key)


_NUMBERS = iter(range(10**9))


def test_documents_are_json(http: httpx.Client) -> None:
    answer = http.get("/runs/sealed/zarr/trace/zarr.json")

    assert answer.headers["content-type"] == "application/json"
    assert orjson.loads(answer.content)["node_type"] == "group"
