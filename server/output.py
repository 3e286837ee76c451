"""Writes what is computed to any URL that fsspec opens, whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from fsspec.implementations.local import LocalFileSystem

from archive_schema.errors import ConflictError, ErrorKind
from archive_schema.store.foreign import foreign_errors, foreign_filesystem
from server.exporters import MadeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from archive_schema.store import StoreOptions
    from server.exporters import Tree

_PARTIAL: Final = ".partial"


def write_file(
    parts: Iterable[bytes],
    url: str,
    *,
    options: StoreOptions | None = None,
    overwrite: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> None:
    """Write a file to *url*.

    Parameters
    ----------
    parts : iterable of bytes
        What it consists of; nothing is taken of it before *url* is known to be free.
    url : str
        A path, or any URL of fsspec: ``s3://bucket/run.h5``.
    options
        How *url* is reached, if it is on S3.
    overwrite
        Whether what is there may be replaced. It is, when the new file is complete.
    advance
        Called with the bytes written since the last call.

    Raises
    ------
    ConflictError
        ``output-exists``.
    InvalidInputError
        ``store-url-invalid`` for a URL that nothing opens.
    StorageError
        ``store-unreachable`` or ``store-refused`` if it cannot be written. Nothing is left at
        *url* then.
    """
    filesystem, path = foreign_filesystem(url, options)
    with foreign_errors(url):
        if not overwrite and filesystem.exists(path):
            message = f"{url} exists already; say --force to replace it"
            raise ConflictError(ErrorKind.OUTPUT_EXISTS, message)
        with _opened(filesystem, path) as target:
            for part in parts:
                target.write(part)
                advance(len(part))


def write_tree(
    tree: Tree,
    url: str,
    *,
    options: StoreOptions | None = None,
    overwrite: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Write the files of *tree* below *url*; arguments and errors as `write_file`.

    Nothing is written if one of the files is there, unless *overwrite* says so. What else lies
    there stays.

    Parameters
    ----------
    advance
        Called with the files written since the last call.

    Returns
    -------
    int
        Bytes written.
    """
    filesystem, root = foreign_filesystem(url, options)
    root = root.rstrip("/")
    written = 0
    with foreign_errors(url):
        paths = [file.path for file in tree.files]
        there = [path for path in paths if not overwrite and filesystem.exists(f"{root}/{path}")]
        if there:
            message = (
                f"{url} has {len(there)} of the {len(paths)} files already, {there[0]} among"
                " them; say --force to replace them"
            )
            raise ConflictError(ErrorKind.OUTPUT_EXISTS, message)
        for file in tree.files:
            path = f"{root}/{file.path}"
            if isinstance(filesystem, LocalFileSystem):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            with _opened(filesystem, path) as target:
                for part in MadeFile(file).parts():
                    target.write(part)
                    written += len(part)
            advance(1)
    return written


@contextmanager
def _opened(filesystem: Any, path: str) -> Iterator[IO[bytes]]:
    """Open a file that appears at *path* when the block ends, and not if it fails."""
    if not isinstance(filesystem, LocalFileSystem):
        # Object stores: an upload that is not completed leaves nothing.
        with filesystem.transaction, filesystem.open(path, "wb") as target:
            yield target
        return
    # Beside its place and not in a temporary folder, which may be small and elsewhere.
    partial = Path(path + _PARTIAL)
    try:
        with partial.open("wb") as target:
            yield target
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
