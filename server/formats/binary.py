"""The binary formats of NumPy: raw values, ``.npy`` and ``.npz``, with their exact lengths."""

from __future__ import annotations

import zipfile
from functools import lru_cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.wire import MEDIA_TYPES, PartDocument, PartsDocument, SliceFormat
from server.formats.sink import Sink
from server.formats.values import Body, as_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from server.formats.values import Part, Values

PIECE_NBYTES: Final = 1 << 20


def raw(values: Values) -> Body:
    """Return the values alone: little-endian, C order, no header."""
    return Body(MEDIA_TYPES[SliceFormat.RAW], values.nbytes, partial(_plain, values))


def npy(values: Values) -> Body:
    """Return an ``.npy`` file."""
    header = npy_header(values.dtype, values.shape)
    nbytes = len(header) + values.nbytes

    def parts() -> Iterator[Part]:
        yield header
        yield from _plain(values)

    return Body(MEDIA_TYPES[SliceFormat.NPY], nbytes, parts)


def npz(members: Sequence[tuple[str, Values]]) -> Body:
    """Return an ``.npz`` file with a member for each name, and beside it what places it.

    ``<name>`` holds the values; ``<name>.step`` and ``<name>.sample`` the step numbers and
    samples along those axes, ``<name>.layer`` the names of several layers, and
    ``<name>.recorded`` the mask where one was asked for. For a single member the latter are
    called plainly ``step``, ``sample``, ``layer``, ``recorded``.
    """
    files: dict[str, Values | NDArray[Any]] = dict(members)
    for name, values in members:
        for beside, array in _beside(values).items():
            files.setdefault(beside if len(members) == 1 else f"{name}.{beside}", array)
    return npz_file(files)


def npz_file(members: Mapping[str, Values | NDArray[Any]]) -> Body:
    """Return an ``.npz`` file of these members, which come in pieces or are there already.

    They are stored, not compressed: blocks were compressed once, and a stored member's
    length is known before it is read. Its CRC-32 is not, and follows the data.
    """
    headers = {name: npy_header(member.dtype, member.shape) for name, member in members.items()}
    held = sum(len(headers[name]) + member.nbytes for name, member in members.items())

    def parts() -> Iterator[Part]:
        return _zipped(
            (name, headers[name], [member] if isinstance(member, np.ndarray) else _plain(member))
            for name, member in members.items()
        )

    return Body(MEDIA_TYPES[SliceFormat.NPZ], _zip_overhead(tuple(members)) + held, parts)


def raw_parts(members: Sequence[tuple[str, Values]]) -> Body:
    """Return the raw values of several members, one after another, with a description first.

    The description is a `PartsDocument` after its own length as a little-endian uint32.
    """
    described, offset = [], 0
    for name, values in members:
        described.append(
            PartDocument(
                name=name,
                dims=values.dims,
                shape=values.shape,
                dtype=values.dtype_name,
                steps=values.steps,
                offset=offset,
                nbytes=values.nbytes,
            )
        )
        offset += values.nbytes
    text = PartsDocument(parts=tuple(described)).model_dump_json().encode()
    head = len(text).to_bytes(4, "little") + text

    def parts() -> Iterator[Part]:
        yield head
        for _, values in members:
            yield from _plain(values)

    return Body(MEDIA_TYPES[SliceFormat.RAW], len(head) + offset, parts)


@lru_cache(maxsize=1024)
def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what an ``.npy`` file of C-ordered values begins with."""
    stream = BytesIO()
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _plain(values: Values) -> Iterator[Part]:
    for piece in values.pieces(PIECE_NBYTES):
        yield as_bytes(piece)


def _beside(values: Values) -> dict[str, NDArray[Any]]:
    coordinates = values.coordinates()
    beside = {dim: coordinates[dim] for dim in values.marked}
    if values.recorded is not None:
        beside["recorded"] = values.recorded
    return beside


def _zipped(members: Iterable[tuple[str, bytes, Iterable[Any]]]) -> Iterator[bytes]:
    sink = Sink()  # it cannot seek, so checksums come after the data
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, header, pieces in members:
            # ZipInfo's fixed date keeps equal answers equal, as their ETag promises.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                member.write(header)
                for piece in pieces:
                    member.write(as_bytes(piece) if isinstance(piece, np.ndarray) else piece)
                    yield sink.take()
    yield sink.take()


@lru_cache(maxsize=64)
def _zip_overhead(names: tuple[str, ...]) -> int:
    """Return the bytes of an ``.npz`` file whose members, of these *names*, are empty.

    The lengths of members change nothing about it below 2 GiB, which the settings keep.
    """
    return sum(map(len, _zipped((name, b"", ()) for name in names)))
