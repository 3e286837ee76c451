"""Files that are cut short, foreign, or made to do harm are refused, saying why."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.records import run_ids
from recorder.importers import import_file
from tests.importers.d3_files import npz_bytes, sampled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archive_schema.store import Store

TOUCHED: list[str] = []


class Touch:
    """Would be noticed if it were ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return TOUCHED.append, ("unpickled",)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return buffer.getvalue()


def with_member(name: str, data: bytes) -> bytes:
    plain = {f"{key}.npy": npy(np.asarray(v)) for key, v in sampled().npz_members().items()}
    return zipped({**plain, f"{name}.npy": data})


def with_shape(shape: str, nbytes: int) -> bytes:
    """Return a ``sequences`` whose header tells of *shape* and that holds *nbytes*."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    return with_member("sequences", data + bytes(nbytes))


def fortran() -> bytes:
    members = sampled().npz_members()
    members["score_matrices"] = np.asfortranarray(members["score_matrices"])
    return npz_bytes(members)


def duplicated() -> bytes:
    buffer = io.BytesIO(with_member("steps", npy(np.arange(4))))
    with zipfile.ZipFile(buffer, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr("sequences.npy", npy(np.arange(4)))
    return buffer.getvalue()


def overlapping() -> bytes:
    """Return a ZIP whose directory lists one large member a thousand times."""
    data = bytearray(zipped({"sequences.npy": npy(np.zeros((4, 3, 7000), np.int64))}))
    directory = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    entry = bytes(data[directory:end])
    entries = b"".join(
        entry.replace(b"sequences.npy", f"seq{n:06d}.npy".encode()) for n in range(1000)
    )
    tail = struct.pack("<HHHHLLH", 0, 0, 1000, 1000, len(entries), directory, 0)
    return bytes(data[:directory]) + entries + b"PK\x05\x06" + tail


NPZ: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "expected an HDF5 or an NPZ file, found 0 bytes"),
    "text": (lambda: b"step,score\n1,2\n", "begin with b'step,sco'"),
    "an npy": (lambda: npy(np.arange(3)), "expected an HDF5 or an NPZ file"),
    "cut short": (lambda: with_member("x", b"")[:-30], "expected an NPZ file"),
    "no arrays": (lambda: zipped({"readme.txt": b"hello"}), "members that end in .npy"),
    "another npz": (lambda: npz_bytes({"arr_0": np.arange(3)}), "found arr_0"),
    "no members": (lambda: zipped({}), "expected one of sequences"),
    "pickled objects": (
        lambda: with_member("meta_split", npy(np.array(Touch(), object))),
        "never unpickled",
    ),
    "pickled list": (
        lambda: with_member("oracle_mses", npy(np.array([1, None], object))),
        "never unpickled",
    ),
    "a pickle instead of an array": (
        lambda: with_member("meta_split", pickle.dumps(Touch())),
        "expected an NPZ file: meta_split",
    ),
    "objects within a record": (
        lambda: with_member("meta_x", npy(np.zeros(2, [("a", "i4"), ("b", "f8")]))),
        "no array of numbers or text",
    ),
    "shape beyond its bytes": (lambda: with_shape("(1000000000000, 3, 7)", 672), "and holds 672"),
    "shape below its bytes": (lambda: with_shape("(4, 3, 7)", 700), "and holds 700"),
    "negative shape": (lambda: with_shape("(-4, -3, 7)", 672), "shape (-4, -3, 7)"),
    "shape that is code": (lambda: with_shape("__import__('os').abort()", 672), "sequences"),
    "no steps": (lambda: with_shape("(0, 3, 7)", 0), "sequences at 4 steps, found (0, 3, 7)"),
    "steps that fall": (lambda: with_member("steps", npy(np.array([3, 2, 1, 0]))), "rising"),
    "steps below zero": (lambda: with_member("steps", npy(np.arange(-1, 3))), "rising"),
    "steps too few": (lambda: with_member("steps", npy(np.arange(3))), "expected 4 step numbers"),
    "field of other steps": (
        lambda: with_member("score_matrices", npy(np.zeros((2, 3, 7, 4)))),
        "expected score_matrices at 4 steps",
    ),
    "coordinate of other steps": (
        lambda: with_member("timesteps", npy(np.zeros(3))),
        "expected timesteps at 4 steps",
    ),
    "Fortran order": (fortran, "Fortran order"),
    "two of one name": (duplicated, "same name"),
    "overlapping members": (overlapping, "overlap"),
    "odd compression": (
        lambda: zipped({"sequences.npy": npy(np.zeros((4, 3, 7)))}, zipfile.ZIP_BZIP2),
        "neither stored nor deflated",
    ),
}


@pytest.mark.parametrize("name", NPZ)
def test_an_npz_file_that_the_logger_did_not_write_is_refused(
    store: Store, tmp_path: Path, name: str
) -> None:
    make, reason = NPZ[name]
    path = tmp_path / "file.npz"
    path.write_bytes(make())

    with pytest.raises(InvalidInputError) as caught:
        import_file("d3-dna", path, store, "run")

    assert caught.value.kind is ErrorKind.FILE_INVALID
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert run_ids(store) == []
    assert TOUCHED == []


def test_a_directory_that_lies_about_lengths_is_refused(store: Store, tmp_path: Path) -> None:
    """A member that says it expands a million times is a bomb or a lie."""
    data = bytearray(with_member("x", npy(np.zeros(1000))))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 0xFFFFFFF0)
    path = tmp_path / "file.npz"
    path.write_bytes(data)

    with pytest.raises(InvalidInputError, match="expands more than deflate can"):
        import_file("d3-dna", path, store, "run")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_none_is_known_in_every_way_that_numpy_pickles_it(
    store: Store, tmp_path: Path, protocol: int, module: str
) -> None:
    """By its bytes: NumPy 1 named the module otherwise, and older ones had other protocols."""
    payload = pickle.dumps(np.array(None), protocol)
    if module == "numpy.core":
        payload = payload.replace(b"numpy._core", b"numpy.core")
        payload = payload.replace(b"\x8c\x16numpy.core", b"\x8c\x15numpy.core")
        payload = payload.replace(b"\x95\x87", b"\x95\x86")
    assert pickle.loads(payload).item() is None
    header = npy(np.array(None))[:128]
    path = tmp_path / "file.npz"
    path.write_bytes(with_member("meta_split", header + payload))

    report = import_file("d3-dna", path, store, "run")

    assert report.odd == ()


def link(path: Path, made: Any) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/step_0001/score_matrix"]
        file["steps/step_0001/score_matrix"] = made


def external_storage(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/step_0001/score_matrix"]
        file.create_dataset(
            "steps/step_0001/score_matrix",
            shape=(3, 7, 4),
            dtype="f2",
            external=[("/etc/passwd", 0, 168)],
        )


def virtual(path: Path) -> None:
    layout = h5py.VirtualLayout(shape=(3, 7, 4), dtype="f2")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(3, 7, 4))
    with h5py.File(path, "a") as file:
        del file["steps/step_0001/score_matrix"]
        file.create_virtual_dataset("steps/step_0001/score_matrix", layout)


def unwritten(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/step_0001/score_matrix"]
        file.create_dataset("steps/step_0001/score_matrix", shape=(3, 7, 4), dtype="f2")


def enormous(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for step in file["steps"].values():
            del step["sequence"]
            step.create_dataset("sequence", shape=(1 << 40, 7), dtype="i8", chunks=(1, 7))


def foreign_filter(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/step_0001/score_matrix"]
        space = h5py.h5s.create_simple((3, 7, 4))
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((3, 7, 4))
        creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # Zstandard, a plug-in
        kind = h5py.h5t.IEEE_F16LE
        made = h5py.h5d.create(
            file["steps/step_0001"].id, b"score_matrix", kind, space, dcpl=creation
        )
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((3, 7, 4), np.float16))


def other_shape(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps/step_0001/score_matrix"]
        file["steps/step_0001/score_matrix"] = np.zeros((2, 7, 4), np.float16)


def same_step_twice(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.copy("steps/step_0001", "steps/step_00001")


def no_steps(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["steps"]
        file.create_group("steps")


def no_metadata(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["metadata"]


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def scribbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[500:3000] = os.urandom(2500)
    path.write_bytes(data)


HDF5: dict[str, tuple[Callable[[Path], None], str]] = {
    "soft link": (lambda p: link(p, h5py.SoftLink("/etc")), "is a SoftLink"),
    "external link": (lambda p: link(p, h5py.ExternalLink("/etc/x", "/a")), "is a ExternalLink"),
    "external storage": (external_storage, "lie in other files"),
    "virtual dataset": (virtual, "lie in other files"),
    "never written": (unwritten, "declares 168 bytes and stores 0"),
    "enormous": (enormous, "and stores 0"),
    "foreign filter": (foreign_filter, "needs filters [32015]"),
    "another shape at one step": (other_shape, "expected /steps/step_0001/score_matrix as at"),
    "a step twice": (same_step_twice, "are the same step"),
    "no steps": (no_steps, "expected groups like /steps/step_0000"),
    "no metadata": (no_metadata, "expected the groups /metadata and /steps, found steps"),
    "cut short": (cut_short, "expected a whole HDF5 file"),
    "scribbled": (scribbled, "file.h5"),
}


@pytest.mark.parametrize("name", HDF5)
def test_an_hdf5_file_that_the_logger_did_not_write_is_refused(
    store: Store, tmp_path: Path, name: str
) -> None:
    change, reason = HDF5[name]
    path = sampled().write_hdf5(tmp_path / "file.h5")
    change(path)

    with pytest.raises(InvalidInputError) as caught:
        import_file("d3-dna", path, store, "run")

    assert caught.value.kind is ErrorKind.FILE_INVALID
    assert reason in str(caught.value)
    assert run_ids(store) == []


@pytest.mark.parametrize("url", ["no/such/file.h5", "nowhere://x/file.h5", "."])
def test_a_file_that_cannot_be_opened_is_named(store: Store, url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        import_file("d3-dna", url, store, "run")

    assert caught.value.kind is ErrorKind.FILE_INVALID
    assert url in str(caught.value)
