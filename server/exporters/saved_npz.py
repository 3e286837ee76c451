"""NPZ files as `numpy.savez` writes them, the same bytes under every version of Python.

Files that are given back shall equal those that were imported. Of the ZIP around the arrays, Python
before 3.11.4 writes another header than later versions do.
"""

from __future__ import annotations

import struct
import zipfile
from typing import IO, TYPE_CHECKING, Any, Final, Self

from numpy.lib import format as npy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

_ZIP64_VERSION: Final = 45
_VERSION_AT: Final = 4
_LENGTHS_AT: Final = 18
"""Where a local header has them: compressed length, length."""
_TOLD_BESIDE: Final = struct.pack("<LL", 0xFFFFFFFF, 0xFFFFFFFF)
"""In their place, where 64-bit lengths follow the name."""


class _Member(zipfile.ZipInfo):
    """A member whose lengths are 64 bits wide whatever they are."""

    def FileHeader(self, zip64: bool | None = None) -> bytes:  # noqa: FBT001, N802  zipfile has it so
        header = bytearray(super().FileHeader(zip64))
        if zip64:
            self.extract_version = self.create_version = _ZIP64_VERSION
            header[_VERSION_AT] = _ZIP64_VERSION
            header[_LENGTHS_AT : _LENGTHS_AT + len(_TOLD_BESIDE)] = _TOLD_BESIDE
        return bytes(header)


class SavedNpz:
    """An NPZ file that is written array by array; a context manager.

    Parameters
    ----------
    target
        Binary and seekable.
    compressed
        As by `numpy.savez_compressed`.
    """

    def __init__(self, target: IO[bytes], *, compressed: bool) -> None:
        self._method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        self._archive = zipfile.ZipFile(target, "w", self._method)

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write the list of its members."""
        self._archive.close()

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Write one array."""
        with self._opened(name) as member:
            npy.write_array(member, array, allow_pickle=False)

    def write_pieces(
        self, name: str, dtype: str, shape: tuple[int, ...], pieces: Iterable[memoryview]
    ) -> None:
        """Write one array whose bytes, C order, come in pieces."""
        with self._opened(name) as member:
            about = {"descr": dtype, "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(member, about)
            for piece in pieces:
                member.write(piece)

    def _opened(self, name: str) -> IO[bytes]:
        info = _Member(f"{name}.npy")
        info.compress_type = self._method
        return self._archive.open(info, "w", force_zip64=True)


def save_npz(target: IO[bytes], arrays: Mapping[str, NDArray[Any]], *, compressed: bool) -> None:
    """Write *arrays* by name, in their order."""
    with SavedNpz(target, compressed=compressed) as file:
        for name, array in arrays.items():
            file.write(name, array)
