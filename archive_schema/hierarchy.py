"""The Zarr documents of a run, written by zarr-python in memory.

What a Zarr hierarchy looks like is zarr-python's knowledge, and this module's only use of
it; tiles never pass through here. Everything is returned as ``{key: bytes}`` relative to
the root of the hierarchy, so that the store edge stays the only one that does I/O.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import orjson
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_key_encodings import ChunkKeyEncodingParams
from zarr.errors import UnstableSpecificationWarning
from zarr.storage import MemoryStore

from archive_schema.documents import document_bytes, parse_document
from archive_schema.dtypes import fill_value, is_text, numpy_dtype
from archive_schema.errors import ErrorKind, FormatError
from archive_schema.layout import array_path
from archive_schema.models import FieldSpec, RunManifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from archive_schema.generations import ShardTable
    from archive_schema.models import Codec, Document

ATTRIBUTE: Final = "trace_archive"
"""Name of the attribute that says how stored values become the values readers get.

It also holds a copy of the declaration, as it is stored: the field's in its array, the run's
in the root. What is lost of one is rebuilt from the other.
"""
_COPY: Final = "declaration"

_FILTERS: Final = threading.Lock()
"""Held while warnings are filtered: what one thread sets another would take back."""
_D = TypeVar("_D", bound="Document")

_KEYS: Final = ChunkKeyEncodingParams(name="default", separator=".")


def array_documents(
    spec: FieldSpec,
    *,
    steps: int,
    samples: int,
    ragged: tuple[int, tuple[int, ...], tuple[int, ...]] | None = None,
    shards: ShardTable | None = None,
) -> dict[str, bytes]:
    """Return the metadata of a field's array, without its groups.

    Parameters
    ----------
    steps, samples : int
        Lengths of the array's step and sample axes; a length that the run did not declare
        is a capacity, and is trimmed when the run is sealed.
    ragged : (step, shape, block), optional
        Which array of a ragged field.
    shards : ShardTable, optional
        Of a field that is stored with many steps in an object.
    """
    if ragged is None:
        lead = ((steps,) if spec.place.stepped else ()) + ((samples,) if spec.tile else ())
        shape = (*lead, *spec.tail)
        one = (1,) if spec.place.stepped else ()
        shard, block, dims = (*one, *spec.tile_shape), (*one, *spec.block), spec.dims
        path = array_path(spec)
    else:
        step, shape, block = ragged
        shard, dims, path = shape, spec.dims[1:], array_path(spec, step)
    meaning = {
        "dtype": spec.dtype,
        "source_dtype": spec.source_dtype,
        "encoding": spec.encoding.value,
        "layer": spec.layer,
        _COPY: document_bytes(spec).decode(),
    }
    codec, filters = spec.codec, None
    if shards is not None:
        codec, cut = shards.codec, shards.cut
        shard, block = (cut.steps, *cut.shape[:-1]), cut.zarr_block
        # Within a block the step axis, the array's first, comes last.
        filters = [TransposeCodec(order=(*range(1, len(block)), 0))] if len(block) > 1 else None
    store: dict[str, Any] = {}
    # A tile of one value is its one block; Zarr cannot shard what has no axes.
    sharded = shards is not None or bool(spec.block if ragged is None else block)
    _quietly(
        spec.stored_dtype,
        store,
        name=path,
        shape=shape,
        shards=tuple(max(extent, 1) for extent in shard) if sharded else None,
        chunks=block or "auto",
        dtype=numpy_dtype(spec.stored_dtype),
        compressors=_compressors(codec, spec.stored_dtype),
        filters=filters,
        fill_value=fill_value(spec.stored_dtype),
        dimension_names=dims,
        chunk_key_encoding=_KEYS,
        attributes={**spec.attributes, ATTRIBUTE: meaning},
    )
    return {key: data for key, data in _contents(store).items() if key.startswith(f"{path}/")}


def root_attributes(manifest: RunManifest) -> dict[str, dict[str, Any]]:
    """Return the attributes of the root group, as `group_documents` takes them."""
    meaning = {
        "run": manifest.id,
        "system": manifest.system,
        _COPY: document_bytes(manifest).decode(),
    }
    return {"": {ATTRIBUTE: meaning}}


def declared_run(document: bytes) -> RunManifest:
    """Return what the root document says that the run declares.

    Raises
    ------
    FormatError
        ``record-damaged``, also of a document that holds no declaration.
    """
    return _declared(document, RunManifest)


def declared_field(document: bytes) -> FieldSpec:
    """Return what the metadata of an array says that its field declares; errors as above."""
    return _declared(document, FieldSpec)


def group_documents(
    paths: Iterable[str], attributes: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, bytes]:
    """Return the metadata of the groups at *paths*, of all groups above them, and of the root."""
    store: dict[str, Any] = {}
    parts = [path.split("/") for path in paths]
    # The root is there in a run of nothing, too.
    every = {"", *("/".join(part[:n]) for part in parts for n in range(len(part) + 1))}
    for path in sorted(every):
        zarr.create_group(
            MemoryStore(store),
            path=path,
            attributes=dict((attributes or {}).get(path, {})),
        )
    return _contents(store)


def coordinate_documents(
    path: str,
    values: NDArray[Any],
    dims: tuple[str, ...],
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return a small array with its values in one chunk: a coordinate, or a mask."""
    store: dict[str, Any] = {}
    text = values.dtype.kind in "US"
    array = zarr.create_array(
        MemoryStore(store),
        name=path,
        shape=values.shape,
        chunks=tuple(max(extent, 1) for extent in values.shape),
        dtype=str if text else values.dtype,
        compressors=ZstdCodec(level=3),
        fill_value="" if text else fill_value(values.dtype.name),
        dimension_names=dims,
        chunk_key_encoding=_KEYS,
        attributes=dict(attributes or {}),
        config={"write_empty_chunks": True},
    )
    array[...] = values.astype(object) if text else values
    return {key: data for key, data in _contents(store).items() if key.startswith(f"{path}/")}


