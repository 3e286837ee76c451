"""Pixels as PNG files and back, exactly."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from archive_schema.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_SIDE: Final = 4096
_CHANNELS: Final = {"RGB": 3, "RGBA": 4, "L": 1}


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file that Pillow makes of *pixels*, shape (row, column, channel).

    Equal pixels make equal files, and those that other programs wrote by Pillow's defaults, with
    one version of zlib.
    """
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a PNG file, shape (row, column, channel).

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for anything but a PNG of 8 bits a channel without a palette, at most
        4096 pixels wide and high.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in _CHANNELS or max(image.size) > _LARGEST_SIDE:
                found = f"mode {image.mode}, {image.width} x {image.height}"
                message = f"expected a picture in {', '.join(_CHANNELS)} up to {_LARGEST_SIDE}"
                raise InvalidInputError(ErrorKind.FILE_INVALID, f"{message}; found {found}")
            pixels = np.asarray(image, np.uint8)
            return pixels.reshape(*pixels.shape[:2], _CHANNELS[image.mode])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(ErrorKind.FILE_INVALID, f"expected a PNG file: {error}") from error
