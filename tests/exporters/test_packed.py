"""Files with compressed values, as other libraries read them."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from archive_schema.errors import FormatError
from server.exporters.hdf5 import hdf5_file
from server.exporters.hdf5_tree import Dataset, Group
from server.exporters.npz import npz_file
from server.exporters.values import Values
from server.exporters.virtual_file import CHUNK_NBYTES
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from server.exporters import VirtualFile
    from server.query import Archive

RNG = np.random.default_rng(0)
ARRAYS: dict[str, NDArray[Any]] = {
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.int64),
    "small": np.arange(5),
    "half": RNG.normal(size=(7, 300, 400)).astype(np.float16),
    "beyond_the_end": RNG.normal(size=(5, 1000, 77)).astype(np.float32),
    "many_chunks": np.repeat(np.arange(70, dtype=np.int32), 1 << 17).reshape(70, 1 << 17),
    "flags": RNG.random(1 << 15) < 0.1,
    "bytes": np.resize(np.array([b"a", b"bcd"]), 1 << 15),
    "noise": RNG.integers(0, 256, 3 * CHUNK_NBYTES + 17, np.uint8),
    "columns": RNG.normal(size=(9, 2, 1)).repeat(9000, axis=2),
}


def packed(file: VirtualFile) -> bytes:
    """Return the whole of it, and check that no part is long."""
    assert file.packing is not None
    parts = list(file.packing.read())
    assert max(map(len, parts)) < 3 * CHUNK_NBYTES
    return b"".join(parts)


def members(root: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    for name, member in root.items():
        if isinstance(member, h5py.Dataset):
            yield member.name, member
        else:
            assert isinstance(member, h5py.Group), name
            yield from members(member)


def test_an_hdf5_file_holds_the_same_as_one_that_is_not_compressed() -> None:
    """In chunks of any number, in datasets of any rank, between groups of any depth."""
    inner = Group({"n": 1, "text": "é"}, {k: Dataset(a, {"x": ["y"]}) for k, a in ARRAYS.items()})
    outer = {f"g{n}": Group({"n": n}, {"x": Dataset(np.arange(n))}) for n in range(40)}
    file = hdf5_file(Group(members={"inner": inner, "outer": Group(members=outer)}))
    plain, small = b"".join(file.read()), packed(file)

    with h5py.File(io.BytesIO(plain)) as one, h5py.File(io.BytesIO(small)) as other:
        there = dict(members(other))
        assert list(there) == [name for name, _ in members(one)]
        for name, dataset in members(one):
            assert there[name].dtype == dataset.dtype
            assert dict(there[name].attrs).keys() == dict(dataset.attrs).keys()
            np.testing.assert_array_equal(there[name][()], dataset[()])
        assert dict(other["inner"].attrs) == dict(one["inner"].attrs)
        assert (there["/inner/half"].compression, there["/inner/half"].shuffle) == ("gzip", True)
        assert there["/inner/small"].chunks is None
        assert there["/inner/many_chunks"].id.get_num_chunks() == 70
        assert int(there["/inner/many_chunks"][66, 5]) == 66
    assert len(small) < len(plain) / 3


def test_a_compressed_hdf5_file_can_be_written_to() -> None:
    """Its indexes are those that the library makes: it goes on with them."""
    values = np.arange(1 << 18).reshape(4, -1)
    stream = io.BytesIO(packed(hdf5_file(Group(members={"x": Dataset(values)}))))

    with h5py.File(stream, "r+") as file:
        file["x"][1:3] = RNG.integers(0, 1 << 60, values[1:3].shape)
        file["y"] = values[::-1]
        file["z"] = file["x"][2]

    with h5py.File(stream) as file:
        np.testing.assert_array_equal(file["x"][[0, 3]], values[[0, 3]])
        np.testing.assert_array_equal(file["z"], file["x"][2])
        np.testing.assert_array_equal(file["y"], values[::-1])


def test_an_npz_file_holds_the_same_as_one_that_is_not_compressed() -> None:
    file = npz_file({**ARRAYS, "none": None})
    plain, small = b"".join(file.read()), packed(file)

    with zipfile.ZipFile(io.BytesIO(small)) as opened:
        assert opened.testzip() is None
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_DEFLATED}
    with np.load(io.BytesIO(small)) as loaded:
        assert loaded.files == [*ARRAYS, "none"]
        for name, values in ARRAYS.items():
            assert loaded[name].dtype == values.dtype
            np.testing.assert_array_equal(loaded[name], values)
    assert len(small) < len(plain) / 3


@pytest.mark.parametrize("kind", ["h5", "npz"])
def test_a_tile_that_is_lost_is_an_error_and_no_short_file(archive: Archive, kind: str) -> None:
    values = RNG.normal(size=(3, 4, 5000))
    run = Builder(archive.store, steps=3, samples=4)
    run.declare(spec_of("score", values[0], tile=4))
    for step, at_step in enumerate(values):
        run.put_step("trace/score", at_step, step)
    run.seal()
    stacked = Values(archive.run("run").field("score"), (0, 1, 2))
    tree = Group(members={str(step): Dataset(stacked.at(step)) for step in range(3)})
    file = hdf5_file(tree) if kind == "h5" else npz_file({"score": stacked})
    archive.store.delete(run.key("trace/score", 2))

    with pytest.raises(FormatError, match="lost"):
        packed(file)
