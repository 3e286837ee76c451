"""Where spools lie, and what recorders that are gone have left in them.

Each recorder has a folder of its own, which it holds by a lock as long as its process lives::

    <place>/lock                          held while folders are made, judged or removed
    <place>/<run>-<writer>-<nonce>/lock
        session.json                  whose it is: `SpoolSession`
        kept/0000000017.tile          what waits: `Spooled`, and the tile's object
        kept/0000000018.coordinates
        refused/0000000003.tile       what the archive did not take, and never will
        refused/0000000003.tile.txt   why
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from archive_schema.documents import parse_document
from archive_schema.errors import ErrorKind, FormatError, StorageError
from archive_schema.store.interface import is_remote
from recorder.spool.documents import PublicOptions, SpoolSession, public_options
from recorder.spool.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store, StoreOptions

SESSION: Final = "session.json"
KEPT: Final = "kept"
REFUSED: Final = "refused"
TILE: Final = ".tile"
COORDINATES: Final = ".coordinates"
REASON: Final = ".txt"
_LOCK: Final = "lock"
_LOCK_PATIENCE_S: Final = 10.0
_GIB: Final = 2**30
_MOST_BY_DEFAULT: Final = 64 * _GIB
VARIABLE: Final = "TRACE_ARCHIVE_SPOOL"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One recorder's folder in a spool."""

    folder: Path
    session: SpoolSession | None
    """None if it cannot be read."""
    in_use: bool
    """Whether the recorder, or somebody who drains it, is alive."""
    files: int
    """What waits: tiles, and coordinates."""
    tiles: int
    nbytes: int
    refused: tuple[str, ...]
    """Why the archive did not take what was set aside."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where a recorder spools, and how much."""

    place: Path
    max_bytes: int | None
    """None for 64 GiB or half of the free disk, whichever is less."""
    required: bool
    """Whether recording must not begin if the place cannot be used."""
    options: PublicOptions
    """How the store was reached, for whoever drains the spool later."""
    seal: bool = False
    """Whether the run is to be sealed once it is drained, whatever becomes of this process."""

    @classmethod
    def chosen(
        cls,
        store: Store,
        spool: str | os.PathLike[str] | Literal[False] | None,
        max_bytes: int | None,
        options: StoreOptions | None,
    ) -> SpoolSettings | None:
        """Return what a caller wants; None for no spool, as for a store on this machine."""
        if spool is False or (spool is None and not is_remote(store)):
            return None
        place = chosen_place() if spool is None else Path(spool)
        return cls(
            place.absolute(), max_bytes, spool is not None, public_options(store.url, options)
        )


def chosen_place() -> Path:
    """Return ``TRACE_ARCHIVE_SPOOL``, or a folder for state in the user's home."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME")
    # As the XDG specification has it: what is not absolute does not count.
    root = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local/state"
    return root / "trace-archive" / "spool"


def default_max_bytes(place: Path) -> int:
    """Return 64 GiB or half of what is free at *place*, whichever is less."""
    return min(_MOST_BY_DEFAULT, shutil.disk_usage(place).free // 2)


def make_place(place: Path) -> None:
    """Make the folder of all spools, for this user only.

    Raises
    ------
    StorageError
        ``store-unreachable`` if it cannot be made or written.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(place, error) from error
    if not os.access(place, os.W_OK | os.X_OK):
        message = f"the spool {place} cannot be written"
        raise StorageError(ErrorKind.STORE_UNREACHABLE, message)


def unusable(place: Path, error: OSError) -> StorageError:
    """Return the error for a spool that the system refuses."""
    message = f"the spool {place} cannot be used: {error.strerror or error}"
    return StorageError(ErrorKind.STORE_UNREACHABLE, message)


@contextmanager
def held(place: Path) -> Iterator[None]:
    """Keep others from making, judging or removing folders of *place*."""
    with FileLock(place / _LOCK, _LOCK_PATIENCE_S):
        yield


def folder_lock(folder: Path) -> FileLock:
    """Return the lock that the owner of *folder* holds."""
    return FileLock(folder / _LOCK, _LOCK_PATIENCE_S)


def folders(place: Path) -> list[Path]:
    """Return the folders of all recorders; the place must be held."""
    return sorted(path for path in place.iterdir() if path.is_dir())


def read_session(folder: Path) -> SpoolSession | None:
    """Return whose *folder* is, or None if that was never written.

    Raises
    ------
    FormatError
        ``record-damaged``.
    """
    path = folder / SESSION
    try:
        return parse_document(path.read_bytes(), str(path), SpoolSession)
    except FileNotFoundError:
        return None


def remove_if_empty(folder: Path) -> bool:
    """Remove a folder in which nothing waits; its lock and that of the place must be held."""
    empty = not (_files(folder / KEPT) or _files(folder / REFUSED))
    if empty:
        shutil.rmtree(folder)
    return empty


def kept_files(folder: Path) -> list[Path]:
    """Return what waits in a recorder's folder, oldest first."""
    return _files(folder / KEPT)


def leftovers(place: Path) -> list[Leftover]:
    """Return every folder of a spool; those that hold nothing and are nobody's are removed."""
    if not place.is_dir():
        return []
    found = []
    with held(place):
        for folder in folders(place):
            lock = folder_lock(folder)
            free = lock.taken()
            try:
                one = _leftover(folder, in_use=not free)
                to_seal = one.session is not None and one.session.seal
                if one.in_use or to_seal or not remove_if_empty(folder):
                    found.append(one)
            finally:
                lock.release()
    return found


def forget_refused(folder: Path) -> None:
    """Remove what the archive refused, and the folder if nothing else is in it."""
    with held(folder.parent):
        lock = folder_lock(folder)
        if lock.taken():
            try:
                shutil.rmtree(folder / REFUSED, ignore_errors=True)
                remove_if_empty(folder)
            finally:
                lock.release()


def _leftover(folder: Path, *, in_use: bool) -> Leftover:
    try:
        session = read_session(folder)
    except FormatError:
        session = None
    kept = kept_files(folder)
    reasons = [path for path in _files(folder / REFUSED) if path.suffix == REASON]
    return Leftover(
        folder=folder,
        session=session,
        in_use=in_use,
        files=len(kept),
        tiles=sum(path.suffix == TILE for path in kept),
        nbytes=sum(map(_nbytes, kept)),
        refused=tuple(path.read_text().strip() for path in reasons),
    )


def _nbytes(path: Path) -> int:
    """Return the length of a file; 0 if its recorder has drained it since it was listed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _files(folder: Path) -> list[Path]:
    """Return whole files; what was never renamed from its temporary name is none."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
