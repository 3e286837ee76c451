"""From JSON and from the members of an `.npz` to coordinates and declarations."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from archive_schema.errors import ErrorKind, InvalidInputError, invalid
from archive_schema.wire import FieldDeclarationDocument
from recorder.coordinates import scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from recorder.snapshot import HostArray
    from server.push.additions import Coordinate


def json_object(data: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object in *data*; exact, and with each name once.

    Raises
    ------
    InvalidInputError
        ``file-invalid``.
    """
    try:
        found = json.loads(
            data, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite
        )
        # A lone half of a surrogate pair is no text that could be stored.
        json.dumps(found, ensure_ascii=False).encode()
    except (RecursionError, ValueError) as error:
        raise invalid(ErrorKind.FILE_INVALID, f"expected JSON: {error!s:.200}") from error
    if not isinstance(found, dict):
        message = f"expected a JSON object, got {type(found).__name__}"
        raise invalid(ErrorKind.FILE_INVALID, message)
    return found


def json_coordinates(document: Mapping[str, Any]) -> tuple[Coordinate, ...]:
    """Return step coordinates, of each of which a JSON object says the value.

    Raises
    ------
    InvalidInputError
        ``dtype-mismatch``.
    """
    return tuple(_coordinate(name, value) for name, value in document.items())


def npz_step(
    members: Mapping[str, HostArray],
) -> tuple[dict[str, HostArray], tuple[Coordinate, ...]]:
    """Return the fields and the coordinates of a step: members without axes are coordinates.

    Raises
    ------
    InvalidInputError
        ``dtype-mismatch``.
    """
    fields = {name: values for name, values in members.items() if values.shape}
    single = (name for name in members if name not in fields)
    return fields, tuple(_coordinate(name, members[name].array[()]) for name in single)


def json_columns(document: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return sample coordinates, of each of which a JSON object has a list of values.

    Raises
    ------
    InvalidInputError
        ``dtype-mismatch``.
    """
    return {name: _column(name, values) for name, values in document.items()}


def declaration(document: Mapping[str, Any]) -> FieldDeclarationDocument:
    """Return what a JSON object says of a field.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``, with each member that is missing, unknown or wrong.
    """
    try:
        return FieldDeclarationDocument.model_validate(document)
    except InvalidInputError:  # of a codec
        raise
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one.get('input')!r:.100}"
            for one in error.errors(include_url=False)
        )
        raise invalid(ErrorKind.INVALID_PARAMETER, told) from error


def _coordinate(name: str, value: object) -> Coordinate:
    known = scalar(value)
    if known is None:
        message = f"coordinate {name!r}: expected a number, a text or a bool, got {value!r:.100}"
        raise invalid(ErrorKind.DTYPE_MISMATCH, message)
    return (name, *known)


def _column(name: str, values: object) -> NDArray[Any]:
    if isinstance(values, list) and values:
        kinds = {type(value) for value in values}
        if kinds in ({str}, {bool}):
            return np.array(values)
        if kinds <= {int, float}:
            return _numbers(name, values, np.int64 if kinds == {int} else np.float64)
    message = (
        f"sample coordinate {name!r}: expected a list of numbers, of texts or of bools, one for"
        f" each sample; got {values!r:.100}"
    )
    raise invalid(ErrorKind.DTYPE_MISMATCH, message)


def _numbers(name: str, values: list[Any], dtype: type[np.generic]) -> NDArray[Any]:
    try:
        return np.array(values, dtype)
    except OverflowError as error:
        largest = max(values, key=abs)
        message = f"sample coordinate {name!r}: expected 64-bit integers, got {largest!s:.60}"
        raise invalid(ErrorKind.VALUE_OUT_OF_RANGE, message) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there {names.count(twice)} times")
    return found


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number; an .npz body takes it")
