"""What comes out is what went in, for every dtype that the archive takes."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from archive_schema.dtypes import (
    dtype_name,
    fill_value,
    is_text,
    numpy_dtype,
    storage_of,
    to_given,
    to_stored,
)
from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Encoding, FieldSpec

FLOAT8 = [
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


def spec_of(source: str, *, tokens: bool = False, narrow: Any = "widen") -> FieldSpec:
    storage = storage_of(source, tokens=tokens, narrow=narrow)
    return FieldSpec(
        name="values",
        dims=("step", "code"),
        tail=(4,),
        block=(4,),
        dtype=storage.dtype,
        stored_dtype=storage.stored,
        source_dtype=storage.source,
        encoding=storage.encoding,
    )


@pytest.mark.parametrize("narrow", ["widen", "bits"])
@pytest.mark.parametrize("source", ["bfloat16", *FLOAT8])
def test_every_code_of_a_narrow_float_is_given_back_exactly(source: str, narrow: str) -> None:
    """Exhaustive: no code of bfloat16 or float8 changes its value on the way."""
    unsigned = np.uint16 if source == "bfloat16" else np.uint8
    codes = np.arange(np.iinfo(unsigned).max + 1).astype(unsigned)
    with np.errstate(invalid="ignore"):
        expected = codes.view(np.dtype(getattr(ml_dtypes, source))).astype(np.float32)
    spec = spec_of(source, narrow=narrow)

    stored = to_stored(codes, spec)
    given = to_given(stored, spec)

    assert stored.dtype == numpy_dtype(spec.stored_dtype)
    assert given.dtype == numpy_dtype(spec.dtype)
    np.testing.assert_array_equal(given.astype(np.float32), expected)
    if narrow == "bits":
        np.testing.assert_array_equal(stored, codes)


@pytest.mark.parametrize("source", ["int64", "int32", "uint8"])
def test_token_ids_are_stored_in_a_byte_and_given_as_int64(source: str) -> None:
    spec = spec_of(source, tokens=True)
    values = np.array([0, 3, 4, 255], source)

    stored = to_stored(values, spec)

    assert stored.dtype == np.uint8
    assert spec.encoding is Encoding.TOKENS
    assert to_given(stored, spec).dtype == np.int64
    np.testing.assert_array_equal(to_given(stored, spec), values)


@pytest.mark.parametrize("bad", [-1, 256, 2**40])
def test_a_token_id_that_no_byte_holds_is_refused(bad: int) -> None:
    with pytest.raises(InvalidInputError, match=r"\[0, 255\]") as caught:
        to_stored(np.array([0, 1, 2, bad]), spec_of("int64", tokens=True))

    assert caught.value.kind is ErrorKind.VALUE_OUT_OF_RANGE


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.5, np.nan, np.inf, -np.inf], ">f2"),
        np.array([1, 2, 3, 4], ">i4"),
        np.array([True, False, True, True]),
        np.array(["ACGT", "é", "", "x"], ">U4"),
        np.arange(8)[::2],
    ],
)
def test_foreign_byte_order_and_strides_do_not_matter(values: np.ndarray[Any, Any]) -> None:
    spec = spec_of(dtype_name(values.dtype))

    stored = to_stored(values, spec)

    assert stored.flags.c_contiguous
    assert stored.dtype.byteorder in "<|="
    np.testing.assert_array_equal(to_given(stored, spec), values)


@pytest.mark.parametrize("name", ["complex64", "object", "datetime64", "V2", "float128", "U0"])
def test_a_dtype_that_is_not_stored_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name) as caught:
        storage_of(name)

    assert caught.value.kind is ErrorKind.DTYPE_MISMATCH


def test_absent_shows_as_nan_where_the_dtype_has_one() -> None:
    assert np.isnan(np.array(fill_value("float16")))
    assert fill_value("uint8") == 0
    assert fill_value("U4") == ""


def test_text_dtypes_are_told_apart() -> None:
    assert is_text("U8")
    assert is_text("S1")
    assert not is_text("uint8")
    assert not is_text("U")
