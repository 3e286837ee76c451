"""What an HDF5 file holds: groups, attributes and datasets whose values are read later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import h5py
import numpy as np

from server.exporters.values import Conversion
from server.exporters.virtual_file import Content

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Attribute: TypeAlias = "str | bool | int | float | np.generic | NDArray[Any] | list[str]"
"""Stored as h5py would store it: str as variable-length UTF-8, bool as an enum."""


class ArrayContent(Content, Protocol):
    """Values of an array that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values, little-endian."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """An array in the file; HDF5 knows no ``U`` strings, only ``S``."""

    values: ArrayContent | NDArray[Any]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """A group in the file; members and attributes are created in their order here."""

    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    members: Mapping[str, Group | Dataset] = field(default_factory=dict)


def encoded_text(dtype: np.dtype[Any]) -> Conversion:
    """Return the conversion of ``U`` strings to fixed UTF-8, of four bytes a character."""
    encoded = h5py.string_dtype("utf-8", dtype.itemsize)

    def apply(values: NDArray[Any]) -> NDArray[Any]:
        texts: NDArray[Any] = np.char.encode(values, "utf-8").astype(encoded)
        return texts

    return Conversion("utf-8", encoded, apply)
