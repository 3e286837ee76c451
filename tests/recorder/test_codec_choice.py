"""What a field is compressed with where nobody says it: see the table in docs/format.md."""

from typing import Final

import numpy as np
import pytest

from archive_schema.codecs import encode_block
from archive_schema.dtypes import numpy_dtype, storage_of
from recorder.codec_choice import default_codec

EVEN: Final = (8, 25)
ODD: Final = (5, 25)


@pytest.mark.parametrize(
    ("source", "block", "expected"),
    [
        ("float16", EVEN, ("zstd", 1)),
        ("float32", EVEN, ("lz4", "bitshuffle")),
        ("float64", EVEN, ("lz4", "bitshuffle")),
        ("float32", ODD, ("lz4", "shuffle")),
        ("float64", (), ("lz4", "shuffle")),  # ragged: other blocks at other steps
        ("bfloat16", EVEN, ("lz4", "bitshuffle")),  # widened
        ("bool", EVEN, ("lz4", "bitshuffle")),
        ("int32", EVEN, ("lz4", "bitshuffle")),
        ("uint8", ODD, ("zstd", 1)),
        ("U8", EVEN, ("zstd", 1)),
        ("S8", EVEN, ("zstd", 1)),
    ],
)
def test_the_kind_of_values_decides(
    source: str, block: tuple[int, ...], expected: tuple[str, str | int]
) -> None:
    codec = default_codec(storage_of(source), block)

    if codec.name == "zstd":
        assert ("zstd", codec.level) == expected
    else:
        assert (codec.compressor, codec.shuffle) == expected


@pytest.mark.parametrize("source", ["bfloat16", "float8_e4m3fn"])
def test_bit_patterns_of_short_floats_are_floats(source: str) -> None:
    assert default_codec(storage_of(source, narrow="bits"), EVEN).name == "zstd"


@pytest.mark.parametrize("block", [(8, 249), (100, 249)])
def test_tokens_of_four_letters_take_a_third_of_a_byte_at_most(block: tuple[int, ...]) -> None:
    """Blosc shuffles no bits of a block whose values do not fill whole bytes, and says nothing."""
    storage = storage_of("int64", tokens=True)
    tokens = np.random.default_rng(0).integers(0, 4, block).astype(numpy_dtype(storage.stored))

    packed = encode_block(tokens, default_codec(storage, block))

    assert 3 * len(packed) < tokens.nbytes
