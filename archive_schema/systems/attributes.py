"""Attributes of foreign files as JSON, so that they come out as they went in.

JSON tells bool, integer, float and text apart, and no more. What is neither bool, int64,
float64 nor str is named beside its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from archive_schema.dtypes import dtype_name
from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import json_value

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import JsonValue

Attribute: TypeAlias = "str | bool | int | float | np.generic | NDArray[Any] | list[str]"
"""A scalar, an array of numbers, or a list of texts."""

_BY_JSON = {"bool": bool, "int64": int, "float64": float}


def attribute_to_json(value: Attribute) -> tuple[JsonValue, str | None]:
    """Return *value* as JSON, and the name of its dtype where JSON does not tell it.

    Examples
    --------
    >>> attribute_to_json(np.int64(20)), attribute_to_json(np.float32(0.5))
    ((20, None), (0.5, 'float32'))
    >>> attribute_to_json(float("inf"))
    ('Infinity', 'float64')

    Raises
    ------
    InvalidInputError
        ``dtype-mismatch`` for anything but bools, numbers and texts.
    """
    if isinstance(value, str) and not isinstance(value, np.generic):
        return value, None
    if isinstance(value, list):
        return [str(text) for text in value], "str"
    array = np.asarray(value)
    if array.dtype.kind not in "biufSU":
        message = f"expected a bool, a number or a text, got {array.dtype}"
        raise InvalidInputError(ErrorKind.DTYPE_MISMATCH, message)
    name = dtype_name(array.dtype)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "latin-1")  # every byte is a character there
    plain = _named_floats(array.tolist())
    told = array.ndim == 0 and type(plain) is _BY_JSON.get(name)
    return plain, None if told else name


def attribute_from_json(value: JsonValue, dtype: str | None) -> Attribute:
    """Return what `attribute_to_json` was given: a scalar of that dtype, or an array."""
    if dtype is None:
        if isinstance(value, (str, bool, int, float)):
            return value
        message = f"expected a bool, a number or a text, got {type(value).__name__}"
        raise InvalidInputError(ErrorKind.DTYPE_MISMATCH, message)
    if dtype == "str":
        return [str(item) for item in value] if isinstance(value, list) else str(value)
    array = np.array(value)
    if dtype.startswith("S"):
        array = np.char.encode(array, "latin-1")
    # Text that names a float, such as "NaN", is cast like any other text.
    typed = array.astype(np.dtype(dtype))
    return typed if typed.ndim else typed[()]


def _named_floats(value: Any) -> Any:
    return [_named_floats(item) for item in value] if isinstance(value, list) else json_value(value)
