"""Files of other programs, by any URL, and the errors they give rise to."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from fsspec.implementations.local import LocalFileSystem

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.store.foreign import foreign_errors, foreign_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import StoreOptions

SIGNATURE_NBYTES: Final = 8
_BLOCK_NBYTES: Final = 4 << 20
_BLOCKS: Final = 8


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """An open file that another program wrote; nothing in it is trusted."""

    url: str
    stream: IO[bytes]
    path: str | None
    """Where the file lies on this machine; None if it is remote."""
    nbytes: int
    signature: bytes
    """The first bytes."""

    def refuse(self, reason: str) -> InvalidInputError:
        """Return the error that says what is wrong with the file."""
        return invalid_file(self.url, reason)


def invalid_file(url: str, reason: str) -> InvalidInputError:
    """Return the error (``file-invalid``) for a file that is not what it should be."""
    return InvalidInputError(ErrorKind.FILE_INVALID, f"{url}: {reason}")


@contextmanager
def open_foreign(url: str, options: StoreOptions | None = None) -> Iterator[ForeignFile]:
    """Open the file at *url*, a path or any URL that fsspec knows.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if there is no such file.
    StorageError
        ``store-unreachable`` or ``store-refused`` if it cannot be read.
    """
    with _opened(url, options) as (stream, path):
        nbytes = stream.seek(0, 2)
        stream.seek(0)
        signature = stream.read(SIGNATURE_NBYTES)
        stream.seek(0)
        yield ForeignFile(url, stream, path, nbytes, signature)


@contextmanager
def _opened(url: str, options: StoreOptions | None) -> Iterator[tuple[IO[bytes], str | None]]:
    arguments: dict[str, Any] = {}
    try:
        filesystem, path = foreign_filesystem(url, options)
        local = isinstance(filesystem, LocalFileSystem)
        if not local:
            # Several members of a file are read in turns: a cache of one window would be
            # thrown away at every turn.
            arguments = {
                "cache_type": "blockcache",
                "block_size": _BLOCK_NBYTES,
                "cache_options": {"maxblocks": _BLOCKS},
            }
        with foreign_errors(url):
            stream = filesystem.open(path, "rb", **arguments)
    except (InvalidInputError, NotFoundError) as error:
        raise invalid_file(url, f"cannot be opened: {error}") from error
    with stream:
        if local:
            yield stream, path
            return
        # What is read later may fail later.
        with foreign_errors(url):
            yield stream, None
