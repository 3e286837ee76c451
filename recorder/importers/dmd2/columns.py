"""Values of samples as sample coordinates: each name has one dtype, and a sample may lack it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.errors import InvalidInputError
from archive_schema.models import check_name
from archive_schema.systems.dmd2_files import coordinate_of
from recorder.declaration import check_free

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recorder.importers.source import Sink

_KINDS = {bool: "bool", int: "int64", float: "float64", str: "str"}


class Columns:
    """Decides what becomes a coordinate, and hands it over."""

    def __init__(self) -> None:
        self.odd: list[str] = []
        self._dtypes: dict[str, str] = {}

    def coordinates(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return the coordinates of a sample, as files tell it; what is null is none."""
        found: dict[str, Any] = {}
        for key, value in sample.items():
            name = coordinate_of(key)
            try:
                check_free(check_name(name))
            except InvalidInputError:
                self._note(f"{key!r} of samples can be no coordinate: left out")
                continue
            if isinstance(value, (list, dict)):
                value = json.dumps(value)  # noqa: PLW2901  as text
            if value is None:
                self._note(f"{key!r} is null for some samples: they have no such coordinate")
            elif _fits(value):
                found[name] = value
            else:
                self._note(f"{key!r} is {value!r:.40} for some samples: left out")
        return found

    def put(self, sink: Sink, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Hand over the coordinates of samples, by position."""
        for name in dict.fromkeys(name for row in rows.values() for name in row):
            values = {at: row[name] for at, row in sorted(rows.items()) if name in row}
            dtype = self._dtype(name, values.values())
            for start, part in _runs(values):
                array = np.array([str(v) if dtype == "str" else v for v in part], dtype)
                sink.sample_coordinates(slice(start, start + len(part)), **{name: array})

    def _dtype(self, name: str, values: Iterable[Any]) -> str:
        """Return the dtype of a coordinate: of its first values, wide enough for them."""
        if name not in self._dtypes:
            kinds = {_KINDS.get(type(value), "str") for value in values}
            numbers = kinds <= {"int64", "float64"}
            self._dtypes[name] = kinds.pop() if len(kinds) == 1 else "float64" if numbers else "str"
        return self._dtypes[name]

    def _note(self, sentence: str) -> None:
        if sentence not in self.odd:
            self.odd.append(sentence)


def _fits(value: Any) -> bool:
    """Return whether a coordinate can hold a value: NumPy drops NUL at the end of text."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return not (isinstance(value, str) and value.endswith("\0"))


def _runs(values: Mapping[int, Any]) -> list[tuple[int, list[Any]]]:
    """Return values of positions that follow one another, with the first position."""
    found: list[tuple[int, list[Any]]] = []
    for at, value in values.items():
        if found and at == found[-1][0] + len(found[-1][1]):
            found[-1][1].append(value)
        else:
            found.append((at, [value]))
    return found
