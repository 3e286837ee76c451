"""Trees of files of other programs, by any URL, also while those programs write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.store.foreign import foreign_errors, foreign_filesystem
from recorder.importers.foreign import invalid_file, open_foreign

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from archive_schema.store import StoreOptions
    from recorder.importers.foreign import ForeignFile

Signature: TypeAlias = tuple[str, ...]
"""What changes when a file is written or replaced, as far as its file system tells."""
_TELLING: Final = ("size", "mtime", "ino", "ETag", "etag", "LastModified", "updated")
_LOOKS: Final = 3
"""A folder whose files go while it is listed is listed again, so many times."""


class ForeignTree:
    """A folder and what is below it.

    Parameters
    ----------
    url : str
        A path, or any URL that fsspec knows.
    options
        How *url* is reached, if it is on S3.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if nothing opens such a URL.
    """

    def __init__(self, url: str, options: StoreOptions | None = None) -> None:
        self.url = url.rstrip("/") or url
        self.options = options
        try:
            self._filesystem, self._root = foreign_filesystem(self.url, options)
        except InvalidInputError as error:
            raise invalid_file(url, f"cannot be opened: {error}") from error

    def exists(self) -> bool:
        """Return whether there is anything at all."""
        with foreign_errors(self.url):
            return bool(self._filesystem.exists(self._root))

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders in the folder *path*, none if it is not there."""
        return [name for name, info in self._listed(path) if info["type"] == "directory"]

    def files(self, path: str, enter: Callable[[str], bool]) -> dict[str, Signature]:
        """Return the files in the folder *path* and in the folders below that *enter* accepts.

        Names are relative to *path*, with slashes, and so are those that *enter* is asked about.
        """
        found: dict[str, Signature] = {}
        for name, info in self._listed(path):
            if info["type"] != "directory":
                found[name] = tuple(str(info[key]) for key in _TELLING if key in info)
            elif enter(name):
                below = f"{path}/{name}" if path else name
                inside = self.files(below, lambda inner, at=name: enter(f"{at}/{inner}"))  # type: ignore[misc]
                found |= {f"{name}/{inner}": signature for inner, signature in inside.items()}
        return dict(sorted(found.items()))

    def open(self, path: str) -> AbstractContextManager[ForeignFile]:
        """Open the file *path*; errors as `open_foreign`."""
        return open_foreign(f"{self.url}/{path}", self.options)

    def refuse(self, reason: str) -> InvalidInputError:
        """Return the error (``file-invalid``) that says what is wrong with the tree."""
        return invalid_file(self.url, reason)

    def _listed(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        where = f"{self._root}/{path}" if path else self._root
        for _ in range(_LOOKS):
            try:
                with foreign_errors(f"{self.url}/{path}"):
                    self._filesystem.invalidate_cache(where)
                    if not self._filesystem.isdir(where):
                        return []
                    infos = self._filesystem.ls(where, detail=True)
            except NotFoundError as error:
                if error.kind is not ErrorKind.OBJECT_NOT_FOUND:
                    raise
                continue
            named = [(str(info["name"]).rstrip("/").rpartition("/")[2], info) for info in infos]
            return sorted((name, info) for name, info in named if name)
        return []