def consolidated(documents: Mapping[str, bytes]) -> bytes:
    """Return the root document that holds all metadata in *documents* (keys to ``zarr.json``)."""
    store = _buffers(documents)
    with _FILTERS, warnings.catch_warnings():
        # Readers over HTTP cannot list, so they need it although Zarr v3 has not specified it.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        # Nor has it specified fixed strings; docs/format.md says so to readers.
        warnings.filterwarnings("ignore", category=UnstableSpecificationWarning)
        zarr.consolidate_metadata(MemoryStore(store))
    return _contents(store)["zarr.json"]


def shape_of(document: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of an array and of its blocks, as its metadata says.

    Raises
    ------
    FormatError
        ``record-damaged``.
    """
    try:
        with _unwarned():
            array = _array({"zarr.json": document})
    except Exception as error:  # zarr-python has no error of its own for what is no metadata
        message = f"it is no metadata of an array: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
    return array.shape, array.chunks


def same_metadata(stored: bytes, wanted: bytes) -> bool:
    """Return whether two ``zarr.json`` say the same, be it as another zarr-python puts it."""
    if stored == wanted:
        return True
    try:
        if orjson.loads(stored) == orjson.loads(wanted):
            return True
        with _unwarned():
            one, other = (
                zarr.open(MemoryStore(_buffers({"zarr.json": data})), mode="r")
                for data in (stored, wanted)
            )
            return bool(one.metadata.to_dict() == other.metadata.to_dict())
    except Exception:  # noqa: BLE001  as above: what cannot be read does not say the same
        return False


def same_values(metadata: bytes, name: str, stored: bytes, wanted: bytes) -> bool:
    """Return whether two contents of a coordinate's one chunk hold the same values.

    Parameters
    ----------
    metadata
        The array's ``zarr.json``.
    name
        Of the chunk, below the array.
    """
    if stored == wanted:
        return True
    try:
        with _unwarned():
            one, other = (
                np.asarray(_array({"zarr.json": metadata, name: data})[...])
                for data in (stored, wanted)
            )
    except Exception:  # noqa: BLE001  codecs raise what they like
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _compressors(codec: Codec, stored_dtype: str) -> list[Any]:
    if codec.name == "raw":
        return [Crc32cCodec()]
    if codec.name == "zstd":
        return [ZstdCodec(level=codec.level), Crc32cCodec()]
    blosc = BloscCodec(
        cname=codec.compressor,
        clevel=codec.level,
        shuffle=codec.shuffle,
        typesize=numpy_dtype(stored_dtype).itemsize,
    )
    return [blosc, Crc32cCodec()]


def _quietly(stored_dtype: str, store: dict[str, Any], **arguments: Any) -> None:
    if not is_text(stored_dtype):
        zarr.create_array(MemoryStore(store), **arguments)
        return
    # Only for texts, because the filters are the process' own, and others may be catching too.
    # Zarr v3 has not specified fixed strings yet; docs/format.md says so to readers.
    with _unwarned():
        zarr.create_array(MemoryStore(store), **arguments)


def _declared(document: bytes, model: type[_D]) -> _D:
    try:
        text = orjson.loads(document)["attributes"][ATTRIBUTE][_COPY].encode()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"it holds no copy of a {model.__name__}: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
    return parse_document(text, f"its copy of a {model.__name__}", model)


def _buffers(objects: Mapping[str, bytes]) -> dict[str, Any]:
    prototype = default_buffer_prototype()
    return {key: prototype.buffer.from_bytes(data) for key, data in objects.items()}


def _array(objects: Mapping[str, bytes]) -> zarr.Array[Any]:
    return zarr.open_array(MemoryStore(_buffers(objects)), mode="r")


@contextmanager
def _unwarned() -> Iterator[None]:
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _contents(store: dict[str, Any]) -> dict[str, bytes]:
    return {key: buffer.to_bytes() for key, buffer in store.items()}
