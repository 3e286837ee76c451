"""The binary formats of NumPy: raw values, ``.npy`` and ``.npz``, with their exact lengths."""

from __future__ import annotations

import zipfile
from functools import lru_cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.wire import MEDIA_TYPES, SliceFormat
from server.formats.sink import Sink
from server.formats.values import Body, as_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    samples along those axes, and ``<name>.recorded`` the mask where one was asked for. For a
    single member the latter are called plainly ``step``, ``sample``, ``recorded``.

    Members are stored, not compressed: blocks were compressed once, and a stored member's
    length is known before it is read. Its CRC-32 is not, and follows the data.
    """
    files: list[tuple[str, tuple[int, ...], np.dtype[Any], Values | NDArray[Any]]] = []
    for name, values in members:
        files.append((name, values.shape, values.dtype, values))
        for beside, array in _beside(values).items():
            label = beside if len(members) == 1 else f"{name}.{beside}"
            if label not in dict(members):
                files.append((label, array.shape, array.dtype, array))
    names = tuple(f"{name}.npy" for name, *_ in files)
    headers = [npy_header(dtype, shape) for _, shape, dtype, _ in files]
    held = sum(values.nbytes for *_, values in files) + sum(map(len, headers))

    def parts() -> Iterator[Part]:
        contents = {
            name: (header, _plain(source) if not isinstance(source, np.ndarray) else [source])
            for name, header, (*_, source) in zip(names, headers, files, strict=True)
        }
        return _zipped(contents)

    return Body(MEDIA_TYPES[SliceFormat.NPZ], _zip_overhead(names) + held, parts)


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
    beside: dict[str, NDArray[Any]] = {
        dim: coordinates[dim].astype("<i8") for dim in ("step", "sample") if dim in values.dims
    }
    if values.recorded is not None:
        beside["recorded"] = values.recorded
    return beside


def _zipped(contents: Mapping[str, tuple[bytes, Any]]) -> Iterator[bytes]:
    sink = Sink()  # it cannot seek, so checksums come after the data
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, (header, pieces) in contents.items():
            # A fixed date keeps equal answers equal, as their ETag promises.
            with archive.open(zipfile.ZipInfo(name), "w") as member:
                member.write(header)
                for piece in pieces:
                    member.write(as_bytes(piece) if isinstance(piece, np.ndarray) else piece)
                    yield sink.take()
    yield sink.take()


@lru_cache(maxsize=1024)
def _zip_overhead(names: tuple[str, ...]) -> int:
    """Return the bytes of a ZIP file with empty members of these *names*.

    The lengths of members change nothing about it below 2 GiB, which the settings keep.
    """
    return sum(map(len, _zipped({name: (b"", []) for name in names})))
