"""Stores what recorders that are gone have left in a spool: a recorder with nothing to record.

Each run is opened again under the name of its writer, which ends what may be left of the dead
process; what waits is put and committed; and if the dead one had wanted to seal, and nobody else
records, the run is sealed. Whoever is killed meanwhile leaves a spool that is drained again.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    FormatError,
    InvalidInputError,
    NotFoundError,
)
from archive_schema.layout import field_path
from archive_schema.records import RunRecords, read_manifest
from archive_schema.store import StoreOptions, open_store
from recorder.budget import default_max_bytes
from recorder.coordinates import Coordinates
from recorder.patience import PatientStore
from recorder.session import Session, Settings
from recorder.spool import Spool, SpoolSettings, forget_refused, leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from archive_schema.models import RunManifest
    from archive_schema.store import Store
    from recorder.spool import Leftover, Spooled, SpoolSession

_NO_BOUND: Final = 2**63
_LOOK_S: Final = 0.1
_COMMIT_INTERVAL_S: Final = 0.2

State: TypeAlias = Literal["drained", "sealed", "in use", "left", "refused", "unreadable"]


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of one recorder's spool."""

    folder: str
    state: State
    run: str = ""
    writer: str = ""
    store: str = ""
    tiles: int = 0
    """Tiles that got into the archive, or were there already."""
    left: int = 0
    """Tiles that still wait."""
    remarks: tuple[str, ...] = ()
    """Why something is left or refused, or the run is not sealed."""

    @property
    def done(self) -> bool:
        """Whether nothing is left here for anybody but a live recorder."""
        return self.state in ("drained", "sealed", "in use")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to drain to; what is None is as the recorder had it."""

    url: str | None = None
    options: StoreOptions = field(default_factory=StoreOptions)

    def opened(self, session: SpoolSession) -> Store:
        """Open the store of a recorder."""
        known = session.options.model_dump()
        if self.options.says_who:  # decided as a whole
            known |= {"profile": None, "anonymous": None}
        unsaid = {
            name: value for name, value in known.items() if getattr(self.options, name) is None
        }
        return open_store(self.url or session.store, replace(self.options, **unsaid))


def drain(
    place: Path,
    target: Target,
    *,
    seal: bool,
    forget: bool,
    deadline_s: float,
    progress: Callable[[int, int], None],
) -> list[Drained]:
    """Store everything at *place* whose recorder is gone.

    Parameters
    ----------
    seal : bool
        Whether to seal runs that nobody else records, also if their recorders were killed.
    forget : bool
        Whether to remove what the archive refused earlier.
    deadline_s : float, seconds
        How long to go on while nothing gets done.
    progress : callable
        Called with how many tiles are done, and how many there are.
    """
    found = leftovers(place)
    total = sum(one.tiles for one in found if not one.in_use)
    done = 0
    results: list[Drained] = []
    waiting: dict[tuple[str, str, str], _Work] = {}
    for one in found:
        session = one.session
        if session is None or one.in_use or not (one.files or session.seal):
            results.append(_aside(one, forget=forget))
            continue
        work = _Work(place, session, target, seal, deadline_s)
        key = (session.store, session.manifest.uid, session.writer)
        waiting.setdefault(key, work).found.append(one)
    for work in waiting.values():
        results.append(work.done(_counted(progress, done, total)))
        done += work.tiles
        progress(done, total)
        results += [_aside(one, forget=forget) for one in work.found if one.refused]
    return results


def _counted(progress: Callable[[int, int], None], done: int, total: int) -> Callable[[int], None]:
    return lambda more: progress(done + more, total)


def _aside(one: Leftover, *, forget: bool) -> Drained:
    """Return what is to be said of a folder in which nothing waits for its turn."""
    session = one.session
    state: State = "in use" if one.in_use else "refused" if session is not None else "unreadable"
    remarks = one.refused
    if state == "unreadable":
        remarks = (f"its session.json is damaged or lost; {one.files} files wait there",)
    if state == "refused" and forget:
        forget_refused(one.folder)
        state, remarks = "drained", tuple(f"removed: {reason}" for reason in remarks)
    named = {} if session is None else _named(session)
    return Drained(folder=str(one.folder), state=state, left=one.tiles, remarks=remarks, **named)


def _named(session: SpoolSession) -> dict[str, Any]:
    return {"run": session.manifest.id, "writer": session.writer, "store": session.store}


@dataclass(frozen=True, slots=True)
class _Work:
    """What the dead processes of one writer of one run left."""

    place: Path
    session: SpoolSession
    target: Target
    seal: bool
    deadline_s: float
    found: list[Leftover] = field(default_factory=list)

    @property
    def tiles(self) -> int:
        """Return how many tiles wait."""
        return sum(one.tiles for one in self.found)

    @property
    def seals(self) -> bool:
        """Return whether the run is to be sealed."""
        wanted = (one.session is not None and one.session.seal for one in self.found)
        return self.seal or any(wanted)

    def done(self, progress: Callable[[int], None]) -> Drained:
        """Store what waits, and return what became of it."""
        session, first = self.session, str(self.found[0].folder)
        with Spool(
            self.place,
            store=session.store,
            run=session.manifest.id,
            writer=session.writer,
            max_bytes=_NO_BOUND,
        ) as spool:
            if not spool.dead:
                # Whoever was quicker must not be taken for dead, and ended.
                return Drained(first, "in use", **_named(session))
            try:
                state, remarks = self._through(spool, progress)
            except ArchiveError as error:
                state, remarks = "left", (str(error),)
            left = spool.tiles if spool.begun else self.tiles
            if spool.refused and state != "left":
                state = "refused"
            return Drained(
                folder=str(spool.folder) if spool.begun else first,
                state=state,
                tiles=max(self.tiles - left - len(spool.refused), 0),
                left=left,
                remarks=(*remarks, *spool.refused),
                **_named(session),
            )

    def _through(
        self, spool: Spool, progress: Callable[[int], None]
    ) -> tuple[State, tuple[str, ...]]:
        """Open the run, wait until everything is committed, and seal if that is wanted."""
        store = self.target.opened(self.session)
        manifest = _manifest(store, self.session.manifest, self.deadline_s)
        records = RunRecords(PatientStore(store, self.deadline_s), manifest.id)
        if records.seal is not None:
            return self._compared(spool, records)
        opened = Session(store, manifest, self._settings(), spool)
        with _reported(spool, progress):
            opened.close()
        if not self.seals or spool.refused:
            spool.seal_is_settled()
            return "drained", ()
        others = opened.others()
        missing = (
            *(f"writer {one.claim.writer!r} still records" for one in others.recording),
            *(f"writer {one.claim.writer!r} failed or was lost" for one in others.lost),
            *filter(None, [others.awaited]),
        )
        if not missing:
            opened.seal()
        spool.seal_is_settled()
        return ("drained", (f"not sealed: {'; '.join(missing)}",)) if missing else ("sealed", ())

    def _compared(self, spool: Spool, records: RunRecords) -> tuple[State, tuple[str, ...]]:
        """Forget what a sealed run holds, and set aside what it was sealed without."""
        spool.begin(self.session.model_copy(update={"seal": False}))
        coordinates = Coordinates(records.ledger)
        for entry in iter(spool.take, None):
            try:
                _check_in(records, coordinates, spool.head(entry))
            except (ConflictError, FormatError, InvalidInputError, NotFoundError) as error:
                spool.refuse(entry, error)
            else:
                spool.remove(entry)
        return "sealed", ()

    def _settings(self) -> Settings:
        session = self.session
        return Settings(
            writer=session.writer,
            owned=session.samples,
            tile=None,
            max_bytes=default_max_bytes(),
            deadline_s=self.deadline_s,
            durability="process",
            resume=True,
            commit_interval_s=_COMMIT_INTERVAL_S,
            spool=SpoolSettings(
                self.place, _NO_BOUND, required=True, options=session.options, seal=self.seals
            ),
        )


def _check_in(records: RunRecords, coordinates: Coordinates, spooled: Spooled) -> None:
    """Refuse a tile or coordinates that a sealed run does not hold, equal."""
    coordinates.restore(spooled.steps, spooled.samples)
    there = coordinates.take() == ((), ())
    if spooled.field is not None and spooled.tile is not None:
        columns = spooled.tile
        field = records.ledger.fields.get(field_path(*spooled.field.address))
        tile = None if field is None else field.tile(columns.step[0], columns.tile[0])
        wanted = (columns.samples[0], columns.crc32[0])
        there = there and tile is not None and (tile.samples, tile.crc32) == wanted
    if not there:
        message = f"run {records.run_id!r} was sealed without it"
        raise ConflictError(ErrorKind.RUN_SEALED, message)


def _manifest(store: Store, known: RunManifest, deadline_s: float) -> RunManifest:
    """Return the run's declaration; a run that is gone must not be made anew."""
    try:
        found = read_manifest(PatientStore(store, deadline_s), known.id)
    except NotFoundError as error:
        message = (
            f"{store.url} has no run {known.id!r} any more; what was recorded of it stays here"
        )
        raise NotFoundError(ErrorKind.RUN_NOT_FOUND, message) from error
    if found.uid != known.uid:
        message = (
            f"the run {known.id!r} in {store.url} is another one, made"
            f" {found.created:%Y-%m-%d %H:%M:%S} UTC; what was recorded of the earlier stays here"
        )
        raise ConflictError(ErrorKind.RUN_DIFFERS, message)
    return found


@contextmanager
def _reported(spool: Spool, progress: Callable[[int], None]) -> Iterator[None]:
    """Tell how many tiles are done while a block waits for them."""
    total = spool.tiles
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            progress(total - spool.tiles)

    thread = threading.Thread(target=look, name="trace-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
