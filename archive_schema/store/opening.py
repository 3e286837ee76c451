"""From a store's URL to the store."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import MemoryStore, from_url

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.store.interface import Store, StoreOptions
from archive_schema.store.local import LocalStore
from archive_schema.store.objects import ObjectsStore

if TYPE_CHECKING:
    from obstore.store import ObjectStore


def open_store(url: str | os.PathLike[str], options: StoreOptions | None = None) -> Store:
    """Open the store at *url*: a path, ``file://``, ``memory://``, ``s3://``, ``gs://``, ``az://``.

    Nothing is read or written yet.

    Raises
    ------
    InvalidInputError
        ``store-url-invalid`` for a scheme or a URL that is not understood.
    """
    text = os.fspath(url)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return LocalStore(Path(text))
    if scheme == "file":
        return LocalStore(Path(unquote(urlsplit(text).path)))
    if scheme == "memory":
        return ObjectsStore(text, _memory(text))
    if scheme in ("s3", "gs", "az"):
        return ObjectsStore(text, _remote(text, options or StoreOptions()))
    message = f"expected a path, file://, memory://, s3://, gs:// or az://; got {text!r}"
    raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message)


@cache
def _memory(url: str) -> MemoryStore:
    """Return the memory store named by *url*; one process has one of each name."""
    del url
    return MemoryStore()


def _remote(url: str, options: StoreOptions) -> ObjectStore:
    config: dict[str, Any] = {}
    client: dict[str, Any] = {}
    if options.region is not None:
        config["region"] = options.region
    endpoint = options.endpoint_url or (
        os.environ.get("AWS_ENDPOINT_URL") if url.startswith("s3://") else None
    )
    if endpoint is not None:
        config["endpoint"] = endpoint
        client["allow_http"] = endpoint.startswith("http://")
    if options.anonymous:
        config["skip_signature"] = True
    # Its overloads name one config type for each scheme; here the scheme is known at run time.
    opened: Any = from_url
    try:
        store: ObjectStore = opened(url, config=config, client_options=client)
    except (BaseError, ValueError) as error:
        message = f"cannot open {url!r} as a store: {error}"
        raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message) from error
    return store
