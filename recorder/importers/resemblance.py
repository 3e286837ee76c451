"""What lies at a path that an importer refused, and which system it looks like.

Only names are looked at: of files and folders, of members of an archive, of groups and datasets.
"""

from __future__ import annotations

import zipfile
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import h5py

from archive_schema.errors import ArchiveError
from archive_schema.store.foreign import foreign_filesystem
from recorder.importers import hdf5_file, npz_file
from recorder.importers.foreign import open_foreign
from recorder.importers.importer import FileImporter
from recorder.importers.registry import importable_systems, importer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from archive_schema.store import StoreOptions

_DEPTH: Final = 4
_MOST_NAMES: Final = 2000


def described(url: str, options: StoreOptions | None, system: str) -> str:
    """Return what is to be said of the place *url*, where the import as *system* was refused.

    A clause, or nothing: where it does look like *system*, where there is nothing, and where
    looking fails, as the import has.
    """
    try:
        filesystem, path = foreign_filesystem(url, options)
        if not filesystem.exists(path):
            return ""
        folder = filesystem.isdir(path)
        below = _below(filesystem, path) if folder else _inside(url, options)
        names = [name for name in islice(below, _MOST_NAMES) if name]
    except (ArchiveError, OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        return ""
    if not names:
        return "it is an empty folder"
    found = {other: at for other in importable_systems() if (at := _sign(other, names))}
    if system in found:
        inner = found[system][0]
        return f"its files seem to lie in {inner}/: name that folder" if inner else ""
    if found:
        said = [f"{other} ({at})" for other, (_, at) in found.items()]
        return f"it looks like {' or '.join(said)}"
    return "" if folder or isinstance(importer(system), FileImporter) else "it is a file, no folder"


def _sign(system: str, names: list[str]) -> tuple[str, str] | None:
    """Return the first of *names* that is a sign of *system*, and the folder that it is below."""
    signs: list[PurePosixPath] = []
    with suppress(ArchiveError):  # of a package that cannot be imported
        signs += map(PurePosixPath, importer(system).signs)
    for name in names:
        first, *rest = PurePosixPath(name).parts
        for folder, tried in (("", PurePosixPath(name)), (first, PurePosixPath(*rest))):
            if any(len(tried.parts) == len(s.parts) and tried.match(str(s)) for s in signs):
                return folder, name
    return None


def _below(filesystem: Any, path: str) -> Iterator[str]:
    """Yield names of files and folders, the uppermost first."""
    folders = [(path, "")]
    for _ in range(_DEPTH):
        deeper = []
        for folder, prefix in folders:
            infos: list[Mapping[str, Any]] = filesystem.ls(folder, detail=True)
            for info in sorted(infos, key=lambda one: str(one["name"])):
                name = prefix + str(info["name"]).rstrip("/").rpartition("/")[2]
                yield name
                if info["type"] == "directory":
                    deeper.append((str(info["name"]), f"{name}/"))
        folders = deeper


def _inside(url: str, options: StoreOptions | None) -> Iterator[str]:
    """Yield the name of a file, and names of what is in it."""
    yield url.rstrip("/").rpartition("/")[2]
    with ExitStack() as stack:
        file = stack.enter_context(open_foreign(url, options))
        if file.signature[:4] in npz_file.SIGNATURES:
            yield from zipfile.ZipFile(file.stream).namelist()
        elif file.signature == hdf5_file.SIGNATURE:
            opened = stack.enter_context(hdf5_file.open_hdf5(file))
            for name in opened:
                yield name
                link = opened.get(name, getlink=True)
                member = opened[name] if isinstance(link, h5py.HardLink) else None
                if isinstance(member, h5py.Group):
                    yield from (f"{name}/{inner}" for inner in member)
