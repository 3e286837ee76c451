"""NPZ files are written as NumPy writes them under recent versions of Python."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.exporters.saved_npz import SavedNpz, save_npz

if TYPE_CHECKING:
    from collections.abc import Callable

ARRAYS = {"b": np.arange(7, dtype="f4"), "a": np.zeros((0, 3), "i8"), "c": np.array(2.5)}


def test_arrays_come_back_in_their_order() -> None:
    written = io.BytesIO()
    save_npz(written, ARRAYS, compressed=True)
    written.seek(0)

    with np.load(written) as read:
        assert list(read) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_bytes_are_those_that_numpy_writes(save: Callable[..., None]) -> None:
    written, saved = io.BytesIO(), io.BytesIO()
    save_npz(written, ARRAYS, compressed=save is np.savez_compressed)
    save(saved, **ARRAYS)

    ours, theirs = written.getvalue(), saved.getvalue()
    assert ours[4] == 45  # the version that 64-bit lengths need
    if sys.version_info >= (3, 11, 4):
        assert ours == theirs
    else:  # there, zipfile tells 64-bit lengths beside true ones
        assert len(ours) == len(theirs)


def test_an_array_in_pieces_is_the_same_file() -> None:
    whole, pieces = io.BytesIO(), io.BytesIO()
    array = np.arange(12, dtype="<i4").reshape(4, 3)
    save_npz(whole, {"a": array}, compressed=True)
    with SavedNpz(pieces, compressed=True) as file:
        halves = (half.data.cast("B") for half in (array[:2], array[2:]))
        file.write_pieces("a", array.dtype.str, array.shape, halves)

    assert pieces.getvalue() == whole.getvalue()
