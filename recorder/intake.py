"""What the sampler's thread pays for: a call is checked whole, then copied and queued.

First everything of a call is checked, so that a call which is refused records nothing.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from archive_schema.errors import ErrorKind, invalid
from archive_schema.models import Place
from recorder.declaration import check_free
from recorder.encoder import AcceptedTile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from archive_schema.models import RunManifest, Scalar
    from recorder.axes import SampleAxis
    from recorder.coordinates import Coordinates
    from recorder.declaration import Address
    from recorder.fields import Fields, RecordedField
    from recorder.snapshot import Values


class TileWriter(Protocol):
    """What accepted tiles are handed to; `recorder.writer.Writer` is one."""

    def check(self) -> None:
        """Raise what ended the writer, if anything did."""

    def reserve(self, cost: int) -> None:
        """Take *cost* bytes for a tile that is about to be copied."""

    def cancel(self, cost: int) -> None:
        """Give back what was reserved for a tile that did not come."""

    def put(self, tile: AcceptedTile) -> None:
        """Take a tile, for which its cost was reserved."""

    def announce(self) -> None:
        """Take note of new coordinates."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Values of one field in one call, not yet checked or copied."""

    address: Address
    values: Values
    bounds: tuple[int, int] | None
    """Samples ``[start, stop)`` that the values hold; None for all samples of the run."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """Values that were checked, and the tiles that they make up."""

    field: RecordedField
    values: Values
    tiles: Sequence[tuple[int, int, int]]
    """``(tile, start, stop)``, by samples of the run."""
    first: int
    """Sample of the run that is the first of `values`."""


class Intake:
    """Takes calls, one at a time, and hands tiles to the writer.

    Parameters
    ----------
    tile : int, samples
        Samples in a tile; None for as many as the first batch has, or other fields have.
    """

    def __init__(
        self,
        manifest: RunManifest,
        fields: Fields,
        samples: SampleAxis,
        coordinates: Coordinates,
        writer: TileWriter,
        *,
        tile: int | None,
    ) -> None:
        self._manifest = manifest
        self._fields = fields
        self._samples = samples
        self._coordinates = coordinates
        self._writer = writer
        self._tile = tile
        self._names = coordinates.names
        self._call = threading.RLock()
        """Held during a call, should several threads make one."""
        self._accepted_nbytes = 0
        self._first_call_s: float | None = None

    def rate(self, waited_s: float) -> float | None:
        """Return the bytes a second that were handed over, but for the time spent waiting."""
        if self._first_call_s is None:
            return None
        elapsed_s = time.monotonic() - self._first_call_s - waited_s
        return self._accepted_nbytes / elapsed_s if elapsed_s > 0 else None

    def accept(
        self,
        offers: Sequence[Offer],
        coordinates: Sequence[tuple[str, str, Scalar]],
        step: int,
        at: int,
    ) -> None:
        """Take the values of one call.

        Parameters
        ----------
        offers
            Arrays, not yet copied.
        coordinates
            Name, dtype and value of step coordinates.
        step, at : int
            The step's number, and its position on the run's step axis.

        Raises
        ------
        InvalidInputError
            If anything of it breaks a rule; nothing is recorded then.
        ConflictError
            ``coordinate-differs``.
        ArchiveError
            What ended the writer.
        """
        with self._call:
            if self._first_call_s is None:
                self._first_call_s = time.monotonic()
            planned = [plan for offer in offers if (plan := self._planned(offer, at)) is not None]
            # Fields that are known by nothing but this call, until a tile of theirs is queued.
            new: list[RecordedField] = []
            try:
                for plan in planned:
                    if self._fields.get(plan.field.spec.address) is None:
                        self._check_name(plan.field)
                        self._fields.keep(plan.field)
                        new.append(plan.field)
                if self._put_coordinates(step, coordinates) and not planned:
                    self._writer.announce()  # otherwise the tiles announce them
                for plan in planned:
                    for tile, start, stop in plan.tiles:
                        self._queue(plan, step, tile, start, stop)
                    if plan.field in new:
                        new.remove(plan.field)
            except BaseException:
                # Commits wait for the declaration of every field that is known.
                for field in new:
                    self._fields.forget(field.spec.address)
                raise

    def put_samples(self, start: int, name: str, values: NDArray[Any]) -> None:
        """Take the values of a sample coordinate, for ``[start, start + len(values))``."""
        self._writer.check()
        with self._call:
            self._check_coordinate_name(name)
            self._names.add(name)
            new = self._coordinates.put_samples(start, name, values)
        if new:
            self._writer.announce()

    def _planned(self, offer: Offer, at: int) -> _Planned | None:
        """Check one array, and say which tiles it makes up; None where its field is not due."""
        address, values, bounds = offer.address, offer.values, offer.bounds
        field = self._fields.get(address)
        if field is None:
            options = self._fields.options(address)
            if address[0].stepped and (at < options.first or (at - options.first) % options.every):
                return None
            field = self._first_seen(offer)
        elif field.spec.place.stepped and not field.takes(at):
            return None
        shape = values.shape
        field.check(values.source, shape)
        if not field.spec.tile:
            return _Planned(field, values, ((0, 0, 0),), 0)
        start, stop = self._whole(field, shape[0]) if bounds is None else bounds
        if shape[0] != stop - start:
            message = (
                f"field {field.spec.name!r}: expected {stop - start} samples,"
                f" [{start}, {stop}), got shape {shape}"
            )
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        return _Planned(field, values, self._samples.tiles(field.spec, start, stop), start)

    def _first_seen(self, offer: Offer) -> RecordedField:
        shape = offer.values.shape
        start, stop = offer.bounds or (0, shape[0] if shape else 0)
        size = self._tile or self._fitting_tile(start, stop)
        if self._manifest.samples:
            size = min(size, self._manifest.samples)
        sampled = offer.address[0].stepped or offer.bounds is not None
        return self._fields.declare(
            offer.address, offer.values.source, shape, sampled=sampled, tile=max(size, 1)
        )

    def _fitting_tile(self, start: int, stop: int) -> int:
        """Return the tile of another field that these samples fit, or else one of their own.

        The first batch that a field sees may be the short one at the end.
        """
        fitting = [
            tile
            for tile in {field.spec.tile for field in self._fields}
            if tile and start % tile == 0 and (stop % tile == 0 or stop == self._manifest.samples)
        ]
        return max(fitting, default=stop - start)

    def _whole(self, field: RecordedField, length: int) -> tuple[int, int]:
        """Return all samples of the run, which *length* values are taken for."""
        declared = self._manifest.samples
        if not length or length != (declared or length):
            expected = f"all {declared} samples" if declared else "at least one sample"
            message = (
                f"field {field.spec.name!r}: expected {expected}, got {length};"
                " say which they are by samples=slice(start, stop), or name the axes by"
                f" declare({field.spec.name!r}, dims=…) if the first is not the sample axis"
            )
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        return 0, length

    def _put_coordinates(self, step: int, coordinates: Sequence[tuple[str, str, Scalar]]) -> bool:
        """Accept the coordinates of a step; return whether any is new."""
        new = False
        for name, dtype, value in coordinates:
            if name not in self._names:
                self._check_coordinate_name(name)
                self._names.add(name)
            new |= self._coordinates.put_step(step, name, dtype, value)
        return new

    def _queue(self, plan: _Planned, step: int, tile: int, start: int, stop: int) -> None:
        part = plan.values
        if len(plan.tiles) > 1:
            part = part.part(start - plan.first, stop - plan.first)
        stored_nbytes = math.prod(part.shape) * plan.field.stored_itemsize
        cost = part.nbytes + stored_nbytes
        self._writer.reserve(cost)
        try:
            snapshot = part.snapshot()
        except BaseException:
            self._writer.cancel(cost)
            raise
        self._writer.put(AcceptedTile(plan.field, step, tile, start, stop, snapshot, cost))
        self._accepted_nbytes += stored_nbytes

    def _check_name(self, field: RecordedField) -> None:
        """Refuse a field that would lie where a coordinate lies."""
        name = field.spec.name
        if field.spec.place is Place.TRACE and name in self._names:
            message = f"{name!r} is a coordinate already, got an array: a field needs another name"
            raise invalid(ErrorKind.INVALID_NAME, message)

    def _check_coordinate_name(self, name: str) -> None:
        check_free(name)
        if self._fields.get((Place.TRACE, None, name)) is not None:
            message = f"{name!r} is a field already, got a scalar: a coordinate needs another name"
            raise invalid(ErrorKind.INVALID_NAME, message)
