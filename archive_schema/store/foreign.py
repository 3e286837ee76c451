"""Files of other programs, wherever fsspec finds them, reached with a store's options."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import fsspec
from aiohttp import ClientError as HttpError
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from archive_schema.errors import (
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StoreRefusedError,
)
from archive_schema.store.options import StoreOptions
from archive_schema.store.s3 import S3Access

if TYPE_CHECKING:
    from collections.abc import Iterator


def foreign_filesystem(url: str, options: StoreOptions | None = None) -> tuple[Any, str]:
    """Return fsspec's file system for *url*, and the path of *url* in it.

    Raises
    ------
    InvalidInputError
        ``store-url-invalid`` for a URL that nothing opens, and ``invalid-parameter`` for options
        that contradict one another.
    StorageError
        ``store-unreachable``.
    """
    arguments: dict[str, Any] = {}
    scheme, separator, rest = url.partition("://")
    if separator and scheme in ("s3", "s3a"):
        bucket = rest.partition("/")[0]
        arguments = S3Access.resolved(bucket, options or StoreOptions()).fsspec_arguments()
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **arguments)
    except (ImportError, ValueError) as error:
        message = f"nothing opens {url!r}: {error}"
        raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message) from error
    except OSError as error:  # of one that connects at once
        raise StorageError(ErrorKind.STORE_UNREACHABLE, f"{url}: {error}") from error
    return filesystem, str(path)


@contextmanager
def foreign_errors(url: str) -> Iterator[None]:
    """Raise what fsspec's file systems raise as errors of ours.

    Raises
    ------
    NotFoundError
        ``object-not-found`` if there is no such file.
    StoreRefusedError
        ``store-refused`` if the credentials do not allow it, or there are none.
    StorageError
        ``store-unreachable`` for all else.
    """
    try:
        yield
    except IsADirectoryError as error:
        raise NotFoundError(ErrorKind.OBJECT_NOT_FOUND, f"{url} is a folder, no file") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"there is no file {url} ({error})"
        raise NotFoundError(ErrorKind.OBJECT_NOT_FOUND, message) from error
    except (PermissionError, NoCredentialsError) as error:
        message = f"{url}: refused ({error})"
        raise StoreRefusedError(ErrorKind.STORE_REFUSED, message) from error
    except (OSError, BotoCoreError, ClientError, HttpError) as error:
        message = f"{url}: {error or type(error).__name__}"
        raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from error
