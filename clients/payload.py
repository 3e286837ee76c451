"""From the bytes of an answer to arrays: nothing short, nothing other than what was asked for."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.errors import ErrorKind, FormatError
from clients.exchange import changed, unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clients.exchange import Reply


@dataclass(frozen=True, slots=True)
class Given:
    """What an answer says its values are."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer must be, as far as it is known; None is any length or any dtype."""

    dims: tuple[str, ...]
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any] | None = None

    def take(self, given: Given, values: bytes, url: str) -> NDArray[Any]:
        """Return the little-endian *values*, in C order, as an array that can be written to.

        Raises
        ------
        ConflictError
            ``run-differs`` if they are not what was expected.
        StorageError
            ``store-unreachable`` if there are not as many as their shape says.
        """
        fits = len(self.shape) == len(given.shape) and all(
            wanted in (None, got) for wanted, got in zip(self.shape, given.shape, strict=True)
        )
        if given.dims != self.dims or not fits or self.dtype not in (None, given.dtype):
            raise changed(
                f"{url}: expected {self.dims} of shape {self.shape} and"
                f" {self.dtype or 'any dtype'}, got {given.dims} of shape {given.shape} and"
                f" {given.dtype}"
            )
        nbytes = math.prod(given.shape) * given.dtype.itemsize
        if nbytes != len(values):
            raise unreachable(
                f"{url}: shape {given.shape} of {given.dtype} is {nbytes} bytes, got {len(values)}"
            )
        return np.frombuffer(values, given.dtype).reshape(given.shape).copy()


def npz_members(reply: Reply, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the members *names* of the NPZ file in *reply*; their checksums are checked.

    Raises
    ------
    FormatError
        ``record-damaged``.
    """
    try:
        with np.load(BytesIO(reply.body), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        message = f"{reply.url}: expected an NPZ file with {', '.join(names)}; {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
