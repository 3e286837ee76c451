"""Arrays of a foreign archive, whichever container holds them: found first, read later."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np

from archive_schema.systems.attributes import attribute_to_json
from recorder.importers.hdf5_file import attributes, is_plain, members, values_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import JsonValue

    from recorder.importers.npz_file import NpzFile

Read = Callable[[int | None, int | None], "NDArray[Any]"]
"""Returns entries [start, stop) of the first axis, or everything."""


@dataclass(frozen=True, slots=True)
class ForeignArray:
    """One array: what is known of it, and how it is read."""

    path: str
    """From the root, with slashes: ``attention/layer_0``."""
    shape: tuple[int, ...]
    itemsize: int
    read: Read
    dims: tuple[str, ...] | None = None
    """Names of its axes, where the file has them."""
    chunks: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.itemsize * math.prod(self.shape)


@dataclass(slots=True)
class ForeignArchive:
    """What a container holds."""

    container: str
    """``zarr``, ``hdf5`` or ``npz``."""
    arrays: dict[str, ForeignArray] = field(default_factory=dict)
    attributes: dict[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    """Of each group that has any, by its path; the root's is empty."""
    missing: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


_NPZ_NAMES: Final = (
    (re.compile(r"act_([0-9]+)_(single|pair)"), r"activations/layer_\1/\2"),
    (re.compile(r"attn_([0-9]+)"), r"attention/layer_\1"),
    (re.compile(r"(coords|conf)"), r"outputs/\1"),
)
"""Keys of `archiveformat.py`, which has the same names with slashes in its other containers."""


def hdf5_archive(opened: h5py.File) -> ForeignArchive:
    """Return what an HDF5 file holds; refused as `recorder.importers.hdf5_file` says."""
    found = ForeignArchive("hdf5")
    _walk(opened, "", found)
    return found


def _walk(group: h5py.Group, path: str, found: ForeignArchive) -> None:
    said = {k: attribute_to_json(v)[0] for k, v in attributes(group, found.odd).items()}
    if said:
        found.attributes[path] = said
    for name, member in members(group).items():
        at = f"{path}/{name}" if path else name
        if isinstance(member, h5py.Group):
            _walk(member, at, found)
        elif is_plain(member):
            found.arrays[at] = _hdf5_array(at, member)
        elif h5py.check_string_dtype(member.dtype) and member.shape == ():
            found.arrays[at] = _text_array(at, member)
        else:
            found.odd.append(f"{at} holds {member.dtype}, neither numbers nor text: left out")


def _hdf5_array(path: str, dataset: h5py.Dataset) -> ForeignArray:
    def read(start: int | None, stop: int | None) -> NDArray[Any]:
        values: NDArray[Any] = values_of(dataset, start, stop)
        return values

    labels = tuple(dim.label for dim in dataset.dims)
    return ForeignArray(
        path,
        dataset.shape,
        dataset.dtype.itemsize,
        read,
        labels if all(labels) and labels else None,
        dataset.chunks,
    )


def _text_array(path: str, dataset: h5py.Dataset) -> ForeignArray:
    def read(start: int | None, stop: int | None) -> NDArray[Any]:
        del start, stop
        return np.array(dataset.asstr()[()])

    return ForeignArray(path, (), 1, read)


def npz_archive(opened: NpzFile) -> ForeignArchive:
    """Return what an NPZ file holds, under the names that other containers have."""
    found = ForeignArchive("npz")
    for name, about in opened.arrays.items():
        if about.is_none:
            found.odd.append(f"{name} is None: left out")
            continue
        path = name
        for pattern, put in _NPZ_NAMES:
            if pattern.fullmatch(name):
                path = pattern.sub(put, name)
        if path in found.arrays:
            found.odd.append(f"{name} says again what {path} is: left out")
            continue
        found.arrays[path] = ForeignArray(
            path, about.shape, about.dtype.itemsize, _npz_reader(opened, name)
        )
    return found


def _npz_reader(opened: NpzFile, name: str) -> Read:
    about = opened.arrays[name]

    def read(start: int | None, stop: int | None) -> NDArray[Any]:
        # Members are read in order: whoever asks for entries asks for one after the other.
        if start is not None and stop is not None:
            if start == 0:
                streams[name] = opened.rows(name, 1)
            rows: NDArray[Any] = streams[name].read(stop - start)
            return rows
        values = opened.rows(name).read(math.prod(about.shape))
        return values.reshape(about.shape, order="F" if about.fortran else "C")

    streams: dict[str, Any] = {}
    return read
