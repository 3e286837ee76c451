"""Foreign HDF5 files, read without following them anywhere else.

A link may lead out of the file, a dataset's values may lie in other files, a filter may
name a plug-in to be loaded, and a dataset may declare any size without storing a byte.
All of these are refused before a value is read.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import h5py
import numpy as np

from archive_schema.errors import InvalidInputError
from recorder.importers.foreign import ForeignFile, invalid_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from archive_schema.systems.attributes import Attribute

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_MOST_EXPANDED: Final = 1100
"""No built-in filter makes more out of a byte; deflate makes 1,032."""
_OWN_FILTERS: Final = frozenset((1, 2, 3, 4, 32000))
"""Deflate, shuffle, Fletcher32, szip; LZF, which h5py brings."""
_PLAIN: Final = frozenset("biufS")

Member: TypeAlias = "h5py.Group | h5py.Dataset"


@contextmanager
def open_hdf5(file: ForeignFile) -> Iterator[h5py.File]:
    """Open *file* for reading.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it is no HDF5 file, is cut short, or proves damaged while it is read.
    """
    source = file.stream if file.path is None else file.path
    try:
        with h5py.File(source, "r", locking="best-effort") as opened:
            yield opened
    except InvalidInputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise file.refuse(f"expected a whole HDF5 file, and cannot read it: {error}") from error


def members(group: h5py.Group) -> dict[str, Member]:
    """Return what lies in *group*, by name.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for a soft or external link, and for a dataset that `checked` refuses.
    """
    found: dict[str, Member] = {}
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = type(link).__name__
            where = f"{group.name.rstrip('/')}/{name}"
            raise _refused(group, f"{where} is a {kind}; only what lies in the file is imported")
        member = group[name]
        if isinstance(member, h5py.Dataset):
            checked(member)
        if isinstance(member, (h5py.Group, h5py.Dataset)):
            found[name] = member
    return found


def checked(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return *dataset* if its values lie in the file and are as many as it says.

    Raises
    ------
    InvalidInputError
        ``file-invalid``.
    """
    creation = dataset.id.get_create_plist()
    if dataset.is_virtual or creation.get_external_count():
        raise _refused(dataset, f"the values of {dataset.name} lie in other files")
    filters = {creation.get_filter(n)[0] for n in range(creation.get_nfilters())}
    if filters - _OWN_FILTERS:
        raise _refused(dataset, f"{dataset.name} needs filters {sorted(filters - _OWN_FILTERS)}")
    if is_plain(dataset):
        stored_nbytes = dataset.id.get_storage_size()
        nbytes = dataset.dtype.itemsize * math.prod(dataset.shape)
        if nbytes > stored_nbytes * _MOST_EXPANDED:
            message = f"{dataset.name} declares {nbytes} bytes and stores {stored_nbytes}"
            raise _refused(dataset, message)
    return dataset


def is_plain(dataset: h5py.Dataset) -> bool:
    """Return whether *dataset* holds numbers, bools or fixed text in some shape."""
    return dataset.shape is not None and dataset.dtype.kind in _PLAIN


def attributes(owner: Member, odd: list[str]) -> dict[str, Attribute]:
    """Return the attributes of *owner* that can be kept; say in *odd* which cannot."""
    found: dict[str, Attribute] = {}
    for name in owner.attrs:
        value = _attribute(owner, name)
        if value is None:
            odd.append(f"attribute {name!r} of {owner.name} is neither number nor text: left out")
        else:
            found[name] = value
    return found


def values_of(dataset: h5py.Dataset, start: int | None = None, stop: int | None = None) -> Any:
    """Read *dataset*, or its entries ``[start, stop)``, little-endian."""
    values: NDArray[Any] = np.asarray(dataset[()] if start is None else dataset[start:stop])
    return values.astype(values.dtype.newbyteorder("<"), copy=False)


def _attribute(owner: Member, name: str) -> Attribute | None:
    try:
        value = owner.attrs[name]
    except (OSError, TypeError, ValueError):
        return None
    if isinstance(value, str):
        return str(value)
    array = np.asarray(value)
    if array.dtype == object and array.size and all(isinstance(text, str) for text in array.flat):
        texts: list[str] = array.tolist()
        return texts
    if array.dtype.kind not in _PLAIN:
        return None
    return array if array.ndim else array[()]


def _refused(owner: Member, reason: str) -> InvalidInputError:
    name = owner.file.filename
    return invalid_file(name if isinstance(name, str) else "HDF5 file", f"refused: {reason}")
