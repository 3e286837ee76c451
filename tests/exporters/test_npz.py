"""NPZ files as NumPy and zipfile read them back."""

from __future__ import annotations

import io
import uuid
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.exporters.npz import npz_file
from server.exporters.values import Values
from tests.exporters.ranged import RangedFile, whole
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.query import Archive

ARRAYS: dict[str, NDArray[Any]] = {
    "zero_d": np.array(2.5),
    "text": np.array("deepstarr"),
    "flag": np.array([True]),
    "empty": np.zeros((0, 3), np.int64),
    "half": np.array([[1, np.inf], [np.nan, -0.0]], np.float16),
    "ünicode": np.arange(3),
    "folder/inside": np.arange(4, dtype=np.uint8),
}


def test_members_read_back_as_they_went_in() -> None:
    data = whole(npz_file(ARRAYS))

    with np.load(io.BytesIO(data)) as loaded:
        assert loaded.files == list(ARRAYS)
        for name, values in ARRAYS.items():
            assert loaded[name].dtype == values.dtype
            assert loaded[name].shape == values.shape
            np.testing.assert_array_equal(loaded[name], values)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None


def test_none_is_the_object_array_that_numpy_makes_of_it() -> None:
    """As ``np.savez(…, meta_split=None)`` writes it: other keys load without pickle."""
    theirs = io.BytesIO()
    np.savez(theirs, meta_split=np.array(None), x=np.arange(3))
    ours = whole(npz_file({"meta_split": None, "x": np.arange(3)}))

    with np.load(io.BytesIO(ours)) as loaded:
        assert loaded["x"].tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="allow_pickle"):
            loaded["meta_split"]
    with np.load(io.BytesIO(ours), allow_pickle=True) as loaded:
        assert loaded["meta_split"].item() is None
    with zipfile.ZipFile(io.BytesIO(ours)) as mine, zipfile.ZipFile(theirs) as other:
        assert mine.read("meta_split.npy") == other.read("meta_split.npy")


def test_a_file_of_no_members_is_a_file() -> None:
    with np.load(io.BytesIO(whole(npz_file({})))) as loaded:
        assert loaded.files == []


@pytest.mark.parametrize("samples", [range(7), range(1, 6), (6, 0, 3)])
def test_fields_are_members(archive: Archive, samples: range | tuple[int, ...]) -> None:
    """Whole tiles and parts of them: the checksum of each is right."""
    values = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    run = Builder(archive.store, steps=3, samples=7, uid=uuid.uuid4().hex)
    run.declare(spec_of("score", values[0], tile=2))
    for step, at_step in enumerate(values):
        run.put_step("trace/score", at_step, step)
    data = whole(npz_file({"score": Values(archive.run("run").field("score"), (0, 2), samples)}))

    with np.load(io.BytesIO(data)) as loaded:
        np.testing.assert_array_equal(loaded["score"], values[[0, 2]][:, list(samples)])


def test_members_beyond_four_gigabytes_are_found(archive: Archive) -> None:
    """Their lengths and offsets need the wider fields of ZIP64; nothing is read to know them."""
    tile = np.random.default_rng(0).integers(0, 255, (1 << 10, 1 << 12), np.uint8)
    run = Builder(archive.store, steps=1, samples=1 << 10, uid=uuid.uuid4().hex)
    run.declare(spec_of("x", tile, tile=1 << 10)).put("trace/x", tile)
    many = Values(archive.run("run").field("x"), (0,) * 1100)
    file = RangedFile(npz_file({"before": tile[0], "many": many, "after": tile[1]}))

    with zipfile.ZipFile(file) as opened:
        infos = opened.infolist()
        with opened.open("many.npy") as stream:
            version = np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
            first = stream.read(tile.shape[1])
        after = np.load(io.BytesIO(opened.read("after.npy")))

    assert infos[1].file_size > 1 << 32
    assert infos[2].header_offset > 1 << 32
    assert (version, shape) == ((1, 0), many.shape)
    assert first == tile[0].tobytes()
    np.testing.assert_array_equal(after, tile[1])
    assert file.read_nbytes < 1 << 23


def test_more_members_than_a_short_directory_counts_are_found() -> None:
    """A member for each step and layer can be many."""
    one = np.arange(2, dtype=np.int8)
    data = whole(npz_file({str(n): one for n in range(66_000)}))

    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert len(opened.infolist()) == 66_000
        assert np.load(io.BytesIO(opened.read("65999.npy"))).tolist() == [0, 1]
