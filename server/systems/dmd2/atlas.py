"""Many samples' pictures as one sheet, and where on it each of them is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from archive_schema.errors import ErrorKind, NotFoundError, TooLargeError
from archive_schema.systems.dmd2 import SAMPLE_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from server.systems.dmd2.dataset import ImageSet

MOST_PIXELS: Final = 4096 * 4096
_AT_ONCE: Final = 16 << 20
"""Bytes of pictures that are read at once."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture on a sheet."""

    sample: int
    sample_id: str | None
    x: int
    y: int
    width: int
    height: int
    recorded: bool
    """Whether there is a picture; the cell is black otherwise."""


def cells(
    dataset: ImageSet,
    name: str,
    positions: Sequence[int],
    size: int,
    columns: int,
    *,
    limit: int,
) -> list[Cell]:
    """Return where each picture is on a sheet; nothing is read for it.

    Parameters
    ----------
    name
        The output that holds the pictures.
    size : int, pixels
        Width and height of a cell; a picture is made to fit, and its proportions stay.
    columns : int
        Cells in a row of the sheet.
    limit : int, bytes
        The most that may be read for the sheet.

    Raises
    ------
    NotFoundError
        ``field-not-found``.
    TooLargeError
        ``answer-too-large``.
    """
    field = dataset.pictures(name)
    if field is None or field.spec.dims[1:] != ("row", "column", "channel"):
        message = f"run {dataset.run.manifest.id!r} has no pictures {name!r} in its outputs"
        raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)
    read = len(positions) * math.prod(field.spec.tail)
    if read > limit:
        message = (
            f"a sheet of {len(positions)} pictures takes {read:,} bytes, at most {limit:,} are"
        )
        raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, f"{message} read; ask for fewer samples")
    if len(positions) * size * size > MOST_PIXELS:
        most = MOST_PIXELS // (size * size)
        message = f"a sheet of {len(positions)} pictures is too large; ask for {most} of this size"
        raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, message)
    height, width = field.spec.tail[:2]
    scale = size / max(height, width)
    fitting = (max(1, round(width * scale)), max(1, round(height * scale)))
    there = field.ledger.recorded(dataset.run.samples, [0])[0]
    found = []
    for at, position in enumerate(positions):
        row, column = divmod(at, columns)
        told = dataset.samples[position].get(SAMPLE_ID)
        name_of = None if told is None else str(told)
        place = (column * size, row * size, *fitting)
        found.append(Cell(position, name_of, *place, recorded=bool(there[position])))
    return found


def sheet(dataset: ImageSet, name: str, found: Sequence[Cell], size: int) -> NDArray[np.uint8]:
    """Return the pixels of a sheet, shape (row, column, channel)."""
    field = dataset.pictures(name)
    if field is None:
        raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, f"no pictures {name!r}")
    channels = field.spec.tail[2]
    width = max((cell.x for cell in found), default=0) + size
    height = max((cell.y for cell in found), default=0) + size
    pixels = np.zeros((height, width, channels), np.uint8)
    wanted = [cell for cell in found if cell.recorded]
    if not wanted:
        return pixels
    each = max(1, _AT_ONCE // math.prod(field.spec.tail))
    for start in range(0, len(wanted), each):
        some = wanted[start : start + each]
        chosen = field.select({"sample": tuple(cell.sample for cell in some)})
        for cell, picture in zip(some, chosen.array(), strict=True):
            pixels[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width] = _fitted(
                picture, (cell.width, cell.height)
            )
    return pixels


def _fitted(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.shape[1::-1] == size:
        return picture
    flat = picture[..., 0] if picture.shape[-1] == 1 else picture
    made = Image.fromarray(flat).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(made, np.uint8).reshape(size[1], size[0], picture.shape[-1])
