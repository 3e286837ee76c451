"""Files of cross maps: ``.npy`` of shape (step, sample, 1, 4, position)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recorder.importers.foreign import ForeignFile

_AXES: Final = 5
_LARGEST_STEP: Final = 1 << 30
"""Bytes of what is read at once: all samples of a step."""


@dataclass(frozen=True, slots=True)
class CrossFile:
    """What the header of a file says."""

    path: str
    tag: str
    nbytes: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begins: int
    """Where its values do."""


def survey(file: ForeignFile, path: str, tag: str) -> CrossFile:
    """Read the header.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if the file holds no such array, or not all of it.
    """
    try:
        version = npy.read_magic(file.stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file.stream)
    except (ValueError, EOFError) as error:
        raise file.refuse(f"expected a .npy file: {error}") from error
    begins = file.stream.tell()
    if len(shape) != _AXES or 0 in shape or fortran or dtype.kind != "f":
        message = (
            "expected floats of shape (step, sample, 1, 4, position) in C order,"
            f" found {dtype} of shape {shape}"
        )
        raise file.refuse(message)
    nbytes = dtype.itemsize * math.prod(shape)
    if nbytes != file.nbytes - begins or nbytes // shape[0] > _LARGEST_STEP:
        message = f"expected {nbytes} bytes of {dtype} {shape}, found {file.nbytes - begins}"
        raise file.refuse(message)
    return CrossFile(path, tag, file.nbytes, dtype, shape, begins)


def steps(file: ForeignFile, about: CrossFile) -> Iterator[NDArray[Any]]:
    """Yield the values of each step, shape (sample, 1, 4, position), little-endian.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if the file ends before that.
    """
    count, *inner = about.shape
    nbytes = about.dtype.itemsize * math.prod(inner)
    file.stream.seek(about.begins)
    for _ in range(count):
        data = file.stream.read(nbytes)
        if len(data) < nbytes:
            raise file.refuse(f"it ends {nbytes - len(data)} bytes early")
        values = np.frombuffer(data, about.dtype).reshape(inner)
        yield values.astype(about.dtype.newbyteorder("<"), copy=False)
