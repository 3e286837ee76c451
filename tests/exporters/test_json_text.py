"""Values as JSON text whose length is known beforehand."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.store import open_store
from server.exporters.json_text import JsonArray
from server.exporters.values import Values
from server.exporters.virtual_file import CHUNK_NBYTES
from server.query import Archive
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = st.sampled_from(
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
    ]
).map(np.dtype)


def text_of(archive: Archive, values: NDArray[Any], *, columns: bool = False) -> JsonArray:
    run = Builder(archive.store, steps=1, uid=uuid.uuid4().hex)
    run.declare(spec_of("x", values)).put("trace/x", values)
    return JsonArray(Values(archive.run("run").field("x"), 0), columns=columns)


@settings(max_examples=150, deadline=None)
@given(
    values=DTYPES.flatmap(
        lambda dtype: npst.arrays(
            dtype,
            npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        )
    ),
    columns=st.booleans(),
    data=st.data(),
)
def test_numbers_read_back_exactly_and_any_range_is_that_of_the_whole(
    values: NDArray[Any], *, columns: bool, data: st.DataObject
) -> None:
    """Also the extreme ones, which are as wide as the text has room for."""
    with Archive(open_store(f"memory://{uuid.uuid4().hex}")) as archive:
        text = text_of(archive, values, columns=columns)
        whole = b"".join(text.read(0, text.nbytes))
        start = data.draw(st.integers(0, text.nbytes))
        stop = data.draw(st.integers(start, text.nbytes))
        part = b"".join(text.read(start, stop))
    nested = values[..., None] if columns else values
    finite = np.isfinite(nested) if values.dtype.kind == "f" else np.ones(nested.shape, bool)
    found = np.array(json.loads(whole), object).reshape(nested.shape)

    assert len(whole) == text.nbytes
    assert part == whole[start:stop]
    assert (found[~finite] == None).all()  # noqa: E711  an array of them
    assert (found[finite].astype(values.dtype) == nested[finite]).all()


def test_every_float16_reads_back(archive: Archive) -> None:
    """They are written from a table."""
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    text = text_of(archive, every)
    chunks = list(text.read(0, text.nbytes))
    read = np.array(json.loads(b"".join(chunks)), np.float64).astype(np.float16)

    np.testing.assert_array_equal(read, np.where(np.isinf(every), np.float16(np.nan), every))


def test_long_arrays_come_in_chunks(archive: Archive) -> None:
    values = np.arange(300_000, dtype=np.float32)
    text = text_of(archive, values)

    chunks = list(text.read(0, text.nbytes))

    assert max(map(len, chunks)) <= CHUNK_NBYTES
    assert json.loads(b"".join(chunks)) == values.tolist()


def test_text_is_refused(archive: Archive) -> None:
    """Its length in JSON depends on what is in it."""
    with pytest.raises(InvalidInputError) as caught:
        text_of(archive, np.array(["a"]))

    assert caught.value.kind is ErrorKind.FORMAT_NOT_ACCEPTABLE
