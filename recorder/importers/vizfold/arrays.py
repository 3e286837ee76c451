"""Arrays in single files: dense attention, and representations of a layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy

from archive_schema.models import Place
from archive_schema.systems.vizfold import SYSTEM
from recorder.importers.npz_file import NpzFile
from recorder.importers.vizfold.pickles import read_pickle
from recorder.importers.vizfold.torch_file import SIGNATURE, read_torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recorder.importers.foreign import ForeignFile
    from recorder.importers.vizfold.pickles import Tree

DENSE_KEY: Final = "attn"
_KINDS: Final = frozenset("biuf")
_MAP: Final = 3
_REPRESENTATION_LAYER: Final = "evoformer.blocks.0"


def read_npy(file: ForeignFile) -> NDArray[Any]:
    """Return the array in an ``.npy`` file, little-endian and in C order.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for anything but numbers, and for a file of another length than it says.
    """
    try:
        version = npy.read_magic(file.stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file.stream)
    except ValueError as error:
        raise file.refuse(f"expected an .npy file: {error}") from error
    held = file.nbytes - file.stream.tell()
    if dtype.kind not in _KINDS:
        raise file.refuse(f"expected numbers, found {dtype}")
    if dtype.itemsize * math.prod(shape) != held:
        raise file.refuse(f"declares {dtype} of shape {shape}, and holds {held} bytes")
    values = np.frombuffer(file.stream.read(held), dtype)
    values = values.reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(values, dtype.newbyteorder("<")).reshape(shape)


def read_dense(file: ForeignFile) -> tuple[NDArray[Any], str]:
    """Return the maps in a dense twin, (head, query, key), and what is odd about them, or ''.

    Raises
    ------
    InvalidInputError
        ``file-invalid``.
    """
    with NpzFile(file) as npz:
        about = npz.arrays.get(DENSE_KEY)
        if about is None or about.is_none or about.dtype.kind != "f" or len(about.shape) != _MAP:
            found = "nothing" if about is None else f"{about.dtype} {about.shape}"
            names = ", ".join(npz.arrays)
            raise file.refuse(
                f"expected {DENSE_KEY!r} (head, query, key), found {found} among {names:.200}"
            )
        flat = npz.rows(DENSE_KEY).read(math.prod(about.shape))
        npz.verify()
    values = flat.reshape(about.shape, order="F" if about.fortran else "C")
    first, second, third = about.shape
    if first == second != third:
        turned = np.ascontiguousarray(np.moveaxis(values, -1, 0))
        return turned, f"has its heads last, {about.shape}: turned to (head, query, key)"
    if second != third:
        raise file.refuse(f"expected square maps (head, query, key), found {about.shape}")
    return np.ascontiguousarray(values), ""


def read_objects(file: ForeignFile) -> Tree:
    """Return what a pickle or a file of ``torch.save`` holds; see `read_pickle`."""
    return read_torch(file) if file.signature[:4] == SIGNATURE else read_pickle(file.stream)


def representation(name: str, values: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[Any]] | None:
    """Return the axes of a representation, and it without the axis of a batch of one.

    None if it is no representation of that name.
    """
    declared = SYSTEM.field(Place.LAYERS, name, _REPRESENTATION_LAYER)
    if declared is None or values.dtype.kind not in _KINDS:
        return None
    lead = values.ndim - len(declared.dims)
    if lead < 0 or any(length != 1 for length in values.shape[:lead]):
        return None
    shape: tuple[int, ...] = values.shape[lead:]
    values = values.reshape(shape)
    if name == "pair" and shape[0] != shape[1]:
        return None
    return declared.dims, values
