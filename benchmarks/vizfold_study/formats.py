"""Five ways to store one run, each as its users would: how it is written, and how it is read.

A writer takes arrays as they come, and a reader opens one array by name: the path of the
original's archives. Readers of a layer's attention take an index of (head, query, key).
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, Final, Protocol

import h5py
import numpy as np
import zarr
from zarr.codecs import BloscCodec

from archive_schema.models import Place
from archive_schema.store import open_store
from recorder import TraceRecorder
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Values = NDArray[Any]
    Read = Callable[[tuple[Any, ...]], Values]

CHUNK: Final = 32
"""Of the original's Zarr, along every axis of residues."""
OURS: Final = "trace-archive"


class Writer(Protocol):
    """Takes the arrays of a run, one at a time."""

    def put(self, path: str, values: Values) -> None:
        """Store one array."""

    def close(self) -> None:
        """Finish."""


class Reader(Protocol):
    """Gives the arrays of a run; opened once, used from many threads."""

    def open(self, path: str) -> Read:
        """Return what reads an index of one array."""

    def close(self) -> None:
        """Let go of the files."""


class NpzWriter:
    """What `numpy.savez_compressed` writes, without the whole run in memory."""

    def __init__(self, target: Path) -> None:
        self._file = zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED)

    def put(self, path: str, values: Values) -> None:
        """Store one array as a member."""
        with self._file.open(f"{npz_key(path)}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, values)

    def close(self) -> None:
        """Write the directory of the file."""
        self._file.close()


def npz_key(path: str) -> str:
    """Return the key that the original gives an array.

    Examples
    --------
    >>> npz_key("activations/layer_3/pair"), npz_key("attention/layer_3"), npz_key("outputs/conf")
    ('act_3_pair', 'attn_3', 'conf')
    """
    place, _, rest = path.partition("/")
    if place == "outputs":
        return rest
    layer, _, name = rest.removeprefix("layer_").partition("/")
    return f"act_{layer}_{name}" if name else f"attn_{layer}"


class NpzReader:
    """Decompresses a whole member for any part of it."""

    def __init__(self, target: Path) -> None:
        self._file = np.load(target)

    def open(self, path: str) -> Read:
        """Return what reads an index of one array."""
        return lambda at: self._file[npz_key(path)][at]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Hdf5Writer:
    """One dataset an array: contiguous, as the original has it, or one chunk a head."""

    def __init__(self, target: Path, *, by_head: bool) -> None:
        self._file = h5py.File(target, "w")
        self._by_head = by_head

    def put(self, path: str, values: Values) -> None:
        """Store one array."""
        chunks = (1, *values.shape[1:]) if self._by_head and values.ndim > 2 else None
        self._file.create_dataset(path, data=values, chunks=chunks)

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


class Hdf5Reader:
    """A file that stays open; a dataset is looked up when it is opened."""

    def __init__(self, target: Path) -> None:
        self._file = h5py.File(target, "r")

    def open(self, path: str) -> Read:
        """Return what reads an index of one dataset."""
        dataset = self._file[path]
        return lambda at: dataset[at]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ZarrWriter:
    """zarr-python with the original's chunks and codec: Blosc, Zstandard 3, bytes shuffled."""

    def __init__(self, target: Path) -> None:
        self._group = zarr.open_group(target, mode="w")

    def put(self, path: str, values: Values) -> None:
        """Store one array."""
        last = values.shape[-1] if path.startswith("activations") else CHUNK
        chunks = tuple(min(CHUNK, extent) for extent in values.shape[:-1])
        if path.startswith("attention"):
            chunks = (1, *chunks[1:])
        array = self._group.create_array(
            path,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(*chunks, min(last, values.shape[-1])),
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        )
        array[...] = values

    def close(self) -> None:
        """Do nothing: every chunk is a file of its own, and written."""


class ZarrReader:
    """A group that stays open; an array is looked up when it is opened."""

    def __init__(self, target: Path) -> None:
        self._group = zarr.open_group(target, mode="r")

    def open(self, path: str) -> Read:
        """Return what reads an index of one array."""
        array: Any = self._group[path]
        return lambda at: array[at or ...]

    def close(self) -> None:
        """Do nothing: nothing is held open."""


_RUN: Final = "study"
_DIMS: Final = {
    "attention": ("head", "query", "key"),
    "pair": ("residue", "other", "channel"),
    "single": ("residue", "feature"),
}


class ArchiveWriter:
    """A recorder with its defaults; attention and activations are fields of layers."""

    def __init__(self, target: Path) -> None:
        self._recorder = TraceRecorder(target, _RUN, steps=1)
        self._recorder.__enter__()

    def put(self, path: str, values: Values) -> None:
        """Record one array, and wait until it is committed."""
        name, layer = address(path)
        if layer is None:
            self._recorder.outputs(None, **{name: values})
        else:
            self._recorder.declare(name, layer=layer, dims=_DIMS[name])
            arrays: dict[str, Any] = {name: values}
            self._recorder.record(0, layer=layer, **arrays)
        self._recorder.flush()

    def close(self) -> None:
        """Seal the run."""
        self._recorder.seal()


def address(path: str) -> tuple[str, str | None]:
    """Return the field and the layer that hold an array of the original.

    Examples
    --------
    >>> address("activations/layer_3/pair"), address("attention/layer_3"), address("outputs/conf")
    (('pair', 'layer_3'), ('attention', 'layer_3'), ('conf', None))
    """
    place, _, rest = path.partition("/")
    if place == "outputs":
        return rest, None
    layer, _, name = rest.partition("/")
    return name or place, layer


class ArchiveReader:
    """The server's read path in process, without its cache of decoded blocks."""

    def __init__(self, target: Path) -> None:
        self._archive = Archive(open_store(str(target)), cache_bytes=0)

    def open(self, path: str) -> Read:
        """Return what reads an index of one field."""
        name, layer = address(path)
        place = Place.OUTPUTS if layer is None else Place.LAYERS
        field = self._archive.run(_RUN).field(name, layer=layer, place=place)
        lead: tuple[Any, ...] = () if layer is None else (0,)
        dims = field.dims
        return lambda at: field.select(dict(zip(dims, (*lead, *at), strict=False))).array()

    def close(self) -> None:
        """End the threads."""
        self._archive.close()


FORMATS: Final[dict[str, tuple[str, Callable[[Path], Writer], Callable[[Path], Reader]]]] = {
    "NPZ": ("run.npz", NpzWriter, NpzReader),
    "HDF5": ("run.h5", lambda target: Hdf5Writer(target, by_head=False), Hdf5Reader),
    "HDF5 by head": ("heads.h5", lambda target: Hdf5Writer(target, by_head=True), Hdf5Reader),
    "Zarr": ("run.zarr", ZarrWriter, ZarrReader),
    OURS: ("archive", ArchiveWriter, ArchiveReader),
}
"""By name: what it is called on disk, what writes it, and what reads it."""
NOT_BY_WINDOW: Final = ("NPZ",)
"""Inflates a whole layer for each window, so that many windows are not asked of it."""


def files_of(target: Path) -> list[Path]:
    """Return every file that a format has written."""
    if target.is_file():
        return [target]
    return [path for path in target.rglob("*") if path.is_file()]
