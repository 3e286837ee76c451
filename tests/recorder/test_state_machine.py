"""Whatever happens to recorders, in whatever order: an archive equals a dict in memory.

The run has two parts, each recorded by one writer at a time. No two lives of a sampler have the
same values, so that whatever mixes them up shows.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from archive_schema.errors import ArchiveError, ConflictError, ErrorKind, StorageError
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder
from tests.recorder.lines import Line, Weather
from tests.recorder.reading import committed, objects, zarr_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Tile: TypeAlias = tuple[str, int, int]
"""Path of a field, step, tile."""

STEPS, SAMPLES, TILE = 3, 11, 3
FIELDS: Final = ("trace/x", "layers/a.b/out")
PARTS: Final = (range(2), range(2, 4))
"""Tiles of each part; the last tile of the run is short."""
NAMES: Final = ("one", "two", "three")
CONTRADICTION: Final = 1000

# No choice depends on what lives: threads decide what a fault hits, and an example must be drawn
# alike when it is run again.
turns = st.integers(0, 11)
steps = st.integers(0, STEPS - 1)
fields = st.sampled_from(FIELDS)
faults = st.lists(
    st.sampled_from(["none", "none", "request", "answer", "full"]), min_size=1, max_size=4
)


def bounds(tiles: range) -> slice:
    """Return the samples of some tiles."""
    return slice(tiles.start * TILE, min(tiles.stop * TILE, SAMPLES))


def values(tile: Tile, version: int) -> NDArray[np.float32]:
    """Return a tile's values; another version has other values everywhere."""
    field, step, number = tile
    samples = bounds(range(number, number + 1))
    random = np.random.default_rng((FIELDS.index(field), step, number))
    shape = (samples.stop - samples.start, 2)
    return (random.uniform(size=shape) + version).astype(np.float32)


class Life:
    """One opening of the run, and what its sampler has."""

    def __init__(
        self, number: int, writer: str, part: int, recorder: TraceRecorder, line: Line
    ) -> None:
        self.number = number
        self.writer = writer
        self.part = part
        self.recorder = recorder
        self.line = line
        self.versions: dict[Tile, int] = {}
        """What it found or recorded, perhaps not yet committed."""
        self.fenced = False
        """Whether its writer was opened again for certain."""

    def record(self, field: str, step: int, tiles: range, version: int | None = None) -> None:
        """Record some tiles of a field: anew, or as they were found or recorded before."""
        own = self.number if version is None else version
        parts = []
        for number in tiles:
            tile = (field, step, number)
            parts.append(values(tile, self.versions.get(tile, own) if version is None else own))
        array = np.concatenate(parts)
        if field == "trace/x":
            self.recorder.record(step, samples=bounds(tiles), t=step / 10, x=array)
        else:
            self.recorder.record(step, samples=bounds(tiles), layer="a.b", out=array)
        for number in tiles:
            self.versions.setdefault((field, step, number), own)


