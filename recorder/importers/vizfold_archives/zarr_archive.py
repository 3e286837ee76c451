"""Foreign Zarr hierarchies, versions 2 and 3, in a folder or a ZIP, read by zarr-python.

What is read: the names of all objects first, then the metadata documents, which are checked here
(`zarr_metadata`), and values when they are asked for. An array of which no object is stored is left
out: what Zarr would give is its fill value.
"""

from __future__ import annotations

import math
import re
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import zarr
from fsspec.implementations.zip import ZipFileSystem
from zarr.storage import FsspecStore

from archive_schema.errors import InvalidInputError
from archive_schema.store.foreign import foreign_errors, foreign_filesystem
from recorder.importers.foreign import invalid_file, open_foreign
from recorder.importers.vizfold_archives.arrays import ForeignArchive, ForeignArray
from recorder.importers.vizfold_archives.zarr_metadata import (
    DOCUMENTS,
    V2_ARRAY,
    V2_ATTRIBUTES,
    V2_GROUP,
    V3_DOCUMENT,
    BadMetadataError,
    ZarrDocument,
    parse_v2,
    parse_v3,
)
from recorder.importers.vizfold_archives.zip_check import zip_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from archive_schema.store import StoreOptions
    from recorder.importers.vizfold_archives.arrays import Read

_CHUNK: Final = re.compile(r"(?:.*/)?(?:c/)?[0-9]+(?:[./][0-9]+)*")
_LARGEST_DOCUMENT: Final = 16 << 20
_LARGEST_CHUNK: Final = 4 << 30
_MOST_TEXTS: Final = 1 << 20
_MOST_EXPANDED: Final = 100_000
"""No codec that is let through makes more out of a byte of what a model computes."""
_LOST: Final = (
    "A copy that leaves out *.json files (as the .gitignore of VizFold's repository says) or hidden"
    " files loses them. They cannot be made again: shapes and dtypes stand nowhere else. Copy them"
    " from where the archive was written, or write it again"
)


@contextmanager
def zarr_archive(url: str, options: StoreOptions | None = None) -> Iterator[ForeignArchive]:
    """Open the Zarr hierarchy at *url*: a folder, or a ZIP file of one.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it is none, if its metadata are lost, or if it is not to be trusted.
    """
    with ExitStack() as stack:
        if url.endswith(".zip"):
            file = stack.enter_context(open_foreign(url, options))
            sizes = zip_members(file)
            filesystem: Any = ZipFileSystem(fo=file.stream)
            root = ""
        else:
            filesystem, root = foreign_filesystem(url, options)
            with foreign_errors(url):
                listed = filesystem.find(root, detail=True)
            sizes = {
                name.removeprefix(root).lstrip("/"): int(info["size"] or 0)
                for name, info in listed.items()
            }
        hierarchy = _Hierarchy(url, filesystem, root, sizes)
        yield hierarchy.archive()


