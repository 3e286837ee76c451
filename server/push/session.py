"""One run that this process has open because values for it come over HTTP.

It is the recorder's own way into the store, taken by each request on its own: a request checks
its values, stores its tiles, and waits for the commit that names them, which it shares with
those that are ready at the same time. So one request that is refused disturbs no other, and
an answer says what is true of the store.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from archive_schema.documents import read_document
from archive_schema.errors import ConflictError, ErrorKind, StorageError, invalid
from archive_schema.layout import field_key
from archive_schema.models import Encoding, FieldSpec
from archive_schema.records import declare_field
from recorder.coordinates import check_column
from recorder.declaration import FieldOptions, check_agrees, same_but_chosen
from recorder.intake import Intake, Offer
from recorder.opened import OpenedRun
from server.push.additions import Declaration, SampleValues
from server.push.commits import GroupCommit, SessionOverError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from archive_schema.ledger import Coordinate as LedgerCoordinate
    from archive_schema.ledger import Ledger
    from archive_schema.models import RunManifest, Scalar
    from archive_schema.store import Store
    from recorder.declaration import Address
    from recorder.encoder import AcceptedTile, StoredTile
    from recorder.fields import RecordedField
    from recorder.snapshot import HostArray
    from server.push.additions import Addition, Values

_HEARTBEAT_S: Final = 5.0
_LARGEST_TOKEN: Final = 255


class _Accepted:
    """Takes what the intake hands on; its memory was taken when the request came."""

    def __init__(self) -> None:
        self.tiles: list[AcceptedTile] = []
        self.announced = False

    def check(self) -> None:
        """Do nothing: a request that fails ends nothing."""

    def reserve(self, cost: int) -> None:
        """Do nothing: the memory is taken already."""

    def cancel(self, cost: int) -> None:
        """Do nothing."""

    def put(self, tile: AcceptedTile) -> None:
        """Keep a tile."""
        self.tiles.append(tile)

    def announce(self) -> None:
        """Take note of new coordinates."""
        self.announced = True

    def take(self) -> tuple[list[AcceptedTile], bool]:
        """Return what one call gave: its tiles, and whether it had new coordinates."""
        found = self.tiles, self.announced
        self.tiles, self.announced = [], False
        return found


class _UnderWay:
    """Keeps two requests from storing one tile at the same time: the second sees the first's."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, int, int]] = set()
        self._changed = threading.Condition()

    @contextmanager
    def alone(self, tiles: Collection[AcceptedTile]) -> Iterator[None]:
        keys = {(tile.field.path, tile.step, tile.tile) for tile in tiles}
        with self._changed:
            self._changed.wait_for(lambda: self._keys.isdisjoint(keys))
            self._keys |= keys
        try:
            yield
        finally:
            with self._changed:
                self._keys -= keys
                self._changed.notify_all()


