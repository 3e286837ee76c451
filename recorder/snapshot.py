"""Array-likes as their caller hands them over, and owned copies of them on the host.

A copy is all that the sampler's thread pays: what it changes afterwards is not recorded, and
a small slice of a large tensor does not keep the whole of it in memory. From an accelerator
the copy is only enqueued (`recorder.cuda`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from archive_schema.dtypes import dtype_name
from archive_schema.errors import ErrorKind, invalid
from recorder.cuda import buffer_nbytes, contiguous_clone, copier_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_BITS: Final[dict[int, np.dtype[Any]]] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}
"""Unsigned integers that carry the bits of a dtype which NumPy itself lacks."""


class Snapshot(Protocol):
    """An owned copy, perhaps still on its way to the host."""

    def values(self) -> NDArray[Any]:
        """Wait for the copy and return it; valid until `release`."""

    def release(self) -> None:
        """Give the memory back."""


class Values(Protocol):
    """Values that were handed over and are not copied yet."""

    source: str
    """Name of the dtype that the caller used."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the values."""

    @property
    def nbytes(self) -> int:
        """Return the bytes that a copy of the values takes."""

    def part(self, start: int, stop: int) -> Values:
        """Return ``[start, stop)`` of the first axis."""

    def held(self) -> Values:
        """Return a copy that stays where the values are, and that nobody else changes."""

    def snapshot(self) -> Snapshot:
        """Copy the values to the host, or enqueue a copy; not again if they are `held`."""


@dataclass(slots=True)
class HostSnapshot:
    """A copy that is on the host already."""

    array: NDArray[Any]

    def values(self) -> NDArray[Any]:
        """Return the copy."""
        return self.array

    def release(self) -> None:
        """Do nothing: the memory goes with the object."""


@dataclass(slots=True)
class HostArray:
    """Values in the host's memory."""

    source: str
    array: NDArray[Any]
    """The values; a dtype that NumPy lacks as the unsigned integers of its bits."""
    owned: bool = False
    """Whether nobody else can change them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the values."""
        return self.array.shape

    @property
    def nbytes(self) -> int:
        """Return the bytes that a copy of the values takes."""
        return self.array.nbytes

    def part(self, start: int, stop: int) -> Values:
        """Return ``[start, stop)`` of the first axis."""
        return HostArray(self.source, self.array[start:stop], owned=self.owned)

    def held(self) -> Values:
        """Copy the values."""
        return HostArray(self.source, _copy(self.array), owned=True)

    def snapshot(self) -> Snapshot:
        """Copy the values, if nobody has yet."""
        return HostSnapshot(self.array if self.owned else _copy(self.array))


@dataclass(slots=True)
class DeviceTensor:
    """A tensor in the memory of a CUDA device."""

    source: str
    tensor: torch.Tensor
    owned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the values."""
        return tuple(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        """Return the bytes that a copy of the values takes."""
        return buffer_nbytes(self.tensor.numel() * self.tensor.element_size())

    def part(self, start: int, stop: int) -> Values:
        """Return ``[start, stop)`` of the first axis."""
        return DeviceTensor(self.source, self.tensor[start:stop], owned=self.owned)

    def held(self) -> Values:
        """Clone the tensor on its device."""
        return DeviceTensor(self.source, contiguous_clone(self.tensor), owned=True)

    def snapshot(self) -> Snapshot:
        """Enqueue a copy of the values, and return before it is made."""
        return copier_of(self.tensor.device).copy(self.tensor, owned=self.owned)


def given(value: object, name: str) -> Values:
    """Look at an array-like without copying it.

    Parameters
    ----------
    value
        A NumPy array, a torch tensor of any device, or anything with ``__dlpack__`` or
        ``__array__``.
    name
        What the caller calls it, for errors.

    Raises
    ------
    InvalidInputError
        ``dtype-mismatch`` for what is no array.
    """
    if type(value) is np.ndarray:
        return _host(value)
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor(value, name)
    if isinstance(value, np.ma.MaskedArray):
        message = f"{name!r}: expected an array without a mask; fill its masked values first"
        raise invalid(ErrorKind.DTYPE_MISMATCH, message)
    if isinstance(value, np.ndarray | np.generic):
        return _host(np.asarray(value))
    return _foreign(value, name)


def plain_array(value: object) -> object:
    """Return numbers, texts and lists as arrays, and arrays of any library as they are."""
    plain = isinstance(value, bool | int | float | str | bytes | list | tuple)
    return np.asarray(value) if plain else value


def _copy(array: NDArray[Any]) -> NDArray[Any]:
    return np.array(array, order="C", copy=True, subok=False)


def _host(array: NDArray[Any]) -> Values:
    source, bits = _described(array.dtype)
    return HostArray(source, array if bits is None else array.view(bits))


@lru_cache(maxsize=256)
def _described(dtype: np.dtype[Any]) -> tuple[str, np.dtype[Any] | None]:
    """Return the name of *dtype*, and under which dtype its bits are handed on."""
    registered = dtype.isbuiltin == 2  # noqa: PLR2004  by another library: ml_dtypes
    bits = _BITS.get(dtype.itemsize) if registered else None
    return dtype_name(dtype), bits


def _tensor(tensor: torch.Tensor, name: str) -> Values:
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else tensor.layout
        message = f"{name!r}: expected a dense tensor that has values, got a {kind} one"
        raise invalid(ErrorKind.DTYPE_MISMATCH, message)
    source = str(tensor.dtype).removeprefix("torch.")
    plain = tensor.detach().resolve_conj().resolve_neg()
    if source.startswith(("bfloat16", "float8")):
        # NumPy has no such dtype; its bits travel as unsigned integers.
        plain = plain.view(torch.uint8 if plain.element_size() == 1 else torch.uint16)
    if plain.device.type == "cpu":
        return HostArray(source, plain.numpy())
    if plain.device.type == "cuda":
        return DeviceTensor(source, plain)
    return HostArray(source, plain.cpu().numpy())


def _foreign(value: object, name: str) -> Values:
    torch = sys.modules.get("torch")
    if hasattr(value, "__dlpack__"):
        try:
            return _host(np.from_dlpack(value))
        except (BufferError, RuntimeError, TypeError, ValueError):
            # On a device, or of a dtype that NumPy lacks; __array__ may still do.
            if torch is not None and not hasattr(value, "__array__"):
                return _tensor(torch.from_dlpack(value), name)
    if hasattr(value, "__array__"):
        return _host(np.asarray(value))
    message = (
        f"{name!r}: expected a number, a text, or an array (NumPy, torch, __dlpack__ or"
        f" __array__), got {type(value).__name__}"
    )
    raise invalid(ErrorKind.DTYPE_MISMATCH, message)
