"""One recorder's spool: tiles that its store did not take, on the local disk, in order.

A file is written under a temporary name and renamed, so that a killed recorder leaves whole
files only, and it is removed when the archive has committed what it holds.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from archive_schema.documents import document_bytes, parse_document
from archive_schema.errors import ArchiveError, ErrorKind, FormatError, StorageError
from archive_schema.store import LocalStore
from recorder.spool.documents import (
    Spooled,
    SpoolSession,
    parse_spooled,
    spooled_bytes,
    without_secrets,
)
from recorder.spool.place import (
    COORDINATES,
    KEPT,
    REASON,
    REFUSED,
    SESSION,
    TILE,
    default_max_bytes,
    folder_lock,
    folders,
    held,
    kept_files,
    make_place,
    read_session,
    remove_if_empty,
    unusable,
)

if TYPE_CHECKING:
    from recorder.spool.lock import FileLock

_NONCE_NBYTES: Final = 4
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the spool."""

    name: str
    nbytes: int
    adopted: bool = False
    """Whether an earlier process of the writer left it."""

    @property
    def key(self) -> str:
        """Return the file's path within the recorder's folder."""
        return f"{KEPT}/{self.name}"

    @property
    def tiles(self) -> int:
        """Return how many tiles it holds: 1, or 0 for coordinates."""
        return int(self.name.endswith(TILE))


