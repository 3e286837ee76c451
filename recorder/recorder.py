"""`TraceRecorder`: what a sampler calls.

A call checks its arguments, copies the values and queues them; everything else happens on
background threads (`recorder.writer`).
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    InvalidInputError,
)
from archive_schema.models import Codec, Place, check_name
from archive_schema.store import open_store
from archive_schema.systems.registry import system as system_named
from recorder.arguments import check_at_least, check_one_of
from recorder.budget import default_max_bytes
from recorder.compaction import compact_run
from recorder.coordinates import check_column, scalar
from recorder.declaration import FieldOptions
from recorder.hooks import LayerHooks
from recorder.intake import Offer
from recorder.opening import manifest_of
from recorder.ownership import check_aligned, owned_part
from recorder.session import Session, Settings
from recorder.snapshot import given, plain_array
from recorder.spool import SpoolSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray
    from torch.nn import Module

    from archive_schema.models import Seal
    from archive_schema.store import Store, StoreOptions
    from recorder.budget import ByteBudget
    from recorder.capture import Capture
    from recorder.declaration import Address
    from recorder.hooks import AttachedLayers
    from recorder.plan import Plan
    from recorder.recorded import Recorded
    from recorder.spool import Spool


class RecordingStoppedWarning(UserWarning):
    """The sampler goes on, and nothing more of it is recorded."""


class SpooledWarning(UserWarning):
    """What was recorded is safe on the local disk, and not all of it in the archive."""


class RunNotSealedWarning(UserWarning):
    """The run is as complete as this writer can make it, and another has not done its part."""


class TraceRecorder:
    """Records one run, as one writer; nothing happens before it is entered.

    Parameters
    ----------
    store
        A store, or its URL: a path, ``file://``, ``s3://``, ``gs://``, ``az://``, ``memory://``, or
        ``http://`` for the archive behind a server.
    run
        Id of the run. One that exists is resumed if it is declared equally and not sealed.
    system
        The upstream format that the run follows; it names the axes of its fields.
    metadata
        What the run was made with: JSON values.
    tags
        Words to find the run by.
    steps
        Number of steps 0..steps-1, or the step numbers if they are sparse, or None if not known.
    samples
        Number of samples, or None if not known.
    tile : int, samples
        Samples in a tile; None for as many as the first batch has. Batches are whole tiles.
    writer
        Name of this writer. Processes that record one run need a name each; one that opens the
        run again under its name goes on where it stood, and ends what may be left of it.
    owns
        The samples that this writer records, ``slice(start, stop)`` in whole tiles (`part`
        splits a run): others that own any of them are refused while it records, and the run is
        whole when the writers that closed owned all samples. None for any samples.
    writers : int
        How many writers record the run: it is whole when so many have closed. None for those
        that are there when the last of them leaves.
    max_bytes : int, bytes
        Memory for what is accepted and not yet stored; None for 2 GiB or a tenth of the
        machine's memory, whichever is less.
    deadline_s : float, seconds
        How long a call waits for the store while nothing gets done.
    durability
        ``"process"``: what is recorded survives the end of the process. ``"disk"``: also a
        power cut.
    on_error
        ``"raise"``: a failure is raised by the next call and by `close`. ``"ignore"``: it is
        warned of, the sampler goes on, and the run stays incomplete.
    spool
        Folder in which tiles wait while the store is away (`docs/spool.md`). None for
        ``TRACE_ARCHIVE_SPOOL`` or ``~/.local/state/trace-archive/spool`` if the store is
        remote, and none for a folder; False for none at all.
    max_spool_bytes : int, bytes
        What may wait there; None for 64 GiB or half of the free disk, whichever is less.
    store_options
        How a store that is named by its URL is reached; see `StoreOptions`.
    resume : bool
        Whether a run that exists may be resumed.
    seal_at_exit : bool
        Whether leaving the ``with`` block seals the run. It does not while another writer
        records: the last one to leave does.
    compact_at_seal : bool
        Whether who seals the run rewrites it at once, with many steps in an object
        (`recorder.compaction`). If that fails, the error is raised, and the run is sealed.
    commit_interval_s : float, seconds
        How long what is stored waits for more that shares its commit; so also the least time
        between two commits, but for `flush`.
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str],
        run: str,
        *,
        system: str = "generic",
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        steps: int | Iterable[int] | None = None,
        samples: int | None = None,
        tile: int | None = None,
        writer: str = "main",
        owns: slice | range | None = None,
        writers: int | None = None,
        max_bytes: int | None = None,
        deadline_s: float = 60.0,
        durability: Literal["process", "disk"] = "process",
        on_error: Literal["raise", "ignore"] = "raise",
        spool: str | os.PathLike[str] | Literal[False] | None = None,
        max_spool_bytes: int | None = None,
        store_options: StoreOptions | None = None,
        resume: bool = True,
        seal_at_exit: bool = True,
        compact_at_seal: bool = False,
        commit_interval_s: float = 0.2,
    ) -> None:
        if isinstance(store, str | os.PathLike):
            store = open_store(store, store_options)
        elif store_options is not None:
            message = "store_options are for a store's URL; an open store has its own"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        self._store = store
        system_named(system)
        self._manifest = manifest_of(
            run,
            system=system,
            metadata=metadata or {},
            tags=tags,
            steps=steps,
            samples=samples,
            writers=writers,
        )
        owned = owned_part(owns, self._manifest.samples)
        if owned is not None and tile is not None and self._manifest.samples is not None:
            check_aligned(owned, tile, self._manifest.samples, "the run")
        check_one_of("on_error", on_error, ("raise", "ignore"))
        self._settings = Settings(
            writer=writer,
            owned=owned,
            tile=tile,
            max_bytes=default_max_bytes() if max_bytes is None else max_bytes,
            deadline_s=deadline_s,
            durability=durability,
            resume=resume,
            commit_interval_s=commit_interval_s,
            spool=SpoolSettings.chosen(store, spool, max_spool_bytes, store_options),
        )
        self._goes_on = on_error == "ignore"
        self._seal_at_exit = seal_at_exit
        self._compacts = store if compact_at_seal else None
        self._session: Session | None = None
        self._hooks: LayerHooks | None = None
        self._seal: Seal | None = None
        self._closed = False
        self._stopped = False
        self._whole = False
        """Whether everything that was accepted is in the archive."""

    def __enter__(self) -> Self:
        if self._session is not None:
            raise RuntimeError("a recorder is entered once; make another to open the run again")
        self._session = Session(self._store, self._manifest, self._settings)
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        if error is not None:
            self._give_up(error)
            return
        self._close(seal=self._seal_at_exit)
        if self._seal_at_exit and self._whole and self._seal is None:
            with self._told_if_unsealed() as session:
                self._seal_if_last(session)

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self._manifest.id

    def record(
        self, n: int, samples: slice | None = None, layer: str | None = None, **values: Any
    ) -> None:
        """Record values of one step.

        Parameters
        ----------
        n
            Number of the step.
        samples
            Which samples of the run the arrays hold: ``slice(start, stop)``; None for all.
        layer
            Record arrays as fields of this layer.
        values
            By name. Python and NumPy scalars are coordinates of the step; arrays and tensors
            are fields, whose first axis is the sample axis unless they are declared otherwise.

        Raises
        ------
        InvalidInputError
            If a step, samples, dtype or shape is not what the run or the field declares;
            nothing of the call is recorded then.
        ConflictError
            ``coordinate-differs``; ``tile-differs`` if an earlier call gave other values than
            are recorded.
        StorageError
            If something accepted before could not be stored.
        """
        session = self._active()
        if session is None:
            return
        number, at = session.steps.position(n)
        bounds = session.samples.bounds(samples)
        place = Place.TRACE if layer is None else Place.LAYERS
        offers = [] if self._hooks is None else self._hooks.take(bounds)
        coordinates = []
        for name, value in values.items():
            known = scalar(value)
            if known is not None:
                coordinates.append((name, *known))
            else:
                offers.append(Offer((place, layer, name), given(value, name), bounds))
        with self._going_on():
            session.intake.accept(offers, coordinates, number, at)

    def declare(
        self,
        name: str,
        *,
        layer: str | None = None,
        place: Place | str | None = None,
        dims: Sequence[str] | None = None,
        tokens: bool | None = None,
        every: int = 1,
        first: int = 0,
        ragged: bool | None = None,
        tile: int | None = None,
        storage: Literal["widen", "bits"] = "widen",
        codec: Codec | None = None,
        block: Sequence[int] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Settle what the first values of a field do not say.

        Parameters
        ----------
        dims
            Names of all axes but step; the sample axis, if there is one, is the first.
        tokens
            Whether the values are ids in a vocabulary of at most 256.
        every, first : int, positions on the run's step axis
            Record positions first, first + every, …; others are passed over.
        ragged
            Whether the shape differs from step to step.
        tile : int, samples
            Samples in a tile of this field.
        storage
            What happens to bfloat16 and float8: widened exactly, or kept bit by bit.
        codec, block
            How a block is compressed, and its extent along sample and the other axes.

        Raises
        ------
        ConflictError
            ``field-differs`` if the field is recorded already and otherwise.
        InvalidInputError
            ``tile-misaligned`` if this writer owns part of such a tile.
        """
        check_one_of("storage", storage, ("widen", "bits"))
        check_at_least(1, every=every, tile=tile)
        self._opened().samples.check_owned(name, tile)
        check_at_least(0, first=first)
        where = Place(place) if place is not None else Place.TRACE
        address: Address = (where if layer is None else Place.LAYERS, layer, check_name(name))
        self._opened().fields.settle(
            address,
            FieldOptions(
                dims=None if dims is None else tuple(dims),
                tokens=tokens,
                every=every,
                first=first,
                ragged=ragged,
                tile=tile,
                storage=storage,
                codec=codec,
                block=None if block is None else tuple(block),
                attributes=attributes or {},
            ),
        )

    def inputs(self, samples: slice | None = None, **arrays: Any) -> None:
        """Record what the sampler was given: sequences, labels, codebooks; arguments as `outputs`.

        Raises
        ------
        InvalidInputError, ConflictError, StorageError
            As `record`.
        """
        self._whole_run(Place.INPUTS, samples, arrays)

    def outputs(self, samples: slice | None = None, **arrays: Any) -> None:
        """Record what came out at the end.

        What attached layers gave out since the last `record` is forgotten: a last pass of the
        model, after its last step, belongs to none.

        Parameters
        ----------
        samples
            Which samples of the run the arrays hold. Without it, an array has a sample axis
            only if the system or `declare` says so, and then holds all samples.
        arrays
            By name.

        Raises
        ------
        InvalidInputError, ConflictError, StorageError
            As `record`.
        """
        if self._hooks is not None:
            self._hooks.discard()
        self._whole_run(Place.OUTPUTS, samples, arrays)

    def sample_coordinates(self, samples: slice | None = None, **values: ArrayLike) -> None:
        """Record what is known of each sample: a label, a class, a seed.

        Parameters
        ----------
        samples
            Which samples of the run the values belong to; None for samples 0, 1, ….
        values
            By name: one number or text a sample.

        Raises
        ------
        InvalidInputError
            ``shape-mismatch`` for another number of values than samples.
        ConflictError
            ``coordinate-differs``.
        """
        session = self._active()
        if session is None:
            return
        bounds = session.samples.bounds(samples)
        count = None if bounds is None else bounds[1] - bounds[0]
        columns = {name: _column(name, value, count) for name, value in values.items()}
        if bounds is None:
            for column in columns.values():
                session.samples.bounds(slice(0, len(column)))
        start = 0 if bounds is None else bounds[0]
        with self._going_on():
            for name, column in columns.items():
                session.intake.put_samples(start, name, column)

    def attach(
        self, model: Module, patterns: Mapping[str, Capture | Mapping[str, Any] | str]
    ) -> AttachedLayers:
        """Record what layers of *model* give out, by forward hooks.

        What fires between two calls of `record` belongs to the step of the second: call
        `record` after the model. The hooks go when the recorder closes, or when what is returned,
        a context manager, is left or detached. Attach before ``torch.compile``.

        Parameters
        ----------
        patterns
            By glob over the names of the model's modules (``*`` stays within one part of a
            name, ``**`` crosses dots): what to keep, as a `Capture`, its arguments, or the
            name of the field.

        Raises
        ------
        InvalidInputError
            ``pattern-unmatched`` if a glob matches no module; by the first `record`, if it
            matched none that ran.
        """
        session = self._opened()
        if self._hooks is None:
            self._hooks = LayerHooks(session.fields.settle)
        return self._hooks.attach(model, patterns)

    @property
    def budget(self) -> ByteBudget:
        """Memory for what is under way: its limit, its peak, and how long calls waited for it."""
        return self._opened().budget

    @property
    def spool(self) -> Spool | None:
        """What waits on the local disk for the store: its folder, its tiles and its bytes."""
        return self._opened().spool

    def plan(self) -> Plan:
        """Return what the fields known so far amount to; ``print(rec.plan())`` shows a table."""
        return self._opened().plan([] if self._hooks is None else self._hooks.waiting)

    def recorded(self) -> Recorded:
        """Return which tiles are committed by any writer, or safe in this one's spool.

        While the store is away, what other writers have committed since is not among them.
        """
        return self._opened().recorded()

    def flush(self) -> None:
        """Return once everything accepted is committed: from then on it is not lost.

        Raises
        ------
        StorageError
            ``spooled`` if the store is away, nothing got done for the deadline, and everything
            is safe in the spool instead: recording goes on. With ``on_error="ignore"`` it is
            warned of.
        ArchiveError
            If it could not be.
        """
        session = self._active()
        if session is not None:
            with self._going_on():
                session.writer.flush()

    def seal(self) -> Seal:
        """Finish the run: nothing can be added to it any more. Ends this recorder too.

        Raises
        ------
        ConflictError
            ``writer-active`` while another writer records.
        ArchiveError
            What ended the recording before: what was lost must be recorded first.
        """
        self._close(seal=True)
        with self._told_if_unsealed() as session:
            session.writer.check()
            recording = session.others().recording
            if recording:
                names = ", ".join(map(str, recording))
                message = f"run {self.run_id!r} is still recorded by {names}"
                raise ConflictError(ErrorKind.WRITER_ACTIVE, message)
            return self._sealed(session)

    def close(self) -> None:
        """Commit what was accepted and stop; idempotent. The run is not sealed.

        Raises
        ------
        StorageError
            ``spooled`` if nothing got done for the deadline, and what is not in the archive is
            in the spool; with ``on_error="ignore"`` it is warned of.
        ArchiveError
            What ended the recording before; with ``on_error="ignore"`` it is warned of.
        """
        self._close(seal=False)

    def _close(self, *, seal: bool) -> None:
        session = self._opened()
        if self._closed:
            return
        self._closed = True
        self._detach()
        try:
            session.close(seal=seal)
        except ArchiveError as error:
            if not self._goes_on:
                raise
            self._stopped = True
            self._warn(error)
        else:
            self._whole = not self._stopped

    def _whole_run(self, place: Place, samples: slice | None, arrays: Mapping[str, Any]) -> None:
        session = self._active()
        if session is None:
            return
        bounds = session.samples.bounds(samples)
        offers = [
            Offer((place, None, name), given(plain_array(value), name), bounds)
            for name, value in arrays.items()
        ]
        with self._going_on():
            session.intake.accept(offers, (), 0, 0)

    def _detach(self) -> None:
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None

    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeError("the recorder is not open; use it in a with statement")
        return self._session

    def _active(self) -> Session | None:
        """Return the open session, or None if the sampler goes on without recording."""
        session = self._opened()
        if self._stopped:
            return None
        if self._seal is not None:
            message = f"run {self.run_id!r} is sealed; nothing can be added to it"
            raise ConflictError(ErrorKind.RUN_SEALED, message)
        if self._closed:
            raise RuntimeError("the recorder is closed")
        return session

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Let the sampler go on after a failure, if it wants to; wrong arguments stay errors."""
        try:
            yield
        except ArchiveError as error:
            kept = error.kind is ErrorKind.SPOOLED
            if not self._goes_on or (self._opened().writer.failure is None and not kept):
                raise
            self._stopped = not kept
            self._warn(error)

    def _warn(self, error: ArchiveError) -> None:
        if error.kind is ErrorKind.SPOOLED:
            warnings.warn(f"run {self.run_id!r}: {error}", SpooledWarning, stacklevel=5)
            return
        message = (
            f"run {self.run_id!r} is no longer recorded and stays incomplete; open it again to"
            f" resume. {error}"
        )
        warnings.warn(message, RecordingStoppedWarning, stacklevel=4)

    def _seal_if_last(self, session: Session) -> None:
        """Seal, unless tiles are to come: of another writer, or refused from a spool."""
        refused = session.spool.refused if session.spool is not None else []
        if refused:
            message = (
                f"run {self.run_id!r} is not sealed: of what an earlier process left in its spool,"
                f" {len(refused)} files were not taken: {refused[0]}; open the run again to"
                " record what is missing"
            )
            warnings.warn(message, RunNotSealedWarning, stacklevel=3)
            return
        others = session.others()
        if others.recording:
            return  # the last to leave looks again
        if others.lost:
            named = ", ".join(f"{one}: {one.state} {one.reason}".strip() for one in others.lost)
            message = (
                f"run {self.run_id!r} is not sealed: writers failed or were lost: {named}; start"
                " them again, or others with their samples, or seal it by `TraceRecorder.seal`"
            )
            warnings.warn(message, RunNotSealedWarning, stacklevel=3)
        elif not others.awaited:
            self._sealed(session)

    @contextmanager
    def _told_if_unsealed(self) -> Iterator[Session]:
        """Give the closed session, and tell readers that it has closed unless it was sealed."""
        session = self._opened()
        try:
            yield session
        finally:
            if self._seal is None and self._whole:
                session.tell_closed()

    def _sealed(self, session: Session) -> Seal:
        self._seal = session.seal()
        if self._compacts is not None:
            compact_run(self._compacts, self.run_id)
        return self._seal

    def _give_up(self, error: BaseException) -> None:
        """Keep what was accepted, and leave the run incomplete."""
        if self._closed:
            return
        self._closed = True
        self._detach()
        reason = f"{type(error).__name__}: {error}"
        try:
            self._opened().close(reason)
        except ArchiveError as failure:
            error.add_note(f"While the recorder closed: {failure}")


def _column(name: str, value: ArrayLike, count: int | None) -> NDArray[Any]:
    """Return the values of a sample coordinate, one for each of *count* samples."""
    snapshot = given(plain_array(value), name).snapshot()
    values = snapshot.values().copy()
    snapshot.release()
    check_column(name, values, count)
    return values