class PushSession:
    """An open run; any number of threads may `put` to it.

    Raises
    ------
    ConflictError
        ``run-sealed``.
    StorageError
        If the store did not answer.
    """

    def __init__(self, store: Store, manifest: RunManifest, writer: str, *, durable: bool) -> None:
        self._run = OpenedRun(store, manifest, writer=writer, durable=durable, resume=True)
        self._store = store
        self._durable = durable
        self._commits = GroupCommit(self._run)
        self._accepted = _Accepted()
        self._accepting = threading.Lock()
        self._intake = Intake(
            self._run.manifest,
            self._run.fields,
            self._run.samples,
            self._run.coordinates,
            self._accepted,
            tile=None,
        )
        self._under_way = _UnderWay()
        self._calls = 0
        self._counting = threading.Condition()
        self._used_s = time.monotonic()
        self._beat_s = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the session takes no more requests."""
        return self._commits.over

    @property
    def idle_s(self) -> float:
        """Seconds since the last request; 0 while there is one."""
        with self._counting:
            return 0.0 if self._calls else time.monotonic() - self._used_s

    def put(self, call: Addition) -> bool:
        """Record what a request brought; return whether anything of it is new.

        Raises
        ------
        SessionOverError
            If another session has to take the request.
        InvalidInputError, ConflictError, StorageError
            As `TraceRecorder.record`; nothing else is affected.
        """
        with self._counting:
            self._calls += 1
        try:
            if self.over:
                raise SessionOverError
            if isinstance(call, Declaration):
                return self._declare(call)
            return self._put(call)
        except StorageError:
            # What the store holds now is known again once the run is opened anew.
            self._commits.give_up()
            raise
        except ConflictError as error:
            if error.kind is ErrorKind.FIELD_DIFFERS and not isinstance(call, Declaration):
                # Another process was first to declare the field; a new session knows how.
                self._commits.give_up()
                raise SessionOverError from error
            raise
        finally:
            with self._counting:
                self._calls -= 1
                self._used_s = time.monotonic()
                self._counting.notify_all()

    def beat(self) -> None:
        """Tell readers, if it is time to, that this run is being recorded."""
        if not self.over and time.monotonic() - self._beat_s >= _HEARTBEAT_S:
            self._beat_s = time.monotonic()
            self._run.committer.beat()

    def close(self, timeout_s: float) -> None:
        """Wait for the requests that are under way, and end the epoch."""
        with self._counting:
            self._counting.wait_for(lambda: not self._calls, timeout_s)
        self._commits.end()

    def _put(self, call: Values | SampleValues) -> bool:
        tiles, new = self._accept(call)
        with self._under_way.alone(tiles):
            if self.over:
                raise SessionOverError
            stored = self._stored(tiles)
            # Also with nothing to add: what was recorded before may not be committed yet.
            self._commits.commit(stored)
        return new or bool(stored)

    def _accept(self, call: Values | SampleValues) -> tuple[list[AcceptedTile], bool]:
        """Check the whole of a call; return its tiles, and whether it has new coordinates."""
        with self._accepting:
            mark = self._run.samples.mark
            known = {field.path for field in self._run.fields}
            try:
                if isinstance(call, SampleValues):
                    self._accept_samples(call)
                else:
                    self._accept_values(call)
            except BaseException:
                self._run.samples.back(mark)
                for field in self._run.fields:
                    if field.path not in known:
                        self._run.fields.drop(field.spec.address)
                raise
            finally:
                accepted = self._accepted.take()
        return accepted

    def _accept_values(self, call: Values) -> None:
        number, at = self._run.steps.position(call.step) if call.place.stepped else (0, 0)
        bounds = self._run.samples.bounds(call.samples)
        offers = [
            Offer((call.place, call.layer, name), values, bounds)
            for name, values in call.arrays.items()
        ]
        for offer, values in zip(offers, call.arrays.values(), strict=True):
            if call.place.stepped:
                self._check_due(offer.address, number, at)
            self._check_tokens(offer.address, values)
        if call.coordinates:
            ledger = self._latest()
            for name, _, value in call.coordinates:
                _check_recorded(ledger.step_coordinates.get(name), "step", number, [value])
        self._intake.accept(offers, call.coordinates, number, at)

    def _accept_samples(self, call: SampleValues) -> None:
        bounds = self._run.samples.bounds(call.samples)
        count = None if bounds is None else bounds[1] - bounds[0]
        for name, column in call.columns.items():
            check_column(name, column, count)
            if bounds is None:
                self._run.samples.bounds(slice(0, len(column)))
        start = 0 if bounds is None else bounds[0]
        ledger = self._latest()
        for name, column in call.columns.items():
            known = ledger.sample_coordinates.get(name)
            _check_recorded(known, "sample", start, column.tolist())
        for name, column in call.columns.items():
            self._intake.put_samples(start, name, column)

    def _latest(self) -> Ledger:
        """Return what is recorded by now: other writers' coordinates have no object to be met."""
        with self._run.lock:
            self._run.records.refresh()
            return self._run.records.ledger

    def _check_due(self, address: Address, number: int, at: int) -> None:
        """Refuse a step at which a field is not recorded: a recorder would pass it over."""
        field = self._run.fields.get(address)
        options = self._run.fields.options(address) if field is None else field.spec
        if at < options.first or (at - options.first) % options.every:
            message = (
                f"field {address[2]!r}: expected every {options.every}th of the run's steps from"
                f" its {options.first}th, as it is declared; got step {number}"
            )
            raise invalid(ErrorKind.SELECTION_OUT_OF_BOUNDS, message)

    def _check_tokens(self, address: Address, values: HostArray) -> None:
        """Refuse ids that no byte holds before anything of the request is stored."""
        field = self._run.fields.get(address)
        if field is None:
            tokens = bool(self._run.fields.options(address).tokens)
        else:
            tokens = field.spec.encoding is Encoding.TOKENS
        array = values.array
        if not (tokens and array.size and array.dtype.kind in "iu"):
            return
        least, most = int(array.min()), int(array.max())
        if least < 0 or most > _LARGEST_TOKEN:
            message = (
                f"field {address[2]!r}: expected token ids in [0, {_LARGEST_TOKEN}],"
                f" got {least} to {most}; declare it with tokens false"
            )
            raise invalid(ErrorKind.VALUE_OUT_OF_RANGE, message)

    def _stored(self, tiles: list[AcceptedTile]) -> list[StoredTile]:
        """Store tiles, all or none; return those that were not there."""
        encoder = self._run.encoder
        encoded: list[tuple[StoredTile, bytes]] = []
        try:
            for tile in tiles:
                new = encoder.encode(tile)
                encoded += () if new is None else (new,)
            placed = [encoder.put(*one) for one in encoded]
        except BaseException:
            encoder.committed([tile for tile, _ in encoded])
            raise
        return [tile for tile in placed if tile is not None]

    def _declare(self, call: Declaration) -> bool:
        wanted = call.document
        address: Address = (call.place, call.layer, call.name)
        options = FieldOptions(
            dims=wanted.dims,
            tokens=wanted.tokens,
            every=wanted.every,
            first=wanted.first,
            ragged=wanted.ragged,
            tile=wanted.tile,
            storage=wanted.storage,
            codec=wanted.codec,
            block=wanted.block,
            attributes=wanted.attributes,
        )
        fields = self._run.fields
        with self._accepting:
            known = fields.get(address)
            fields.settle(address, options)
            try:
                field = fields.declare(
                    address,
                    wanted.dtype,
                    wanted.shape,
                    sampled=call.place.stepped,
                    tile=self._tile(wanted.shape),
                )
                if known is None:
                    fields.keep(field)
                    return self._declared(field, options)
            except BaseException:
                fields.drop(address)
                raise
        if not same_but_chosen(known.spec, field.spec):
            raise _otherwise(known.spec, field.spec)
        return False

    def _tile(self, shape: tuple[int, ...]) -> int:
        """Return the tile of a field whose first values have *shape*, as a recorder chooses it."""
        first = shape[0] if shape else 1
        return max(1, min(first, self._run.manifest.samples or first))

    def _declared(self, field: RecordedField, options: FieldOptions) -> bool:
        """Put a declaration into the store; return False if an equal one is there."""
        run = self._run
        key = field_key(run.manifest.id, field.path)
        new = True
        try:
            declare_field(self._store, run.manifest.id, field.spec)
        except ConflictError:
            theirs = read_document(self._store, key, FieldSpec)
            check_agrees(theirs, options)
            if not same_but_chosen(theirs, field.spec):
                raise
            field.spec, new = theirs, False
        if self._durable:
            self._store.sync([key])
        with run.lock:
            run.records.ledger.declare(field.path, field.spec)
        field.stored = True
        return new


def _check_recorded(
    known: LedgerCoordinate | None, axis: str, start: int, values: Sequence[Scalar]
) -> None:
    """Refuse values of a coordinate where others are recorded, from *start* on."""
    if known is None:
        return
    for at, value in enumerate(values, start):
        had = known.values.get(at, value)
        if had != value and not (had != had and value != value):  # noqa: PLR0124  NaN is NaN
            message = (
                f"coordinate {known.name!r} at {axis} {at}: expected {had!r}, as recorded before;"
                f" got {value!r}"
            )
            raise ConflictError(ErrorKind.COORDINATE_DIFFERS, message)


def _otherwise(known: FieldSpec, wanted: FieldSpec) -> ConflictError:
    differing = [
        f"{name} {getattr(known, name)!r}, now {getattr(wanted, name)!r}"
        for name in FieldSpec.model_fields
        if getattr(known, name) != getattr(wanted, name)
    ]
    message = f"field {known.name!r} is declared otherwise: {'; '.join(differing)}"
    return ConflictError(ErrorKind.FIELD_DIFFERS, message)
