"""Tells the containers apart."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.store.foreign import foreign_filesystem
from recorder.importers import hdf5_file, npz_file
from recorder.importers.foreign import open_foreign
from recorder.importers.vizfold_archives.arrays import hdf5_archive, npz_archive
from recorder.importers.vizfold_archives.source import LARGEST_NBYTES, ArchiveSource
from recorder.importers.vizfold_archives.sweep import SweepSource, is_sweep
from recorder.importers.vizfold_archives.zarr_archive import zarr_archive
from recorder.importers.vizfold_archives.zarr_metadata import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import StoreOptions
    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.source import Source

_ENDINGS: Final = re.compile(r".*\.(?:zarr|zip|h5|hdf5|npz)/?")
_AXES: Final = {"head", "query", "key"}
FLAGS: Final = {
    "attention_axes": "axes of attention where lengths do not tell them: head,query,key or"
    " query,key,head"
}
"""What a user may have to say."""
SIGNS: Final = (
    "attention/layer_*", "attention/*/layer_*", "activations/layer_*", "representations/*/layer_*",
    "act_*_single.npy", "attn_*.npy",
)  # fmt: skip
"""What tells archives from other files; see `Importer.signs`."""


def is_archive(tree: ForeignTree) -> bool:
    """Return whether *tree* is an archive: a folder with Zarr's metadata, or what is called so.

    The names are ``.zarr``, ``.zip``, ``.h5`` and ``.npz``.
    """
    if _ENDINGS.fullmatch(tree.url):
        return True
    return not DOCUMENTS.isdisjoint(tree.files("", lambda _: False))


@contextmanager
def open_archive(
    url: str,
    options: StoreOptions | None = None,
    *,
    attention_axes: str | None = None,
    largest_nbytes: int = LARGEST_NBYTES,
) -> Iterator[Source]:
    """Open the archive at *url*: a Zarr folder, a ZIP of one, an HDF5 or an NPZ file.

    Parameters
    ----------
    attention_axes
        Axes of three-dimensional attention in the file, ``head,query,key`` or ``query,key,head``.
    largest_nbytes : int
        What is recorded at once.

    Raises
    ------
    InvalidInputError
        ``file-invalid``; ``invalid-parameter`` for other axes.
    """
    axes = None if attention_axes is None else tuple(attention_axes.split(","))
    if axes is not None and (set(axes) != _AXES or len(axes) != len(_AXES) or axes[1] == "head"):
        message = (
            f"attention_axes: expected head,query,key or query,key,head; got {attention_axes!r}"
        )
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    filesystem, path = foreign_filesystem(url, options)
    if url.endswith(".zip") or url.rstrip("/").endswith(".zarr") or filesystem.isdir(path):
        with zarr_archive(url.rstrip("/"), options) as archive:
            if is_sweep(archive):
                yield SweepSource(archive)
            else:
                yield ArchiveSource(url, archive, axes=axes, largest_nbytes=largest_nbytes)
        return
    with open_foreign(url, options) as file:
        if file.signature == hdf5_file.SIGNATURE:
            with hdf5_file.open_hdf5(file) as opened:
                yield ArchiveSource(
                    url, hdf5_archive(opened), axes=axes, largest_nbytes=largest_nbytes
                )
        elif file.signature[:4] in npz_file.SIGNATURES:
            with npz_file.NpzFile(file) as npz:
                yield ArchiveSource(url, npz_archive(npz), axes=axes, largest_nbytes=largest_nbytes)
        else:
            begins = f"{file.nbytes} bytes that begin with {file.signature!r}"
            raise file.refuse(f"expected a Zarr, HDF5 or NPZ archive, found {begins}")
