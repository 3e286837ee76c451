"""Whatever happens to a recorder, in whatever order: an archive equals a dict in memory."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from archive_schema.errors import ConflictError, ErrorKind
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder
from tests.recorder.reading import committed, zarr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS, SAMPLES, TILE = 4, 11, 3
TILES: Final = -(-SAMPLES // TILE)
FIELDS: Final = ("trace/x", "layers/a.b/out")

steps = st.integers(0, STEPS - 1)
ranges = st.integers(0, TILES - 1).flatmap(
    lambda first: st.integers(first + 1, TILES).map(
        lambda last: slice(first * TILE, min(last * TILE, SAMPLES))
    )
)


def values(field: str, step: int, version: int) -> NDArray[np.float32]:
    """Return all samples of a field at a step; another version has other values everywhere."""
    seed = (FIELDS.index(field) * STEPS + step) * 10 + version
    return np.random.default_rng(seed).normal(size=(SAMPLES, 2)).astype(np.float32)


class RecordedRun(RuleBasedStateMachine):
    """A run that is recorded, flushed, left, resumed and sealed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.store = open_store(Path(folder))
        self.rec: TraceRecorder | None = None
        self.lives = ExitStack()
        self.accepted: set[tuple[str, int, int]] = set()
        """Tiles that were recorded and may or may not be committed."""
        self.safe: set[tuple[str, int, int]] = set()
        """Tiles that a flush or a clean end acknowledged."""
        self.reader: RunRecords | None = None
        self.sealed = False

    def teardown(self) -> None:
        """End what is open."""
        self.lives.close()
        self.stack.close()

    @precondition(lambda self: self.rec is None and not self.sealed)
    @rule()
    def open(self) -> None:
        """Open the run, as the first or a later process would."""
        self.rec = TraceRecorder(
            self.store, "r", steps=STEPS, samples=SAMPLES, tile=TILE, seal_at_exit=False,
            commit_interval_s=0.0,
        )  # fmt: skip
        self.lives.enter_context(self.rec)
        self.accepted = self._committed_keys()

    @precondition(lambda self: self.rec is not None)
    @rule(field=st.sampled_from(FIELDS), step=steps, samples=ranges)
    def record(self, field: str, step: int, samples: slice) -> None:
        """Record samples that may be there already."""
        assert self.rec is not None
        self._record(field, step, samples, version=0)
        for tile in range(samples.start // TILE, -(-samples.stop // TILE)):
            self.accepted.add((field, step, tile))

    def _record(self, field: str, step: int, samples: slice, version: int) -> None:
        assert self.rec is not None
        array = values(field, step, version)[samples]
        if field == "trace/x":
            self.rec.record(step, samples=samples, t=step / 10, x=array)
        else:
            self.rec.record(step, samples=samples, layer="a.b", out=array)

    @precondition(lambda self: self.rec is not None)
    @rule()
    def flush(self) -> None:
        """After it, everything accepted is committed."""
        assert self.rec is not None
        self.rec.flush()
        self.safe |= self.accepted

    @precondition(lambda self: self.rec is not None and self.accepted)
    @rule(data=st.data())
    def contradict(self, data: st.DataObject) -> None:
        """Other values of a tile end this recorder, and the first values stay."""
        assert self.rec is not None
        field, step, tile = data.draw(st.sampled_from(sorted(self.accepted)))
        self.rec.flush()
        self.safe |= self.accepted
        samples = slice(tile * TILE, min((tile + 1) * TILE, SAMPLES))
        self._record(field, step, samples, version=1)
        try:
            self._leave()
        except ConflictError as error:
            assert error.kind is ErrorKind.TILE_DIFFERS  # noqa: PT017  no other error may pass
        else:
            raise AssertionError("a contradiction went unnoticed")

    @precondition(lambda self: self.rec is not None)
    @rule()
    def close(self) -> None:
        """Leave the block cleanly."""
        self._leave()
        self.safe |= self.accepted

    @precondition(lambda self: self.rec is not None)
    @rule()
    def crash(self) -> None:
        """Open the run again while the first recorder still lives, as after a `kill -9`."""
        zombie = self.lives.pop_all()
        self.rec = None
        self.open()
        try:
            zombie.close()
        except ConflictError as error:
            assert error.kind is ErrorKind.WRITER_REPLACED  # noqa: PT017
        self.accepted = self._committed_keys()

    @precondition(lambda self: self.rec is not None)
    @rule()
    def seal(self) -> None:
        """Finish the run."""
        assert self.rec is not None
        self.rec.seal()
        self._leave()
        self.safe |= self.accepted
        self.sealed = True

    @rule()
    def read(self) -> None:
        """Look at every committed tile; a reader that looked before sees no fewer."""
        if self.rec is None and not self.accepted and not self.sealed:
            return
        tiles = committed(self.store, "r")
        for (path, step, tile), read in tiles.items():
            expected = values(path, step, 0)[tile * TILE : (tile + 1) * TILE]
            np.testing.assert_array_equal(read, expected)
        assert self.safe <= set(tiles)
        if self.sealed:
            assert set(tiles) == self.accepted
            assert RunRecords(self.store, "r").status() is RunStatus.SEALED
            for path in {path for path, _, _ in tiles}:
                self._check_mask(path)

    def _check_mask(self, path: str) -> None:
        expected = np.zeros((STEPS, SAMPLES), bool)
        for known, step, tile in self.accepted:
            if known == path:
                expected[step, tile * TILE : (tile + 1) * TILE] = True
        group = path.rpartition("/")[0]
        mask = zarr_array(self.store, "r", f"{group}/recorded")
        np.testing.assert_array_equal(mask, expected)

    @invariant()
    def a_live_reader_sees_nothing_vanish(self) -> None:
        """Follow the commits: they only add."""
        if self.rec is None and self.reader is None:
            return
        self.reader = self.reader or RunRecords(self.store, "r")
        before = {p: f.count for p, f in self.reader.ledger.fields.items()}
        self.reader.refresh()
        after = {p: f.count for p, f in self.reader.ledger.fields.items()}
        assert all(after[path] >= count for path, count in before.items())
        assert not self.reader.ledger.conflicts

    def _committed_keys(self) -> set[tuple[str, int, int]]:
        ledger = RunRecords(self.store, "r").ledger
        return {
            (path, step, tile)
            for path, field in ledger.fields.items()
            for step in field.steps
            for tile in range(field.tiles)
            if field.has(step, tile)
        }

    def _leave(self) -> None:
        self.rec = None
        lives: Any = self.lives.pop_all()
        lives.close()


TestRecordedRun = RecordedRun.TestCase
TestRecordedRun.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