class _Hierarchy:
    """The objects of a hierarchy by their names below *root*, and their lengths."""

    def __init__(self, url: str, filesystem: Any, root: str, sizes: Mapping[str, int]) -> None:
        self._url = url
        inside = self._inside(sizes)
        prefix = f"{inside}/" if inside else ""
        self._sizes = {
            name.removeprefix(prefix): size
            for name, size in sizes.items()
            if name.startswith(prefix)
        }
        self._objects = filesystem.get_mapper(
            f"{root}/{inside}" if inside and root else root or inside
        )
        self._store = FsspecStore.from_mapper(self._objects, read_only=True)

    def archive(self) -> ForeignArchive:
        """Return the groups' attributes and the arrays, in the order of their names."""
        found = ForeignArchive("zarr")
        documents = self._documents(found)
        arrays = {path for path, document in documents.items() if document.shape is not None}
        counts, orphans = self._stored(arrays)
        for folder, count in sorted(orphans.items()):
            found.missing.append(
                f"{folder or 'the root'} has {count} objects and no metadata: left out"
            )
        for path, document in documents.items():
            if document.shape is None:
                if document.attributes:
                    found.attributes[path] = document.attributes
            else:
                found.attributes[path] = document.attributes
                array = self._array(path, document, *counts.get(path, (0, 0)), found)
                if array is not None:
                    found.arrays[path] = array
        return found

    def _inside(self, sizes: Mapping[str, int]) -> str:
        """Return the folder that is the hierarchy: the root, the one ``*.zarr``, or the only one.

        Raises
        ------
        InvalidInputError
            ``file-invalid``, saying whether metadata are lost.
        """
        holding = {
            name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] in DOCUMENTS
        }
        tops: list[str] = sorted({name.partition("/")[0] for name in sizes if "/" in name})
        stores = [top for top in tops if top.endswith(".zarr")]
        candidates: list[str] = [*([] if stores else [""]), *stores, *tops[: len(tops) == 1]]
        for candidate in candidates:
            if candidate in holding:
                return candidate
        if holding:
            return tops[0] if len(tops) == 1 else ""
        chunks = sum(bool(_CHUNK.fullmatch(name)) for name in sizes)
        if chunks:
            message = (
                f"metadata missing: {chunks} objects look like chunks of a Zarr archive, and there"
                f" is no zarr.json, .zarray or .zgroup beside them. {_LOST}"
            )
            raise invalid_file(self._url, message)
        shown = ", ".join(sorted(sizes)[:3]) or "nothing"
        raise invalid_file(self._url, f"expected a Zarr archive, found {shown}")

    def _documents(self, found: ForeignArchive) -> dict[str, ZarrDocument]:
        folders = sorted({n.rpartition("/")[0] for n in self._sizes if _name(n) in DOCUMENTS})
        documents: dict[str, ZarrDocument] = {}
        for folder in folders:
            texts = {
                name: self._text(folder, name)
                for name in (V3_DOCUMENT, V2_ARRAY, V2_GROUP, V2_ATTRIBUTES)
            }
            new = texts[V3_DOCUMENT]
            try:
                document = (
                    parse_v2(texts[V2_ARRAY], texts[V2_ATTRIBUTES])
                    if new is None
                    else parse_v3(new)
                )
            except BadMetadataError as error:
                raise invalid_file(
                    self._url, f"metadata of {folder or 'the root'}: {error}"
                ) from error
            documents[folder] = document
            if new is not None and texts[V2_ARRAY] is not None:
                found.odd.append(f"{folder} has metadata of Zarr 2 and 3: those of 3 count")
        return documents

    def _text(self, folder: str, name: str) -> bytes | None:
        path = f"{folder}/{name}" if folder else name
        size = self._sizes.get(path)
        if size is None:
            return None
        if size > _LARGEST_DOCUMENT:
            raise invalid_file(self._url, f"{path} has {size} bytes, too many for metadata")
        with self._explained(path):
            text: bytes = self._objects[path]
        return text

    def _stored(self, arrays: set[str]) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
        """Return how many objects each array has, and their bytes; and those of no array."""
        counts: dict[str, tuple[int, int]] = {}
        orphans: dict[str, int] = {}
        for name, size in self._sizes.items():
            if _name(name) in DOCUMENTS:
                continue
            folder = name.rpartition("/")[0]
            owner = folder
            while owner and owner not in arrays:
                owner = owner.rpartition("/")[0]
            if owner in arrays:
                number, nbytes = counts.get(owner, (0, 0))
                counts[owner] = (number + 1, nbytes + size)
            elif _CHUNK.fullmatch(name):
                folder = re.sub(r"/c(/[0-9]+)*$", "", folder)
                orphans[folder] = orphans.get(folder, 0) + 1
        return counts, orphans

    def _array(
        self, path: str, document: ZarrDocument, objects: int, nbytes: int, found: ForeignArchive
    ) -> ForeignArray | None:
        shape = document.shape or ()
        with self._explained(path):
            opened = zarr.open_array(self._store, path=path, mode="r", zarr_format=document.version)
            dtype = np.dtype(opened.dtype)
        text = dtype.kind in "OT"
        if not text and dtype.kind not in "biufSU":
            found.odd.append(f"{path} holds {dtype}, neither numbers nor text: left out")
            return None
        array = ForeignArray(
            path,
            shape,
            1 if text else dtype.itemsize,
            self._reader(path, opened),
            document.dims,
            document.chunks,
        )
        if text and math.prod(shape) > _MOST_TEXTS:
            raise invalid_file(self._url, f"{path} declares {math.prod(shape)} texts")
        chunk_nbytes = array.itemsize * math.prod(document.decoded)
        if chunk_nbytes > _LARGEST_CHUNK and array.nbytes > _LARGEST_CHUNK:
            message = (
                f"{path}: a chunk of {chunk_nbytes:,} bytes; at most {_LARGEST_CHUNK:,} are read"
            )
            raise invalid_file(self._url, message)
        if objects and array.nbytes > nbytes * _MOST_EXPANDED + _LARGEST_DOCUMENT:
            message = f"{path} declares {array.nbytes:,} bytes and stores {nbytes:,}"
            raise invalid_file(self._url, message)
        if not objects and shape and array.nbytes:
            found.missing.append(f"{path} has metadata and no values: left out")
            return None
        if objects < document.objects and array.nbytes:
            found.odd.append(
                f"{path}: {document.objects - objects} of {document.objects} chunks are not stored;"
                f" Zarr reads them as the fill value {opened.fill_value!r}, and so they are kept"
            )
        return array

    def _reader(self, path: str, opened: zarr.Array[Any]) -> Read:
        def read(start: int | None, stop: int | None) -> NDArray[Any]:
            with self._explained(path):
                values = np.asarray(opened[...] if start is None else opened[start:stop])
            if values.dtype.kind not in "biufSU":
                values = values.astype(np.str_)
            return values

        return read

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """Turn what Zarr and its codecs raise about damaged bytes into ``file-invalid``."""
        try:
            with foreign_errors(self._url), warnings.catch_warnings():
                # Of text in version 3, which has no final name: it is read all the same.
                warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
                yield
        except InvalidInputError:
            raise
        except (RuntimeError, KeyError, TypeError, ValueError, NotImplementedError) as error:
            raise invalid_file(self._url, f"{path} cannot be read: {error}") from error


def _name(path: str) -> str:
    return path.rpartition("/")[2]
