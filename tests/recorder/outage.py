"""A store that can be away, and what a run recorded meanwhile must hold in the end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, StorageError
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from tests.recorder.reading import committed, zarr_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from archive_schema.store import Store
    from recorder import TraceRecorder

STEPS: Final = 30
SAMPLES: Final = 20
NOISE: Final = np.random.default_rng(8).integers(0, 2**32, (STEPS, SAMPLES, 50), np.uint32)
"""4 kB a step that no codec makes smaller."""
LATE: Final = 12
"""The step at which a layer is recorded for the first time."""


TILES: Final = 2 * STEPS + 2 * (STEPS - LATE)
"""Of the whole run: each step's samples are two tiles."""


class Valve:
    """A real store behind a door that can be shut."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self._store = store
        self._cause: StorageError | None = None
        self._lock = threading.Lock()

    def shut(self, kind: ErrorKind, error: type[StorageError] = StorageError) -> None:
        """Let every operation fail so."""
        self._cause = error(kind, "nobody answers")

    def open(self) -> None:
        """Let every operation through."""
        self._cause = None

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        def passed(*arguments: Any) -> Any:
            if self._cause is not None:
                raise type(self._cause)(self._cause.kind, str(self._cause))
            return operation(*arguments)

        return passed


def declaration() -> dict[str, Any]:
    """Return what the run declares."""
    return {"steps": STEPS, "samples": SAMPLES}


def record(rec: TraceRecorder, n: int) -> None:
    """Record one step: two tiles of noise, a coordinate, and later a layer."""
    for start in (0, 10):
        rec.record(n, samples=slice(start, start + 10), noise=NOISE[n, start : start + 10])
    rec.record(n, t=n / 4)
    if n >= LATE:
        rec.record(n, layer="blocks.1", out=NOISE[n].astype(np.float32))
    if n == LATE:
        rec.sample_coordinates(label=np.arange(SAMPLES) % 3)


def await_that(holds: Callable[[], object], what: str) -> None:
    """Return once *holds*, which something in the background brings about."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


def flush_at_last(rec: TraceRecorder) -> None:
    """Flush, however often the machine was too busy to get anything done within the deadline."""
    while True:
        try:
            rec.flush()
        except StorageError as error:
            if error.kind is not ErrorKind.SPOOLED:
                raise
        else:
            return


def assert_complete(store: Store, run: str = "r") -> None:
    """Check that the run is sealed and holds everything that `record` recorded."""
    records = RunRecords(store, run)
    assert records.status() is RunStatus.SEALED
    assert not records.ledger.conflicts
    assert len(committed(store, run)) == TILES
    np.testing.assert_array_equal(zarr_array(store, run, "trace/noise"), NOISE)
    np.testing.assert_array_equal(zarr_array(store, run, "trace/t"), np.arange(STEPS) / 4)
    np.testing.assert_array_equal(zarr_array(store, run, "trace/label"), np.arange(SAMPLES) % 3)
    out = zarr_array(store, run, "layers/blocks.1/out")
    np.testing.assert_array_equal(out[LATE:], NOISE[LATE:].astype(np.float32))
