"""One file of images: what it says of itself, and its images in order.

Of the images nothing is read but the header that tells how many there are. Labels and means are
small and are read at once.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.systems.imagenet64 import MEAN, BatchFile
from recorder.importers.foreign import open_foreign
from recorder.importers.npz_file import NpzFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from archive_schema.store import StoreOptions
    from recorder.importers.foreign import ForeignFile
    from recorder.importers.npz_file import NpzRows

DATA: Final = "data"
LABELS: Final = "labels"
_CHANNELS: Final = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of a file before its images are read."""

    url: str
    name: str
    rows: int
    side: int
    """Rows, and columns, of an image."""
    labels: NDArray[np.int64]
    mean: NDArray[np.float64] | None
    about: BatchFile
    """What the run's metadata keeps of it."""
    unknown: tuple[str, ...]
    """Arrays that are nothing of such a file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channel, row and column of an image, as a file lays it out."""
        return _CHANNELS, self.side, self.side

    @contextmanager
    def images(self, options: StoreOptions | None) -> Iterator[NpzRows]:
        """Open the file to read its images in order, flat; errors as `read_batch`."""
        with open_foreign(self.url, options) as file, NpzFile(file) as npz:
            yield npz.rows(DATA, 1)


def read_batch(url: str, options: StoreOptions | None) -> Batch:
    """Return what the file at *url* says of itself.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` unless it has uint8 ``data`` of square images with 3 channels, a label for
        each, and perhaps their ``mean``.
    """
    with open_foreign(url, options) as file:
        if file.signature[:2] != b"PK":
            found = f"{file.nbytes} bytes that begin with {file.signature!r}"
            raise file.refuse(f"expected an NPZ file of images, found {found}")
        with NpzFile(file) as npz:
            return _read(file, npz)


def _read(file: ForeignFile, npz: NpzFile) -> Batch:
    lacking = [name for name in (DATA, LABELS) if name not in npz.arrays]
    if lacking:
        found = ", ".join(npz.arrays) or "nothing"
        raise file.refuse(f"expected the arrays data and labels, found {found:.500}")
    data = npz.arrays[DATA]
    side = math.isqrt(data.shape[1] // _CHANNELS) if len(data.shape) == 2 else 0  # noqa: PLR2004
    if data.dtype != np.uint8 or data.shape[1:] != (_CHANNELS * side * side,) or 0 in data.shape:
        message = f"expected data of uint8, (image, 3 x side x side); found {data.dtype}"
        raise file.refuse(f"{message} of shape {data.shape}")
    if data.fortran and data.shape[0] > 1:
        raise file.refuse("data is in Fortran order, which cannot be read image by image")
    labels = _small(file, npz, LABELS, "iu", data.shape[:1])
    mean = _small(file, npz, MEAN, "f", data.shape[1:]) if MEAN in npz.arrays else None
    name = file.url.rstrip("/").rpartition("/")[2]
    known = {DATA, LABELS, MEAN}
    return Batch(
        url=file.url,
        name=name,
        rows=data.shape[0],
        side=side,
        labels=labels.astype(np.int64, casting="same_kind" if labels.dtype != "u8" else "unsafe"),
        mean=None if mean is None else mean.astype(np.float64),
        about=BatchFile(
            file=name,
            images=data.shape[0],
            labels=labels.dtype.str,
            mean=None if mean is None else mean.dtype.str,
            arrays=tuple(one for one in npz.arrays if one in known),
            deflated=data.deflated,
            crc32=data.crc32,
        ),
        unknown=tuple(one for one in npz.arrays if one not in known),
    )


def _small(
    file: ForeignFile, npz: NpzFile, name: str, kinds: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return an array that must have this shape and a dtype of these *kinds*."""
    found = npz.arrays[name]
    values = npz.read(name) if found.dtype.kind in kinds and found.shape == shape else None
    if values is None:
        what = "integers" if "i" in kinds else "floats"
        message = f"expected {name} of {what}, shape {shape}; found {found.dtype} of {found.shape}"
        raise file.refuse(message)
    return values
