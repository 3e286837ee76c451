"""What a run keeps of a file beside its values, so that the file can be written again.

A tree of files becomes layers, one a file. The values of a file are fields of its layer; all else
(groups, attributes, dtypes, chunks, filters, and which values belong where) is a `KeptFile`, as
JSON in the layer's field ``file``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import JsonValue, ValidationError

from archive_schema.errors import ErrorKind, FormatError, InvalidInputError
from archive_schema.models import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE: Final = "file"
CONTENT: Final = "content"
"""Fields of a layer: the `KeptFile`, and the bytes of a file that holds no arrays."""


class KeptPlace(Document):
    """Values in the layer: a whole field, or the entry *at* of its first axis."""

    field: str
    at: int | None = None


class KeptAttribute(Document):
    """An attribute of a group or dataset: as JSON, or among the values of the layer."""

    name: str
    value: JsonValue = None
    dtype: str | None = None
    """As `archive_schema.systems.attributes` names it."""
    place: KeptPlace | None = None


class KeptDataset(Document):
    """How a dataset is stored, and where its values are."""

    dtype: str
    """NumPy's text for it, with the byte order."""
    text: str | None = None
    """Encoding of fixed strings as HDF5 names it, ``ascii`` or ``utf-8``."""
    shape: tuple[int, ...]
    maxshape: tuple[int | None, ...] | None = None
    chunks: tuple[int, ...] | None = None
    compression: str | None = None
    level: int | None = None
    shuffle: bool = False
    fletcher32: bool = False
    place: KeptPlace


class KeptMember(Document):
    """A group, or a dataset, of an HDF5 file."""

    path: str
    """From the root, ``private_params/0/W``; empty for the root."""
    dataset: KeptDataset | None = None
    attributes: tuple[KeptAttribute, ...] = ()


class KeptFile(Document):
    """A file as it was taken over."""

    path: str
    """Below the step's folder."""
    nbytes: int
    sha256: str
    hdf5: tuple[KeptMember, ...] | None = None
    """The root first, groups before what is in them; None for a file without arrays."""

    @property
    def fields(self) -> frozenset[str]:
        """Return the names of the layer's fields that hold the values."""
        if self.hdf5 is None:
            return frozenset((CONTENT,))
        places = [m.dataset.place for m in self.hdf5 if m.dataset is not None]
        places += [a.place for m in self.hdf5 for a in m.attributes if a.place is not None]
        return frozenset(place.field for place in places)

    def attributes(self, path: str = "") -> dict[str, JsonValue]:
        """Return the attributes of a group that are kept as JSON."""
        found = next((m for m in self.hdf5 or () if m.path == path), None)
        return {} if found is None else {a.name: a.value for a in found.attributes if not a.place}

    def array(self) -> NDArray[np.uint8]:
        """Return the document as the field ``file`` holds it."""
        return np.frombuffer(self.model_dump_json(exclude_defaults=True).encode(), np.uint8)


def kept_file(data: bytes) -> KeptFile:
    """Return what the bytes in the field ``file`` say; the inverse of `KeptFile.array`.

    Raises
    ------
    FormatError
        ``record-damaged`` if they are no such document.
    """
    try:
        return KeptFile.model_validate_json(data)
    except (ValidationError, InvalidInputError) as error:
        message = f"expected what is kept of a file, got {data[:80]!r}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
