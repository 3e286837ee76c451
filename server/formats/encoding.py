"""The one table from a format's name to its encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.wire import SliceFormat
from server.formats.binary import npy, npz, raw
from server.formats.json import json
from server.formats.tidy import arrow, csv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from server.formats.values import Body, Values

TEXT_FORMATS: Final = frozenset((SliceFormat.JSON, SliceFormat.CSV, SliceFormat.ARROW))
"""Formats that are several times larger than the values, and cost as much more to write."""

_ENCODERS: Final[Mapping[SliceFormat, Callable[[Values], Body]]] = {
    SliceFormat.JSON: json,
    SliceFormat.NPY: npy,
    SliceFormat.RAW: raw,
    SliceFormat.NPZ: lambda values: npz([(values.field, values)]),
    SliceFormat.CSV: csv,
    SliceFormat.ARROW: arrow,
}


def encode(values: Values, chosen: SliceFormat) -> Body:
    """Return *values* in the format *chosen*; nothing is read yet.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a mask in a format that has no place for it.
    """
    if values.recorded is not None and chosen in (SliceFormat.RAW, SliceFormat.NPY):
        message = (
            f"missing=mask needs a format that can say what is not recorded:"
            f" json, npz, csv or arrow; got {chosen}"
        )
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return _ENCODERS[chosen](values)
