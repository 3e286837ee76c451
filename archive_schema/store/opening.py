"""From a store's URL to the store."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore.store import MemoryStore

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.store.clouds import open_cloud, open_s3
from archive_schema.store.http import HttpStore
from archive_schema.store.local import LocalStore
from archive_schema.store.objects import ObjectsStore
from archive_schema.store.options import StoreOptions

if TYPE_CHECKING:
    from archive_schema.store.interface import Store


def open_store(url: str | os.PathLike[str], options: StoreOptions | None = None) -> Store:
    """Open the store at *url*: a path, or of one of the schemes below.

    ``file://``, ``memory://``, ``s3://``, ``gs://``, ``az://``, and ``http://`` or ``https://``
    for an archive that a server gives and takes.

    Nothing is read or written yet, and nobody is asked for credentials.

    Raises
    ------
    InvalidInputError
        ``store-url-invalid`` for a scheme or a URL that is not understood, and
        ``invalid-parameter`` for options that contradict one another.
    """
    text = os.fspath(url)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return LocalStore(Path(text))
    if scheme == "file":
        return LocalStore(_path_of(text))
    if scheme == "memory":
        return ObjectsStore(text, _memory(text))
    if scheme == "s3":
        return open_s3(text, options or StoreOptions())
    if scheme in ("gs", "az"):
        return open_cloud(text, options or StoreOptions())
    if scheme in ("http", "https"):
        token = options and options.token
        return HttpStore(text, token or os.environ.get("TRACE_ARCHIVE_TOKEN") or None)
    message = f"expected a path, file://, memory://, s3://, gs://, az:// or http://; got {text!r}"
    raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message)


def _path_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        message = f"expected file:///path, with three slashes; got {url!r}"
        raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message)
    return Path(unquote(parts.path))


@cache
def _memory(url: str) -> MemoryStore:
    """Return the memory store named by *url*; one process has one of each name."""
    del url
    return MemoryStore()
