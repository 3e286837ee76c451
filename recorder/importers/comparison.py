"""Compares what an importer reads with a sealed run, so that importing twice is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from isal.isal_zlib import crc32

from archive_schema.errors import ConflictError, ErrorKind
from archive_schema.layout import field_path
from archive_schema.ledger import ABSENT
from archive_schema.models import Place
from recorder.recorded import Recorded

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

    from archive_schema.ledger import Coordinate, FieldLedger
    from archive_schema.records import RunRecords


class Comparison:
    """A sink that writes nothing and refuses what the run does not hold.

    Values are compared by the CRC-32 that the commits keep of each tile.

    Raises
    ------
    ConflictError
        From every method: ``run-differs``, naming the first difference.
    """

    def __init__(self, records: RunRecords) -> None:
        self._records = records
        self._ledger = records.ledger
        self._tiles = 0

    def declare(
        self,
        name: str,
        *,
        layer: str | None = None,
        place: Place | None = None,
        dims: tuple[str, ...] | None = None,
        tokens: bool | None = None,
        ragged: bool | None = None,
        tile: int | None = None,
    ) -> None:
        """Do nothing: the values tell."""
        del name, layer, place, dims, tokens, ragged, tile

    def record(
        self, n: int, samples: slice | None = None, layer: str | None = None, **values: Any
    ) -> None:
        """Compare scalars and arrays of step *n*."""
        place = Place.TRACE if layer is None else Place.LAYERS
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self._compare_tile((place, layer, name), n, samples, value)
            else:
                known = self._ledger.step_coordinates.get(name)
                self._compare_value(name, known, f"step {n}", n, value)

    def inputs(self, samples: slice | None = None, **arrays: ArrayLike) -> None:
        """Compare inputs."""
        for name, values in arrays.items():
            self._compare_tile((Place.INPUTS, None, name), 0, samples, np.asarray(values))

    def outputs(self, samples: slice | None = None, **arrays: ArrayLike) -> None:
        """Compare outputs."""
        for name, values in arrays.items():
            self._compare_tile((Place.OUTPUTS, None, name), 0, samples, np.asarray(values))

    def sample_coordinates(self, samples: slice | None = None, **values: ArrayLike) -> None:
        """Compare one value a sample."""
        start = 0 if samples is None else samples.start
        for name, column in values.items():
            known = self._ledger.sample_coordinates.get(name)
            for at, value in enumerate(np.asarray(column).tolist(), start):
                self._compare_value(name, known, f"sample {at}", at, value)

    def recorded(self) -> Recorded:
        """Return that nothing is there: everything is read again, to be compared."""
        return Recorded(self._records.manifest, {}, 0)

    def finish(self, steps: Collection[int] | None = None) -> None:
        """Refuse a run that holds more than was compared, at *steps* or at any."""
        fields = self._ledger.fields.values()
        if steps is None:
            held = sum(field.count for field in fields)
        else:
            held = sum(
                int((f.counts(steps if f.spec.place.stepped else (0,)) != ABSENT).sum())
                for f in fields
            )
        if held != self._tiles:
            raise self._differs(f"it holds {held} tiles, and the file makes {self._tiles}")

    def _compare_tile(
        self,
        address: tuple[Place, str | None, str],
        step: int,
        samples: slice | None,
        values: NDArray[Any],
    ) -> None:
        field = self._ledger.at(*address)
        what = f"{field_path(*address)}, step {step}"
        if field is None:
            raise self._differs(f"it has no {what}")
        tile = 0 if samples is None or not field.spec.tile else samples.start // field.spec.tile
        entry = field.tile(step, tile)
        if (
            entry is None
            or entry.shape != values.shape
            or entry.crc32 != given_crc32(values, field)
        ):
            raise self._differs(f"it holds other values of {what}, samples {samples}")
        self._tiles += 1

    def _compare_value(
        self, name: str, known: Coordinate | None, where: str, at: int, value: Any
    ) -> None:
        held = None if known is None else known.values.get(at)
        same = held == value or (value != value and held != held)  # noqa: PLR0124  NaN is NaN
        if not same:
            raise self._differs(f"{name} at {where} is {held!r} there and {value!r} in the file")

    def _differs(self, how: str) -> ConflictError:
        message = f"run {self._records.run_id!r} is sealed, and is not this file: {how}"
        return ConflictError(ErrorKind.RUN_DIFFERS, message)


def given_crc32(values: NDArray[Any], field: FieldLedger) -> int:
    """Return the CRC-32 that the commit of *values* has."""
    given = np.ascontiguousarray(values, np.dtype(field.spec.dtype).newbyteorder("<"))
    return crc32(given.reshape(-1).view(np.uint8).data)
