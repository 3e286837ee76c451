"""A run as a tree of files: each made when it is its turn, one at a time, on the local disk.

Files that a library compresses have no length before they are made. So a tree is streamed: file by
file into a folder, or as a ZIP whose members are stored as they are.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from hashlib import blake2b
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final

from archive_schema.systems.relative_path import is_inside
from server.exporters.virtual_file import CHUNK_NBYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_IN_MEMORY: Final = 16 << 20
"""A file up to this is not put on the disk."""
_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Equal trees must give equal bytes."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file, not made yet."""

    path: str
    """Below the tree, with slashes."""
    nbytes: int
    """About how long it is, for people who wait."""
    digest: str
    """A strong digest of the bytes, or of what they follow from; nothing is read for it."""
    write: Callable[[IO[bytes]], None]


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a run."""

    files: tuple[TreeFile, ...]
    notes: tuple[str, ...]
    """What is not in them, a sentence each."""

    @classmethod
    def of(cls, files: Iterable[TreeFile], notes: Iterable[str] = ()) -> Tree:
        """Return the tree of those *files* that lie in it; a note tells of others.

        Paths come from runs, which tell what a recorder was told.
        """
        listed = list(files)
        outside = [file.path for file in listed if not is_inside(file.path)]
        said = list(notes)
        if outside:
            said.append(f"paths that lead out of the folder are left out: {outside[0]!r:.100}, …")
        return cls(tuple(file for file in listed if is_inside(file.path)), tuple(said))

    @property
    def digest(self) -> str:
        """A strong digest of the tree, as hexadecimal text."""
        said = "\n".join(f"{file.path} {file.digest}" for file in self.files)
        return blake2b(said.encode(), digest_size=16).hexdigest()


class MadeFile:
    """A file that was made: its length, and its bytes once. It goes when they were read."""

    def __init__(self, file: TreeFile) -> None:
        self._made = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  closed by whoever reads it
        try:
            file.write(self._made)
        except BaseException:
            self._made.close()
            raise
        self._made.seek(0, os.SEEK_END)
        self.nbytes = self._made.tell()

    def parts(self) -> Iterator[bytes]:
        """Yield the bytes, at most `CHUNK_NBYTES` at a time."""
        with self._made:
            self._made.seek(0)
            yield from iter(lambda: self._made.read(CHUNK_NBYTES), b"")


def zip_parts(tree: Tree) -> Iterator[bytes]:
    """Yield the ZIP of *tree*, never more than a part of a file in memory."""
    out = _Outgoing()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for file in tree.files:
            info = zipfile.ZipInfo(file.path, _DATE)
            with archive.open(info, "w", force_zip64=True) as member:
                for part in MadeFile(file).parts():
                    member.write(part)
                    yield out.take()
        # The directory follows as the archive is closed.
    yield out.take()


class _Outgoing:
    """A file that is written in order and taken away as it is written; it cannot seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is written is taken when somebody asks."""

    def close(self) -> None:
        """Do nothing, for the same reason."""

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
