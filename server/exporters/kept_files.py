"""Files that a run keeps, written again: equal in everything that a program can see."""

from __future__ import annotations

from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import h5py
import numpy as np

from archive_schema.systems.attributes import attribute_from_json
from server.exporters.tree import TreeFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from archive_schema.systems.kept_file import KeptAttribute, KeptDataset, KeptPlace
    from server.systems.layer_file import LayerFile

Change: TypeAlias = "Callable[[str, NDArray[Any]], NDArray[Any]]"
"""From the path of a dataset and its values to the values that are written."""


def kept_tree_file(file: LayerFile, folder: str, change: Change | None = None) -> TreeFile:
    """Return *file* as it was taken over, below *folder*.

    Parameters
    ----------
    change
        What is done to the values of a dataset.
    """

    def write(target: IO[bytes]) -> None:
        if file.about.hdf5 is None:
            target.write(file.content.tobytes())
        else:
            _Writer(file, change or _unchanged).write(target)

    how = "as taken over" if change is None else "changed"
    said = f"{file.about.model_dump_json()} {how}"
    digest = blake2b(said.encode(), digest_size=16).hexdigest()
    return TreeFile(f"{folder}/{file.about.path}", file.about.nbytes, digest, write)


class _Writer:
    """Writes one HDF5 file. Each field of the layer is read once."""

    def __init__(self, file: LayerFile, change: Change) -> None:
        self._file = file
        self._change = change
        self._fields: dict[str, NDArray[Any]] = {}

    def write(self, target: IO[bytes]) -> None:
        with h5py.File(target, "w") as opened:
            for member in self._file.about.hdf5 or ():
                made: h5py.Group | h5py.Dataset
                if member.dataset is None:
                    made = opened.require_group(member.path) if member.path else opened
                else:
                    made = self._dataset(opened, member.path, member.dataset)
                for attribute in member.attributes:
                    self._attribute(made, attribute)

    def _dataset(self, opened: h5py.File, path: str, kept: KeptDataset) -> h5py.Dataset:
        dtype: Any = np.dtype(kept.dtype)
        values = self._change(path, self._values(kept.place))
        if values.dtype.kind == "U":
            values = np.char.encode(values, "utf-8")
        if kept.text is not None:
            dtype = h5py.string_dtype(kept.text, dtype.itemsize)
        return opened.create_dataset(
            path,
            data=values.astype(np.dtype(kept.dtype)).reshape(kept.shape),
            dtype=dtype,
            maxshape=kept.maxshape,
            chunks=kept.chunks,
            compression=kept.compression,
            compression_opts=kept.level,
            shuffle=kept.shuffle or None,
            fletcher32=kept.fletcher32 or None,
            track_times=False,  # equal runs must give equal bytes
        )

    def _attribute(self, made: h5py.Group | h5py.Dataset, kept: KeptAttribute) -> None:
        if kept.place is not None:
            made.attrs.create(kept.name, self._values(kept.place), dtype=np.dtype(kept.dtype))
            return
        value = attribute_from_json(kept.value, kept.dtype)
        if isinstance(value, list):
            made.attrs.create(kept.name, value, dtype=h5py.string_dtype())
        else:
            made.attrs[kept.name] = value

    def _values(self, place: KeptPlace) -> NDArray[Any]:
        if place.field not in self._fields:
            self._fields[place.field] = self._file.field(place.field)
        values = self._fields[place.field]
        return values if place.at is None else np.asarray(values[place.at])


def _unchanged(path: str, values: NDArray[Any]) -> NDArray[Any]:
    del path
    return values