class RecordedRun(RuleBasedStateMachine):
    """A run that is recorded, flushed, left, resumed, taken over and sealed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.store = open_store(self.folder / "store")
        self.options: dict[str, Any] = {"deadline_s": 20.0}
        self.spools = False
        self.weather = Weather()
        self.lives = 0
        self.live: dict[str, Life] = {}
        self.zombies: list[Life] = []
        """Lives whose writer was opened again behind their backs."""
        self.offered: dict[Tile, set[int]] = {}
        """Versions that some life recorded, and that may or may not be committed."""
        self.safe: dict[Tile, int] = {}
        """Versions that a flush or a clean end acknowledged, or a reader saw."""
        self.reader: RunRecords | None = None
        self.holding: dict[str, set[int]] = {name: set() for name in NAMES}
        """Parts that an epoch of a writer may own, as far as a failure lets one know."""
        self.created = False
        self.may_be_sealed = False
        self.sealed: dict[str, bytes] | None = None
        """Every object of the run when it was found sealed."""

    def teardown(self) -> None:
        """Complete the run, whatever became of it, and look at it once more."""
        try:
            self._complete()
        finally:
            for life in (*self.live.values(), *self.zombies):
                life.line.cut()
                with suppress(ArchiveError):
                    life.recorder.close()
            self.stack.close()

    @initialize()
    def begin(self) -> None:
        """Open the run for the first time."""
        self._open(NAMES[0], 0)

    @rule(writer=st.sampled_from(NAMES), part=st.integers(0, 1))
    def open(self, writer: str, part: int) -> None:
        """Open the run, as the first or a later process would; one that lives is taken over."""
        self._open(writer, part)

    @rule(turn=turns, field=fields, step=steps, span=st.sampled_from([(0, 1), (1, 2), (0, 2)]))
    def record(self, turn: int, field: str, step: int, span: tuple[int, int]) -> None:
        """Record samples that may be there already."""
        life = self._whose(turn)
        if life is not None:
            tiles = PARTS[life.part][slice(*span)]
            self._going_on(life, lambda: self._offer(life, field, step, tiles))

    @rule(turn=turns)
    def flush(self, turn: int) -> None:
        """After it, everything accepted is committed."""
        life = self._whose(turn)
        if life is not None and self._going_on(life, life.recorder.flush):
            self._acknowledge(life)

    @rule(turn=turns)
    def contradict(self, turn: int) -> None:
        """Other values of a tile end this recorder, and the first values stay."""
        life = self._whose(turn)
        if life is None or not life.versions:
            return
        self.weather.clear()
        if not self._going_on(life, life.recorder.flush):
            return
        self._acknowledge(life)
        field, step, number = sorted(life.versions)[turn % len(life.versions)]
        life.record(field, step, range(number, number + 1), version=CONTRADICTION)
        self._left(life)
        try:
            life.recorder.close()
        except ConflictError as error:
            assert error.kind is ErrorKind.TILE_DIFFERS  # noqa: PT017  no other error may pass
        else:
            raise AssertionError("a contradiction went unnoticed")

    @rule(turn=turns)
    def close(self, turn: int) -> None:
        """End a recorder cleanly."""
        life = self._whose(turn)
        if life is not None and self._going_on(life, life.recorder.close):
            self._acknowledge(life)
            self._left(life)
        elif life is not None:
            self._cut(life)

    @rule(turn=turns)
    def crash(self, turn: int) -> None:
        """Kill the process: nothing that it does reaches the store any more."""
        life = self._whose(turn)
        if life is not None:
            self._cut(life)

    @rule(turn=turns, field=fields, step=steps)
    def wake_a_zombie(self, turn: int, field: str, step: int) -> None:
        """Let a process that was thought dead go on; nothing that it commits becomes visible.

        What it kept in a spool is there for whoever opens the run again by its name.
        """
        if not self.zombies:
            return
        zombie = self.zombies.pop(turn % len(self.zombies))
        new = [n for n in PARTS[zombie.part] if (field, step, n) not in zombie.versions][:1]
        if new and (self.spools or not zombie.fenced):
            self.offered.setdefault((field, step, new[0]), set()).add(zombie.number)
        try:
            if new:
                zombie.record(field, step, range(new[0], new[0] + 1))
            zombie.recorder.close()
        except ConflictError as error:
            expected = (ErrorKind.WRITER_REPLACED, ErrorKind.RUN_SEALED, ErrorKind.TILE_DIFFERS)
            assert error.kind in expected  # noqa: PT017
        except StorageError:
            self._cut(zombie)
        else:
            assert not (new and zombie.fenced), "a zombie was told that its tile is recorded"
            if not zombie.fenced:
                self._acknowledge(zombie)

    @rule(expected=faults)
    def trouble(self, expected: Any) -> None:
        """Let some of the next operations fail, or succeed without an answer."""
        if self.sealed is None:
            self.weather.expect(expected)

    @rule(turn=turns)
    def seal(self, turn: int) -> None:
        """Finish the run, unless another writer records it."""
        life = self._whose(turn)
        if life is not None:
            self._seal(life)

    @rule()
    def read(self) -> None:
        """Look at every committed tile, and at a sealed run as a plain Zarr reader does."""
        if not self.created:
            return
        tiles = committed(self.store, "r")
        for tile, read in tiles.items():
            self._check(tile, read)
        assert set(self.safe) <= set(tiles)
        if RunRecords(self.store, "r").seal is not None:
            self._take_note_of_seal()
            for path in {path for path, _, _ in tiles}:
                self._check_mask(path, set(tiles))

    @invariant()
    def a_live_reader_sees_nothing_vanish(self) -> None:
        """Follow the commits: they only add."""
        if not self.created:
            return
        self.reader = self.reader or RunRecords(self.store, "r")
        before = {p: f.count for p, f in self.reader.ledger.fields.items()}
        self.reader.refresh()
        after = {p: f.count for p, f in self.reader.ledger.fields.items()}
        assert all(after[path] >= count for path, count in before.items())
        assert not self.reader.ledger.conflicts

    @invariant()
    def nothing_changes_after_the_seal(self) -> None:
        """Compare the run with what it was then; a zombie may leave what no commit names."""
        if self.sealed is not None:
            now = objects(self.store, "r")
            changed = {key for key, data in self.sealed.items() if now.get(key) != data}
            assert {key for key in changed if not key.startswith("heartbeats/")} == set()

    def _whose(self, turn: int) -> Life | None:
        """Return whose turn it is, of those that live."""
        names = sorted(self.live)
        return self.live[names[turn % len(names)]] if names else None

    def _open(self, writer: str, part: int) -> None:
        line: Any = Line(self.store, self.weather)
        recorder = TraceRecorder(
            line, "r", steps=STEPS, samples=SAMPLES, tile=TILE, writer=writer,
            owns=bounds(PARTS[part]), seal_at_exit=False, commit_interval_s=0.0, **self.options,
        )  # fmt: skip
        owners = {life.writer for life in self.live.values() if life.part == part} - {writer}
        before = self.live.pop(writer, None)
        if before is not None:
            self.zombies.append(before)
        self.holding[writer].add(part)
        try:
            recorder.__enter__()
        except StorageError:
            line.cut()
            return
        except ConflictError as error:
            line.cut()
            self._check_refusal(error, writer, part)
            self._fenced(writer)
            return
        assert not owners, f"{writer} took the part of {owners}"
        assert self.sealed is None, "a sealed run was opened"
        self._fenced(writer)
        self.holding[writer] = {part}
        self.created = True
        self.lives += 1
        life = self.live[writer] = Life(self.lives, writer, part, recorder, line)
        # What an earlier life left in a spool is recorded, too, before this one says anything.
        if not self._going_on(life, recorder.flush):
            self._cut(life)
            return
        for tile, read in committed(self.store, "r").items():
            version = self._check(tile, read)
            if tile[2] in PARTS[part]:
                life.versions[tile] = version

    def _check_refusal(self, error: ConflictError, writer: str, part: int) -> None:
        if error.kind is ErrorKind.RUN_SEALED:
            assert self.may_be_sealed, "nobody sealed the run"
            self._take_note_of_seal()
        else:
            assert error.kind is ErrorKind.PART_TAKEN
            assert self.sealed is None
            holders = {name for name, parts in self.holding.items() if part in parts}
            assert holders - {writer}, f"nobody has part {part}"

    def _fenced(self, writer: str) -> None:
        for life in self.zombies:
            life.fenced |= life.writer == writer

    def _offer(self, life: Life, field: str, step: int, tiles: range) -> None:
        for number in tiles:
            tile = (field, step, number)
            self.offered.setdefault(tile, set()).add(life.versions.get(tile, life.number))
        life.record(field, step, tiles)

    def _going_on(self, life: Life, call: Callable[[], object]) -> bool:
        """Make a call of a life, which ends if the store failed it; return whether it goes on."""
        try:
            call()
        except StorageError as error:
            if error.kind is not ErrorKind.SPOOLED:
                self._cut(life)
            return False
        return True

    def _cut(self, life: Life) -> None:
        """Kill the process of a life; it does not get to tell anybody."""
        if self.live.get(life.writer) is life:
            del self.live[life.writer]
        life.line.cut()
        with suppress(ArchiveError):
            life.recorder.close()

    def _left(self, life: Life) -> None:
        """Take note of a life that ended by its own word."""
        del self.live[life.writer]
        self.holding[life.writer] = set()

    def _acknowledge(self, life: Life) -> None:
        for tile, version in life.versions.items():
            assert self.safe.setdefault(tile, version) == version

    def _seal(self, life: Life) -> None:
        others = set(self.live) - {life.writer}
        self.may_be_sealed = True
        try:
            life.recorder.seal()
        except StorageError:
            self._cut(life)
            return
        except ConflictError as error:
            assert error.kind is ErrorKind.WRITER_ACTIVE  # noqa: PT017
            assert any(parts for name, parts in self.holding.items() if name != life.writer)
        else:
            assert not others, f"sealed while {others} recorded"
            self._take_note_of_seal()
        self._acknowledge(life)
        self._left(life)

    def _check(self, tile: Tile, read: NDArray[np.float32]) -> int:
        """Return which version a tile has; what was acknowledged or seen once stays."""
        known = [self.safe[tile]] if tile in self.safe else sorted(self.offered.get(tile, ()))
        found = [version for version in known if np.array_equal(read, values(tile, version))]
        assert len(found) == 1, f"{tile} is none of {known}: {read}"
        self.safe[tile] = found[0]
        return found[0]

    def _check_mask(self, path: str, tiles: set[Tile]) -> None:
        expected = np.zeros((STEPS, SAMPLES), bool)
        for known, step, number in tiles:
            if known == path:
                expected[step, bounds(range(number, number + 1))] = True
        group = path.rpartition("/")[0]
        np.testing.assert_array_equal(zarr_array(self.store, "r", f"{group}/recorded"), expected)

    def _take_note_of_seal(self) -> None:
        if self.sealed is None:
            assert RunRecords(self.store, "r").status() is RunStatus.SEALED
            self.sealed = objects(self.store, "r")

    def _complete(self) -> None:
        """Record what is missing; nothing that happened may keep it from succeeding."""
        self.weather.clear()
        self.options["deadline_s"] = 20.0
        # Nobody knows yet that a process is gone; the same writer, opened again, does.
        for writer, part in zip(NAMES, (0, 1, 0), strict=True):
            self._open(writer, part)
            if writer in self.live:
                self.live[writer].recorder.close()
                self._left(self.live[writer])
        for part in range(len(PARTS)):
            if self.sealed is None:
                self._open(NAMES[part], part)
                life = self.live[NAMES[part]]
                for field in FIELDS:
                    for step in range(STEPS):
                        self._offer(life, field, step, PARTS[part])
                life.recorder.flush()
                self._acknowledge(life)
                if part == 0:
                    life.recorder.close()
                    self._left(life)
        if self.sealed is None:
            self._seal(life)
            assert len(self.safe) == len(FIELDS) * STEPS * sum(map(len, PARTS))
        assert self.sealed is not None
        self.read()


class SpooledRun(RecordedRun):
    """The same, with a spool, and a store that may be away for a while.

    Each writer has its part for good: what waits in a spool is its writer's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.options = {"deadline_s": 1.0, "spool": self.folder / "spool"}
        self.spools = True

    @rule(away=st.booleans())
    def outage(self, away: bool) -> None:  # noqa: FBT001
        """Let the store be away, or come back."""
        self.weather.away = away

    def _open(self, writer: str, part: int) -> None:
        if writer == NAMES[part]:
            super()._open(writer, part)


TestRecordedRun = RecordedRun.TestCase
TestRecordedRun.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestSpooledRun = SpooledRun.TestCase
TestSpooledRun.settings = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
