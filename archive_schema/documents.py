"""Documents in a store: JSON that ends with its own checksum, validated when it is read.

A flipped digit in a commit would otherwise be another number, and damage that nobody notices.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import orjson
from fastcrc.crc32 import iscsi as crc32c
from pydantic import ValidationError

from archive_schema.errors import ArchiveError, ErrorKind, FormatError
from archive_schema.models import FORMAT_VERSION, Document

if TYPE_CHECKING:
    from archive_schema.store import Store

_CHECKSUM: Final = re.compile(rb',"crc32c":([0-9]{1,10})}\s*\Z')

_D = TypeVar("_D", bound=Document)


def document_bytes(document: Document) -> bytes:
    """Return *document* as it is stored: its last member is the CRC32C of all bytes before it."""
    body = document.model_dump_json().encode()[:-1]
    return b'%b,"crc32c":%d}' % (body, crc32c(body))


def read_bytes(store: Store, key: str) -> bytes:
    """Read one document as it is stored, and once more if its checksum does not fit.

    What lies sound in a store may be cut or changed on its way, and no client notices. What
    does not fit the second time either is for `parse_document` to judge.

    Raises
    ------
    NotFoundError
        ``object-not-found``.
    """
    data = store.read(key)
    return data if _is_whole(data) else store.read(key)


def read_document(store: Store, key: str, model: type[_D]) -> _D:
    """Read one JSON document.

    Raises
    ------
    NotFoundError
        ``object-not-found``.
    FormatError
        ``record-damaged`` if the object is no such document, and
        ``format-version-unsupported`` if a newer version wrote it.
    """
    return parse_document(read_bytes(store, key), f"{store.url}/{key}", model)


def parse_document(data: bytes, where: str, model: type[_D]) -> _D:
    """Validate one JSON document; errors as `read_document`."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"{where} is no JSON document: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
    version = values.get("format_version", FORMAT_VERSION) if isinstance(values, dict) else None
    if version != FORMAT_VERSION and isinstance(version, int):
        message = f"{where} has format version {version}; this version reads {FORMAT_VERSION}"
        raise FormatError(ErrorKind.FORMAT_VERSION_UNSUPPORTED, message)
    if not _is_whole(data):
        message = f"{where} is damaged: it does not end with a checksum that fits"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message)
    del values["crc32c"]
    try:
        return model.model_validate(values)
    except (ValidationError, ArchiveError) as error:
        message = f"{where} is no {model.__name__}: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error


def _is_whole(data: bytes) -> bool:
    """Return whether a document ends with its own checksum."""
    checksum = _CHECKSUM.search(data)
    return checksum is not None and crc32c(memoryview(data)[: checksum.start()]) == int(checksum[1])
