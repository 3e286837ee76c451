"""Files of ``torch.save``, read without torch: a ZIP of a pickle and a member a storage."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError
from recorder.importers.npz_file import explained
from recorder.importers.vizfold.pickles import StorageType, Tree, read_pickle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recorder.importers.foreign import ForeignFile

SIGNATURE: Final = b"PK\x03\x04"
_DTYPES: Final = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "BFloat16Storage": "<u2",
}
_LARGEST_PICKLE: Final = 64 << 20
_ID: Final = 5


def read_torch(file: ForeignFile) -> Tree:
    """Return the tensors and numbers that *file* holds; bfloat16 as float32, which is exact.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for anything but tensors in containers, and for files of torch before 1.6.
    """
    if file.signature[:4] != SIGNATURE:
        begins = file.signature[:4]
        raise file.refuse(f"expected a file of torch.save since torch 1.6, found {begins!r}")
    with explained(file, "its directory"), zipfile.ZipFile(file.stream) as opened:
        return _Reader(file, opened).read()


class _Reader:
    """Reads one file; each storage once."""

    def __init__(self, file: ForeignFile, opened: zipfile.ZipFile) -> None:
        self._file = file
        self._zip = opened
        self._infos = {info.filename: info for info in opened.infolist()}
        self._storages: dict[str, NDArray[Any]] = {}
        pickles = [name for name in self._infos if name.split("/")[1:] == ["data.pkl"]]
        stored = all(
            info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
            for info in self._infos.values()
        )
        packed = sum(info.file_size for info in self._infos.values())
        if len(pickles) != 1 or not stored or packed > file.nbytes:
            found = f"{len(pickles)} pickles and {packed} bytes of members in {file.nbytes}"
            raise file.refuse(f"expected one data.pkl and members stored as they are; {found}")
        self._root = pickles[0].partition("/")[0]

    def read(self) -> Tree:
        order = self._member("byteorder") if f"{self._root}/byteorder" in self._infos else b"little"
        if order != b"little":
            raise self._file.refuse(f"expected little-endian values, found {order[:20]!r}")
        name = "data.pkl"
        if self._infos[f"{self._root}/{name}"].file_size > _LARGEST_PICKLE:
            raise self._file.refuse(f"its {name} is longer than {_LARGEST_PICKLE} bytes")
        return read_pickle(io.BytesIO(self._member(name)), self._storage)

    def _storage(self, pid: object) -> NDArray[Any]:
        words = pid if isinstance(pid, tuple) and len(pid) == _ID else ()
        if len(words) != _ID or words[0] != "storage" or not isinstance(words[2], str):
            raise self._file.refuse(f"expected the name of a storage, found {pid!r:.80}")
        kind, key = words[1], words[2]
        dtype = _DTYPES.get(kind.name) if isinstance(kind, StorageType) else None
        if dtype is None:
            raise self._file.refuse(f"expected a tensor of numbers, found {kind!r:.80}")
        if key not in self._storages:
            data = self._member(f"data/{key}")
            if len(data) % np.dtype(dtype).itemsize:
                raise self._file.refuse(f"storage {key[:40]!r} has {len(data)} bytes of {dtype}")
            values = np.frombuffer(data, dtype)
            if isinstance(kind, StorageType) and kind.name == "BFloat16Storage":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            self._storages[key] = values
        return self._storages[key]

    def _member(self, name: str) -> bytes:
        whole = f"{self._root}/{name}"
        if whole not in self._infos:
            message = f"{self._file.url}: it has no member {name[:80]!r}"
            raise InvalidInputError(ErrorKind.FILE_INVALID, message)
        return self._zip.read(whole)
