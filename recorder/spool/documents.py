"""What a spool's files hold: whose they are, and tiles with all that their commit will say.

A secret is never among it: whoever drains a spool brings credentials of its own.
"""

from __future__ import annotations

import os
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

from fastcrc.crc32 import iscsi as crc32c
from pydantic import AwareDatetime, NonNegativeInt

from archive_schema.documents import document_bytes, parse_document
from archive_schema.errors import ErrorKind, FormatError
from archive_schema.models import (
    Document,
    FieldSpec,
    Name,
    RunManifest,
    SampleColumn,
    StepColumn,
    TileColumns,
)
from archive_schema.store import StoreOptions

_END_OF_DOCUMENT: Final = b"\n"


class PublicOptions(Document):
    """How the store was reached, but for what opens it."""

    endpoint_url: str | None = None
    region: str | None = None
    path_style: bool | None = None
    profile: str | None = None
    anonymous: bool | None = None

    def given(self) -> StoreOptions:
        """Return them as the options of a store."""
        return StoreOptions(**self.model_dump())


class SpoolSession(Document):
    """One recorder's part of a spool."""

    format: Literal["trace-archive spool"] = "trace-archive spool"
    format_version: int = 1
    store: str
    """URL, without what it may hold of credentials."""
    options: PublicOptions = PublicOptions()
    manifest: RunManifest
    writer: Name
    samples: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """The samples ``[start, stop)`` that the writer owns; None if it did not say."""
    host: str
    process: int
    time: AwareDatetime
    seal: bool = False
    """Whether the recorder closed, and wanted the run to be sealed when it is whole."""


class Spooled(Document):
    """What one file of a spool will add to the run: coordinates, and perhaps a tile.

    It is what their commit will say; the tile's object follows.
    """

    field: FieldSpec | None = None
    """Under which the tile was encoded."""
    tile: TileColumns | None = None
    """Columns of one entry."""
    steps: tuple[StepColumn, ...] = ()
    samples: tuple[SampleColumn, ...] = ()


def public_options(url: str, options: StoreOptions | None) -> PublicOptions:
    """Return what of *options*, and of the environment they leave it to, may be on a disk."""
    completed = (options or StoreOptions()).completed()
    known = {name: getattr(completed, name) for name in PublicOptions.model_fields}
    if url.startswith("s3:") and known["endpoint_url"] is None:
        known["endpoint_url"] = _endpoint_of_environment()
    return PublicOptions.model_validate(known)


def _endpoint_of_environment() -> str | None:
    """Return the endpoint of every tool that speaks S3; whoever drains may not have it set."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    return next((url for name in names if (url := os.environ.get(name))), None)


def without_secrets(url: str) -> str:
    """Return a store's URL without credentials.

    Examples
    --------
    >>> without_secrets("https://user:secret@host:9000/archive?sig=secret")
    'https://host:9000/archive'
    >>> without_secrets("s3://bucket/prefix")
    's3://bucket/prefix'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def spooled_bytes(spooled: Spooled, data: bytes) -> bytes:
    """Return one file of a spool: a document in one line, and then the tile's object."""
    return b"".join((document_bytes(spooled), _END_OF_DOCUMENT, data))


def parse_spooled(content: bytes, where: str) -> tuple[Spooled, bytes]:
    """Return what `spooled_bytes` wrote.

    Raises
    ------
    FormatError
        ``record-damaged`` or ``tile-damaged``.
    """
    head, _, data = content.partition(_END_OF_DOCUMENT)
    spooled = parse_document(head, where, Spooled)
    told = (0, 0) if spooled.tile is None else (spooled.tile.nbytes[0], spooled.tile.crc32c[0])
    if (len(data), crc32c(data)) != told:
        message = f"{where}: the object of the tile does not have its length and checksum"
        raise FormatError(ErrorKind.TILE_DAMAGED, message)
    return spooled, data
