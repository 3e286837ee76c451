"""Tiles are what a Zarr v3 sharding codec writes: other readers prove it."""

from typing import Any, Final

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from isal.isal_zlib import crc32

from archive_schema.codecs import EncodedTile, decode_block, encode_tile, index_nbytes
from archive_schema.errors import ErrorKind, FormatError
from archive_schema.hierarchy import array_documents, group_documents
from archive_schema.layout import choose_block, tile_key
from archive_schema.models import Codec, FieldSpec

CODECS: Final = [
    Codec(name="raw"),
    Codec(name="zstd"),
    Codec(name="blosc", compressor="lz4", shuffle="bitshuffle"),
    Codec(name="blosc", compressor="zstd", shuffle="shuffle"),
]
DTYPES: Final = ["bool", "uint8", "int16", "int64", "float16", "float32", "float64"]


def spec_of(dtype: str, tile: int, tail: tuple[int, ...], codec: Codec) -> FieldSpec:
    shape = (tile, *tail)
    return FieldSpec(
        name="x",
        dims=("step", "sample", *(f"d{n}" for n in range(len(tail)))),
        tail=tail,
        dtype=dtype,
        stored_dtype=dtype,
        source_dtype=dtype,
        tile=tile,
        block=choose_block(shape, np.dtype(dtype).itemsize),
        codec=codec,
    )


def decoded(tile: EncodedTile, spec: FieldSpec) -> list[np.ndarray[Any, Any]]:
    ends = np.cumsum(tile.blocks)
    return [
        decode_block(tile.data[end - size : end], spec.codec, spec.stored_dtype, spec.block)
        for size, end in zip(tile.blocks, ends, strict=True)
        if size
    ]


@st.composite
def tiles(draw: st.DrawFn) -> tuple[FieldSpec, np.ndarray[Any, Any]]:
    tile = draw(st.integers(1, 12))
    tail = tuple(draw(st.lists(st.integers(0, 5), max_size=2)))
    spec = spec_of(draw(st.sampled_from(DTYPES)), tile, tail, draw(st.sampled_from(CODECS)))
    samples = draw(st.integers(1, tile))
    return spec, draw(hnp.arrays(spec.dtype, (samples, *tail)))


@given(tiles())
@settings(max_examples=60, deadline=None)
def test_zarr_and_tensorstore_read_what_is_encoded(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[FieldSpec, np.ndarray[Any, Any]]
) -> None:
    """The stored object is no format of our own."""
    spec, values = drawn
    root = tmp_path_factory.mktemp("zarr")
    tile = encode_tile(values, spec, spec.block)
    documents = group_documents(["trace"]) | array_documents(spec, steps=1, samples=len(values))
    key = tile_key("r", spec, 0, 0).partition("trace.zarr/")[2]
    for path, data in (documents | ({key: tile.data} if tile.data else {})).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    array = zarr.open_array(root / "trace/x", mode="r")
    np.testing.assert_array_equal(array[0], values)
    assert array.dtype == values.dtype
    assert array.metadata.dimension_names == spec.dims  # type: ignore[union-attr]
    other = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{root}/trace/x/"}}
    ).result()
    np.testing.assert_array_equal(other[0].read().result(), values)
    assert tile.crc32 == crc32(values.tobytes())


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.shuffle}")
def test_a_short_tile_pads_its_last_block_and_stores_no_other(codec: Codec) -> None:
    spec = spec_of("float16", 100, (249, 4), codec)
    values = np.random.default_rng(0).normal(size=(37, 249, 4)).astype("float16")

    tile = encode_tile(values, spec, spec.block)

    blocks = decoded(tile, spec)
    assert [size > 0 for size in tile.blocks] == [True] * 4 + [False] * 6
    np.testing.assert_array_equal(np.concatenate(blocks)[:37], values)
    assert np.isnan(blocks[-1][7:]).all()
    assert len(tile.data) == sum(tile.blocks) + index_nbytes(len(tile.blocks))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.name}-{codec.shuffle}")
def test_every_flipped_bit_of_a_block_is_noticed(codec: Codec) -> None:
    """Blosc and zstd would give back other values, or crash, without the checksum."""
    spec = spec_of("float32", 2, (5,), codec)
    tile = encode_tile(np.arange(10, dtype="float32").reshape(2, 5), spec, spec.block)
    block = bytearray(tile.data[: tile.blocks[0]])

    for bit in range(8 * len(block)):
        block[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError) as caught:
            decode_block(bytes(block), spec.codec, spec.stored_dtype, spec.block)
        assert caught.value.kind is ErrorKind.TILE_DAMAGED
        block[bit // 8] ^= 1 << bit % 8


def test_a_block_of_another_length_is_damage() -> None:
    spec = spec_of("float32", 2, (5,), Codec())
    tile = encode_tile(np.zeros((2, 5), "float32"), spec, spec.block)

    with pytest.raises(FormatError, match="got 40 bytes"):
        decode_block(tile.data[: tile.blocks[0]], spec.codec, "float32", (3, 5))
    for cut in (0, 3, tile.blocks[0] - 1):
        with pytest.raises(FormatError):
            decode_block(tile.data[:cut], spec.codec, "float32", spec.block)


def test_equal_values_give_equal_bytes() -> None:
    """Recording the same bytes again must be nothing."""
    values = np.random.default_rng(1).normal(size=(8, 30)).astype("float32")
    for codec in CODECS:
        spec = spec_of("float32", 8, (30,), codec)
        first, second = (encode_tile(values.copy(), spec, spec.block) for _ in range(2))
        assert first == second
