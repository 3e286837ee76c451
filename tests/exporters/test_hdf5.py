"""HDF5 files as h5py reads them back, and as it would have written them."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from server.exporters.hdf5 import hdf5_file
from server.exporters.hdf5_tree import Dataset, Group, encoded_text
from server.exporters.values import Values
from tests.exporters.ranged import RangedFile, whole
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.query import Archive

ATTRIBUTES: dict[str, Any] = {
    "text": "é",
    "empty": "",
    "flag": True,
    "count": 20,
    "level": 1e-4,
    "half": np.float16(0.5),
    "wide": np.uint64(2**63),
    "bytes": np.bytes_(b"ab"),
    "many": np.arange(3, dtype=">i4"),
    "texts": ["a", "ünü"],
    "no_texts": [],
    "typed_text": np.array("abc"),
}
ARRAYS: dict[str, NDArray[Any]] = {
    "zero_d": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.int64),
    "flags": np.array([True, False]),
    "half": np.array([1, np.inf, np.nan], np.float16),
    "bytes": np.array([b"a", b"bcd"]),
    "big_endian": np.arange(4, dtype=">u2").reshape(2, 2),
    "long": np.arange(5000, dtype=np.float64),
}


def sample_tree() -> Group:
    datasets = {name: Dataset(values, {"dims": ["x"]}) for name, values in ARRAYS.items()}
    return Group({"root": 1}, {"a": Group(ATTRIBUTES, datasets), "b": Group()})


def test_the_tree_reads_back_as_it_went_in() -> None:
    with h5py.File(io.BytesIO(whole(hdf5_file(sample_tree())))) as file:
        found = file["a"]

        assert list(file) == ["a", "b"]
        assert dict(file.attrs) == {"root": 1}
        for name, values in ARRAYS.items():
            dataset = found[name]
            assert dataset.dtype == values.dtype.newbyteorder("<")
            np.testing.assert_array_equal(dataset[()], values)
            assert dataset.chunks is None
            assert list(dataset.attrs["dims"]) == ["x"]


def test_attributes_have_the_types_that_h5py_gives_them() -> None:
    """Programs compare types: a numpy.bool is no int, a str is no bytes."""
    theirs_file = io.BytesIO()
    with h5py.File(theirs_file, "w") as file:
        for name, value in ATTRIBUTES.items():
            texts = isinstance(value, list) or name == "typed_text"
            dtype = h5py.string_dtype() if texts else None
            file.attrs.create(name, str(value) if name == "typed_text" else value, dtype=dtype)

    with (
        h5py.File(io.BytesIO(whole(hdf5_file(Group(ATTRIBUTES))))) as ours,
        h5py.File(theirs_file) as theirs,
    ):
        assert list(ours.attrs) == list(theirs.attrs)
        for name in ATTRIBUTES:
            mine, other = ours.attrs.get_id(name), theirs.attrs.get_id(name)
            assert mine.shape == other.shape, name
            assert type(ours.attrs[name]) is type(theirs.attrs[name]), name
            if name == "many":
                assert mine.get_type().equal(h5py.h5t.STD_I32LE)
            else:
                assert mine.get_type().equal(other.get_type()), name
            np.testing.assert_array_equal(ours.attrs[name], theirs.attrs[name])


def test_equal_trees_give_equal_bytes() -> None:
    """Or a client that reads in ranges would read parts of two files."""
    first, second = (hdf5_file(sample_tree()) for _ in range(2))

    assert first.digest == second.digest
    assert whole(first) == whole(second)


def test_values_of_a_run_lie_in_the_file_and_are_read_only_where_asked_for(
    archive: Archive,
) -> None:
    """A remote reader opens a large file by its metadata."""
    values = np.random.default_rng(0).normal(size=(4, 50, 250, 4)).astype(np.float16)
    run = Builder(archive.store, steps=4, samples=50)
    run.declare(spec_of("score", values[0], tile=10))
    for step, at_step in enumerate(values):
        run.put_step("trace/score", at_step, step)
    field = archive.run("run").field("score")
    groups = {
        f"step_{n}": Group({"step": n}, {"score": Dataset(Values(field, n))}) for n in range(4)
    }
    file = RangedFile(hdf5_file(Group(members=groups)))

    with h5py.File(file) as opened:
        np.testing.assert_array_equal(opened["step_2/score"][3:5], values[2, 3:5])
        assert file.read_nbytes < values.nbytes // 10
        for step, at_step in enumerate(values):
            np.testing.assert_array_equal(opened[f"step_{step}/score"], at_step)


def test_text_fields_become_fixed_utf8(archive: Archive) -> None:
    """HDF5 has no text of four bytes a character."""
    values = np.array(["a", "ünü", ""])
    run = Builder(archive.store, steps=1, samples=3)
    run.declare(spec_of("names", values, tile=3)).put("trace/names", values)
    field = archive.run("run").field("names")
    stored = Values(field, 0, conversion=encoded_text(field.dtype))

    with h5py.File(io.BytesIO(whole(hdf5_file(Group(members={"names": Dataset(stored)}))))) as f:
        assert f["names"].asstr()[()].tolist() == values.tolist()


@pytest.mark.parametrize("steps", [0, 1, 300])
def test_any_number_of_groups_is_found_again(steps: int) -> None:
    """Many links make the library split its tables."""
    constant = np.arange(6, dtype=np.int64)
    groups = {
        f"step_{n:04d}": Group({"step": np.int64(n)}, {"x": Dataset(constant + n)})
        for n in range(steps)
    }

    with h5py.File(io.BytesIO(whole(hdf5_file(Group(members=groups))))) as file:
        assert list(file) == list(groups)
        for n, name in enumerate(groups):
            assert file[name].attrs["step"] == n
            np.testing.assert_array_equal(file[name]["x"], constant + n)


def test_a_file_may_be_larger_than_any_disk(archive: Archive) -> None:
    """Nothing of it is made to know its length and its layout."""
    tile = np.zeros((1 << 10, 1 << 10), np.float64)
    run = Builder(archive.store, steps=1, samples=1 << 10, uid=uuid.uuid4().hex)
    run.declare(spec_of("x", tile, tile=1 << 10)).put("trace/x", tile)
    field = archive.run("run").field("x")
    many = Values(field, (0,) * (1 << 20))
    file = RangedFile(hdf5_file(Group(members={"x": Dataset(many), "y": Dataset(tile[0])})))

    with h5py.File(file) as opened:
        assert opened["x"].shape == (1 << 20, 1 << 10, 1 << 10)
        assert opened["x"].nbytes == 1 << 43
        assert opened["x"][(1 << 20) - 1, 5, 6] == 0
        np.testing.assert_array_equal(opened["y"], tile[0])
