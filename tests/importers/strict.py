"""Files as everything in them that a program could see, to be compared for equality."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import h5py
import numpy as np


def hdf5_content(data: bytes) -> dict[str, Any]:
    """Return groups, attributes and datasets of an HDF5 file, in their order."""
    content: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        content[name] = (_attributes(item), _dataset(item) or list(item))

    with h5py.File(io.BytesIO(data)) as file:
        visit("/", file)
        file.visititems(visit)
    return content


def npz_content(data: bytes) -> dict[str, Any]:
    """Return dtype, shape and bytes of each array of an NPZ file; checksums are verified."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
    with np.load(io.BytesIO(data), allow_pickle=True) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    return {
        name: (a.dtype.str, a.shape, a.tobytes() if a.dtype != object else a.tolist())
        for name, a in arrays.items()
    }


def _attributes(item: Any) -> list[tuple[str, str, Any, str, str]]:
    found = []
    for name in item.attrs:
        kind = item.attrs.get_id(name)
        text = repr(h5py.check_string_dtype(kind.dtype))
        found.append((name, kind.dtype.str, kind.shape, text, repr(item.attrs[name])))
    return found


def _dataset(item: Any) -> tuple[Any, ...] | None:
    if not isinstance(item, h5py.Dataset):
        return None
    creation = item.id.get_create_plist()
    text = repr(h5py.check_string_dtype(item.dtype))
    stored = (item.chunks, creation.get_nfilters(), creation.get_layout(), item.maxshape)
    return (item.dtype.str, item.shape, text, stored, item[()].tobytes())
