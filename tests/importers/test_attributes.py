"""Attributes survive a run's metadata, which is JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.systems.attributes import (
    Attribute,
    attribute_from_json,
    attribute_to_json,
)

ARRAYS = npst.arrays(
    st.one_of(
        npst.boolean_dtypes(),
        npst.integer_dtypes(endianness="<"),
        npst.unsigned_integer_dtypes(endianness="<"),
        npst.floating_dtypes(endianness="<", sizes=(16, 32, 64)),
    ),
    npst.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3),
)


@given(
    st.one_of(
        st.text(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.lists(st.text(), min_size=1),
        ARRAYS,
        ARRAYS.map(lambda array: array.reshape(-1)[0]),
        st.binary(min_size=1).filter(lambda text: not text.endswith(b"\0")).map(np.bytes_),
        st.text("aü", min_size=1).map(np.str_),
    )
)
def test_an_attribute_comes_back_with_its_value_and_dtype(value: Attribute) -> None:
    plain, dtype = attribute_to_json(value)

    found = attribute_from_json(json.loads(json.dumps(plain, allow_nan=False)), dtype)

    if isinstance(value, (str, list)) and not isinstance(value, np.generic):
        assert found == value
    else:
        assert np.asarray(found).dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("value", [np.complex64(1j), np.array([None]), np.datetime64("2026-01-01")])
def test_what_json_cannot_hold_is_refused(value: Attribute) -> None:
    with pytest.raises(InvalidInputError) as caught:
        attribute_to_json(value)

    assert caught.value.kind is ErrorKind.DTYPE_MISMATCH
