"""Names and grids: every key is one of a kind, and every value lies in one block."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.layout import (
    LARGEST_BLOCK_NBYTES,
    array_path,
    choose_block,
    declared_steps,
    decode_layer,
    encode_layer,
    field_steps,
    step_position,
    tile_key,
)
from archive_schema.models import FieldSpec, Place, RunManifest, check_name, check_run_id

MANIFEST = {"id": "run", "uid": "u", "created": "2026-01-01T00:00:00Z"}


def spec(**changes: object) -> FieldSpec:
    values: dict[str, object] = {
        "name": "x", "dims": ("step",), "dtype": "float32", "stored_dtype": "float32",
        "source_dtype": "float32",
    }  # fmt: skip
    return FieldSpec(**(values | changes))


@given(st.lists(st.integers(0, 2000), max_size=4), st.sampled_from([1, 2, 8]))
def test_blocks_divide_their_tile_and_stay_small(shape: list[int], itemsize: int) -> None:
    block = choose_block(shape, itemsize)

    assert len(block) == len(shape)
    assert all(max(n, 1) % b == 0 for n, b in zip(shape, block, strict=True))
    # Only the last axis, which is never cut below one value, can exceed the limit.
    assert math.prod(block) * itemsize <= max(LARGEST_BLOCK_NBYTES, itemsize)


@given(st.text(min_size=0, max_size=20))
def test_a_layer_name_survives_being_a_zarr_node(layer: str) -> None:
    encoded = encode_layer(layer)

    assert decode_layer(encoded) == layer
    assert encoded
    assert not set(encoded) & set("/\\ ")
    assert encoded.strip(".")
    assert not encoded.startswith("__")


@given(st.sets(st.text("ab./_%", max_size=4), max_size=10))
def test_two_layers_never_share_a_node(layers: set[str]) -> None:
    assert len({encode_layer(layer) for layer in layers}) == len(layers)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 5))
def test_a_cadence_numbers_its_steps_without_gaps(steps: int, every: int, first: int) -> None:
    manifest = RunManifest.model_validate(MANIFEST | {"steps": steps})
    declared = declared_steps(manifest)
    field = spec(every=every, first=first)

    positions = [step_position(manifest, field, step) for step in range(steps + 3)]

    assert declared is not None
    assert [n for n, at in enumerate(positions) if at is not None] == list(
        field_steps(field, declared)
    )
    known = [at for at in positions if at is not None]
    assert known == list(range(len(known)))


def test_sparse_steps_lie_side_by_side() -> None:
    manifest = RunManifest.model_validate(MANIFEST | {"steps": (0, 10, 245)})

    assert [step_position(manifest, spec(), n) for n in (0, 10, 245, 1)] == [0, 1, 2, None]


def test_paths_tell_place_layer_cadence_and_step() -> None:
    layer = {"place": Place.LAYERS, "layer": "blocks.11"}

    assert array_path(spec()) == "trace/x"
    assert array_path(spec(every=4, first=1)) == "trace_every_4_from_1/x"
    assert array_path(spec(**layer, every=4)) == "layers_every_4/blocks.11/x"
    assert array_path(spec(ragged=True), 17) == "ragged/trace/x/17/x"
    sampled = spec(dims=("step", "sample", "position"), tail=(5,), tile=10, block=(10, 5))
    assert tile_key("r", sampled, 3, 2) == "runs/r/trace.zarr/trace/x/c.3.2.0"


@pytest.mark.parametrize(
    "run_id",
    ["", "..", ".", ".a", "-a", "a/b", "a b", "a" * 129, "a" * 300, "é", "x.h5", "x.NPZ", "a\n",
     "../a", "a\\b", "a%2e", "a\0b"],
)  # fmt: skip
def test_a_bad_run_id_is_refused(run_id: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a run id") as caught:
        check_run_id(run_id)

    assert caught.value.kind is ErrorKind.INVALID_NAME


@pytest.mark.parametrize("run_id", ["a", "0", "ds-eval-0041", "a..b", "A_.-9", "a" * 128])
def test_a_good_run_id_is_kept(run_id: str) -> None:
    assert check_run_id(run_id) == run_id


@pytest.mark.parametrize("name", ["", "__x", "a.b", "a b", "-a", "a/b", "x" * 129])
def test_a_bad_field_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        check_name(name)


@pytest.mark.parametrize(
    "changes",
    [
        {"dims": ("sample",)},
        {"dims": ("step", "step")},
        {"dims": ("step", "a"), "tail": (3,), "block": (2,)},
        {"dims": ("step", "a"), "tail": (3, 4), "block": (3,)},
        {"dims": ("step", "a", "sample"), "tail": (3, 4), "block": (3, 4)},
        {"layer": "x"},
        {"place": "layers"},
        {"ragged": True, "tail": (3,), "dims": ("step", "a"), "block": (3,)},
    ],
)
def test_an_inconsistent_declaration_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        spec(**changes)