class Spool:
    """Files that wait for the store, bounded in bytes; any number of threads may use it.

    Making one takes over what dead recorders of the same run and writer left at *place*, so
    that nobody else does; `begin` says which run it really is.

    Parameters
    ----------
    place : Path
        Folder of the spools of all recorders.
    max_bytes : int, bytes
        What may wait at once; None for 64 GiB or half of the free disk, whichever is less.
    durable : bool
        Whether a file must survive a power cut before it counts as kept.

    Raises
    ------
    StorageError
        ``store-unreachable`` if the place cannot be used.
    """

    def __init__(
        self,
        place: Path,
        *,
        store: str,
        run: str,
        writer: str,
        max_bytes: int | None = None,
        durable: bool = False,
    ) -> None:
        make_place(place)
        self.place = place
        self.max_bytes = default_max_bytes(place) if max_bytes is None else max_bytes
        self.refused: list[str] = []
        """Why the archive, or this version, did not take files that were set aside."""
        self._durable = durable
        self._lock = threading.Lock()
        self._waiting: deque[Entry] = deque()
        self._tiles = self._nbytes = self._files = 0
        self._next = 0
        self._session: SpoolSession | None = None
        self._own: FileLock | None = None
        self._files_of: LocalStore | None = None
        self._dead: dict[Path, FileLock] = {}
        self._closed = False
        with held(place):
            for folder in folders(place):
                lock = folder_lock(folder)
                if lock.taken():
                    if _is_of(folder, store, run, writer):
                        self._dead[folder] = lock
                    else:
                        lock.release()

    @property
    def dead(self) -> bool:
        """Whether there is anything that an earlier process left."""
        return bool(self._dead)

    @property
    def begun(self) -> bool:
        """Whether it has a folder of its own yet."""
        return self._files_of is not None

    @property
    def folder(self) -> Path:
        """Return this recorder's folder."""
        return self._store.root

    @property
    def tiles(self) -> int:
        """Tiles on the disk, waiting or on their way."""
        return self._tiles

    @property
    def nbytes(self) -> int:
        """Bytes on the disk, waiting or on their way."""
        return self._nbytes

    @property
    def waiting(self) -> bool:
        """Whether there is something to `take`."""
        return bool(self._waiting)

    @property
    def empty(self) -> bool:
        """Whether everything is committed that ever came here, but for what was refused."""
        return not self._files

    def begin(self, session: SpoolSession) -> None:
        """Make the folder of this recorder, and move into it what was left of the same run."""
        self._session = session
        with held(self.place):
            nonce = secrets.token_hex(_NONCE_NBYTES)
            # A file's name may have 255 bytes.
            run, writer = session.manifest.id[:_SHOWN], session.writer[:_SHOWN]
            folder = self.place / f"{run}-{writer}-{nonce}"
            try:
                (folder / KEPT).mkdir(mode=0o700, parents=True)
            except OSError as error:
                raise unusable(self.place, error) from error
            self._own = folder_lock(folder)
            self._own.__enter__()
            self._files_of = LocalStore(folder)
            self._write_session(session)
            if self._durable:
                self._store.sync([SESSION])
            for dead, lock in self._dead.items():
                known = read_session(dead)
                if known is not None and known.manifest.uid == session.manifest.uid:
                    self._adopt(dead)
                    remove_if_empty(dead)
                lock.release()
            self._dead.clear()

    def keep(self, spooled: Spooled, data: bytes = b"") -> Entry:
        """Write a file: from here what it holds outlives the process.

        Returns
        -------
        Entry
            As if taken: it waits once it is lined up by `line`.

        Raises
        ------
        StorageError
            ``store-full`` if there is no room, in the bound or on the disk.
        """
        content = spooled_bytes(spooled, data)
        entry = Entry(self._reserved(len(content), tile=spooled.tile is not None), len(content))
        try:
            self._store.create(entry.key, content)
            if self._durable:
                self._store.sync([entry.key])
        except BaseException:
            with self._lock:
                self._nbytes -= entry.nbytes
            raise
        with self._lock:
            self._files += 1
            self._tiles += entry.tiles
        return entry

    def line(self, entry: Entry) -> None:
        """Let a new file wait, after all others."""
        with self._lock:
            self._waiting.append(entry)

    def take(self) -> Entry | None:
        """Return the oldest file that waits, which nobody else gets then; None if none does."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def give_back(self, entry: Entry) -> None:
        """Let a file wait again that was taken, before all others."""
        with self._lock:
            self._waiting.appendleft(entry)

    def head(self, entry: Entry) -> Spooled:
        """Return what a file says of its tile; errors as `read`."""
        where = f"{self.folder}/{entry.key}"
        with Path(where).open("rb") as file:
            return parse_document(file.readline(), where, Spooled)

    def read(self, entry: Entry) -> tuple[Spooled, bytes]:
        """Return what a file holds.

        Raises
        ------
        FormatError
            ``record-damaged`` or ``tile-damaged``.
        """
        where = f"{self.folder}/{entry.key}"
        return parse_spooled(self._store.read(entry.key), where)

    def remove(self, entry: Entry) -> None:
        """Forget what is committed."""
        self._store.delete(entry.key)
        self._forget(entry)

    def refuse(self, entry: Entry, error: ArchiveError) -> None:
        """Set aside what will never get into the archive, with the reason; nobody deletes it."""
        reason = f"{self.folder}/{REFUSED}/{entry.name}: {error}"
        self._store.write(f"{REFUSED}/{entry.name}{REASON}", reason.encode())
        (self.folder / entry.key).replace(self.folder / REFUSED / entry.name)
        self.refused.append(reason)
        self._forget(entry)

    def close(self, *, seal: bool = False) -> None:
        """Let go of the folder; remove it if nothing waits. Idempotent.

        Parameters
        ----------
        seal : bool
            Whether the run is to be sealed once what waits is drained.
        """
        with self._lock:
            self._closed = True
        if self._own is not None and self._session is not None:
            with held(self.place):
                wanted = self._session.seal or seal
                if self._session.seal or not remove_if_empty(self.folder):
                    self._write_session(self._session.model_copy(update={"seal": wanted}))
                self._own.release()
                self._own = None
        for lock in self._dead.values():
            lock.release()
        self._dead.clear()

    def seal_is_settled(self) -> None:
        """Take note that the run is sealed, or that somebody else will seal it."""
        if self._session is not None:
            self._session = self._session.model_copy(update={"seal": False})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _store(self) -> LocalStore:
        if self._files_of is None:
            raise RuntimeError("the spool is not begun")
        return self._files_of

    def _reserved(self, nbytes: int, *, tile: bool) -> str:
        """Take *nbytes* of the bound, and return the name of a new file."""
        with self._lock:
            if self._closed:
                message = f"the spool {self.folder} is closed"
                raise StorageError(ErrorKind.WRITER_FAILED, message)
            if self._nbytes + nbytes > self.max_bytes:
                message = (
                    f"the spool {self.folder} keeps {self._tiles} tiles in {self._nbytes} of"
                    f" {self.max_bytes} bytes, and has no room for {nbytes} more"
                )
                raise StorageError(ErrorKind.STORE_FULL, message)
            name = f"{self._next:010d}{TILE if tile else COORDINATES}"
            self._next += 1
            self._nbytes += nbytes
        return name

    def _forget(self, entry: Entry) -> None:
        with self._lock:
            self._files -= 1
            self._tiles -= entry.tiles
            self._nbytes -= entry.nbytes

    def _adopt(self, dead: Path) -> None:
        for path in kept_files(dead):
            name = f"{self._next:010d}{path.suffix}"
            nbytes = path.stat().st_size
            path.rename(self.folder / KEPT / name)
            entry = Entry(name, nbytes, adopted=True)
            with self._lock:
                self._next += 1
                self._files += 1
                self._tiles += entry.tiles
                self._nbytes += nbytes
                self._waiting.append(entry)

    def _write_session(self, session: SpoolSession) -> None:
        self._session = session
        self._store.write(SESSION, document_bytes(session))


def _is_of(folder: Path, store: str, run: str, writer: str) -> bool:
    try:
        known = read_session(folder)
    except FormatError:  # named by `drain`; nobody can tell whose it is
        return False
    return known is not None and (known.store, known.manifest.id, known.writer) == (
        without_secrets(store),
        run,
        writer,
    )
