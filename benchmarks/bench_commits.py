"""Recording one step: 8 tiles of 256 KiB, and the commit that makes them visible.

Ways: bare puts of the same bytes (8, then a small one), what a recorder does in the background
(create the tiles, then the commit; encoded before the clock starts), a recorder from `record` to
the end of `flush`, and zarr-python writing the same 8 chunks, then a small object. On a folder, as
the kernel likes and flushed to the device; on S3 (SeaweedFS), directly and through a proxy that
holds each request for 20 ms and counts it.

The values are noise: compression gains nothing, so that all ways put the same bytes. What was
put is read back and compared.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import obstore
import zarr
from obstore.store import S3Store
from zarr.storage import LocalStore as ZarrFolder
from zarr.storage import ObjectStore as ZarrBucket

from archive_schema.models import Place
from archive_schema.records import RunRecords
from archive_schema.store import LocalStore, StoreOptions, open_store
from benchmarks.findings import Findings
from benchmarks.measure import compare
from benchmarks.s3 import far_away, s3_server
from benchmarks.traces import QUICK
from recorder import TraceRecorder
from recorder.encoder import AcceptedTile
from recorder.opened import OpenedRun
from recorder.opening import manifest_of
from recorder.patience import PatientStore
from recorder.snapshot import HostSnapshot
from tests.s3_server import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from zarr.abc.store import Store as ZarrStore

    from archive_schema.store import Store
    from recorder.encoder import StoredTile

TILES: Final = 8
TILE_SAMPLES: Final = 8
TAIL: Final = (512, 64)
"""Bytes of a sample: 256 KiB a tile."""
SAMPLES: Final = TILES * TILE_SAMPLES
ROUNDS: Final = 5 if QUICK else 51
COUNTED: Final = 3
STEPS: Final = 2 + ROUNDS + COUNTED
"""Step 0 declares, one warms up, and some are only counted."""
WORKERS: Final = 16
"""Threads that put on S3, as many as a recorder has. On a folder one does it all."""
DELAY_S: Final = 0.02
SMALL: Final = bytes(2000)
"""About as long as a commit of these tiles."""
BARE: Final = "bare puts"
FIELD: Final = (Place.TRACE, None, "x")
RUN: Final = "r"
DECLARED: Final[dict[str, Any]] = {"system": "generic", "steps": STEPS, "samples": SAMPLES}

if TYPE_CHECKING:
    Durability = Literal["process", "disk"]
    Call = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A place to store steps in, as each of the libraries sees it."""

    open: Callable[[str], Store]
    """Open the part of it with this name as an archive."""
    put: Callable[[str, bytes], object]
    """Store bytes with nothing around it."""
    sync: Callable[[list[str]], None]
    """Flush what was put to the device, if the target is one where that is wanted."""
    get: Callable[[str], bytes]
    zarr: ZarrStore
    durability: Durability
    spool: Path | None
    """Where a recorder would let tiles wait."""
    each: Callable[[Call, Iterable[Any]], Iterable[Any]]
    """Do something with each of several things, at once or in turn."""


class Way(Protocol):
    """One way to store a step after another, from step 1."""

    def __call__(self) -> object:
        """Store the next step."""

    def check(self) -> None:
        """Read back every step that was stored, and compare."""


class Bare:
    """Objects put one by one with nothing around it, and a small one last."""

    def __init__(self, target: Target, name: str, tiles: int = TILES) -> None:
        self._target, self._name, self._tiles = target, name, tiles
        self._steps = count(1)
        self._stored: list[int] = []

    def __call__(self) -> None:
        """Store the next step."""
        step = next(self._steps)
        names = [f"{self._name}/{step}-{tile}" for tile in range(self._tiles)]
        parts = zip(names, tile_bytes(step), strict=False)
        list(self._target.each(lambda part: self._target.put(*part), parts))
        self._target.sync(names)
        self._target.put(f"{self._name}/{step}", SMALL)
        self._target.sync([f"{self._name}/{step}"])
        self._stored.append(step)

    def check(self) -> None:
        """Read back every object."""
        for step in self._stored:
            for tile, data in enumerate(tile_bytes(step)[: self._tiles]):
                assert self._target.get(f"{self._name}/{step}-{tile}") == data


class Zarr:
    """Chunks written by zarr-python, as many at once as it likes, and a small object last."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._array = zarr.create_array(
            target.zarr,
            name="zarr",
            shape=(STEPS, SAMPLES, *TAIL),
            chunks=(1, TILE_SAMPLES, *TAIL),
            dtype="uint8",
            compressors=None,
        )
        self._steps = count(1)
        self._stored: list[int] = []

    def __call__(self) -> None:
        """Store the next step."""
        step = next(self._steps)
        self._array[step] = values(step)
        self._target.put(f"zarr-{step}", SMALL)
        self._stored.append(step)

    def check(self) -> None:
        """Read back every step."""
        check_array(self._array, self._stored)


class TilesAndCommit:
    """What a recorder does in the background: create the tiles, then the commit."""

    def __init__(self, target: Target, name: str, *, put_tiles: bool = True) -> None:
        self._target, self._name, self._put_tiles = target, name, put_tiles
        store = target.open(name)
        with TraceRecorder(store, RUN, tile=TILE_SAMPLES, seal_at_exit=False, **DECLARED) as rec:
            rec.record(0, x=values(0))
        if not isinstance(store, LocalStore):
            store = PatientStore(store, 60.0)
        manifest = manifest_of(RUN, metadata={}, tags=(), **DECLARED)
        durable = target.durability == "disk"
        self._run = OpenedRun(store, manifest, writer="main", durable=durable, resume=True)
        self._encoded = iter([self._encode(step) for step in range(1, STEPS)])
        self._steps = count(1)
        self._stored = [0]

    def __call__(self) -> None:
        """Store the next step."""
        tiles = next(self._encoded)
        if self._put_tiles:
            list(self._target.each(lambda tile: self._run.encoder.put(*tile), tiles))
        stored = [tile for tile, _ in tiles]
        committer = self._run.committer
        committer.put(committer.next(stored), stored if self._put_tiles else ())
        self._run.encoder.committed(stored)
        self._stored.append(next(self._steps))

    def check(self) -> None:
        """Read back every step that has its tiles, and every tile that was only committed."""
        if self._put_tiles:
            check_archive(self._target, self._name, self._stored)
            return
        ledger = RunRecords(self._target.open(self._name), RUN).ledger
        (field,) = ledger.fields.values()
        for step in self._stored:
            assert all(field.tile(step, tile) for tile in range(TILES))

    def _encode(self, step: int) -> list[tuple[StoredTile, bytes]]:
        field = self._run.fields.get(FIELD)
        assert field is not None
        encoded = []
        for tile in range(TILES):
            start, stop = tile * TILE_SAMPLES, (tile + 1) * TILE_SAMPLES
            snapshot = HostSnapshot(values(step)[start:stop])
            result = self._run.encoder.encode(
                AcceptedTile(field, step, tile, start, stop, snapshot, cost=0)
            )
            assert result is not None
            encoded.append(result)
        return encoded


class Recorder:
    """A whole recorder, from the call until the step is acknowledged."""

    def __init__(self, target: Target, name: str) -> None:
        self._target, self._name = target, name
        self._recorder = TraceRecorder(
            target.open(name),
            RUN,
            tile=TILE_SAMPLES,
            durability=target.durability,
            spool=target.spool,
            commit_interval_s=60,  # one commit a step, by `flush`
            seal_at_exit=False,
            **DECLARED,
        )
        self._recorder.__enter__()
        self._steps = count()
        self._stored: list[int] = []
        self()

    def __call__(self) -> None:
        """Store the next step."""
        step = next(self._steps)
        self._recorder.record(step, x=values(step))
        self._recorder.flush()
        self._stored.append(step)

    def check(self) -> None:
        """Read back every step."""
        self._recorder.close()
        check_archive(self._target, self._name, self._stored)


def report() -> Findings:
    """Return a table for each kind of target."""
    found = Findings()
    found.text("A step is 8 tiles of 256 KiB.\n")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(WORKERS) as pool:
        root = Path(name)
        ways = _ways(_folder(root / "kept", "process"))
        ways |= _ways(_folder(root / "flushed", "disk"), ", flushed")
        _measure(found, "A folder, and a folder flushed to the device", ways)
        with s3_server(root / "s3") as endpoint:
            _measure(found, "S3", _ways(_bucket(endpoint, "near", root / "spool", pool)))
            with far_away(endpoint, DELAY_S) as (far, requests):
                ways = _ways(_bucket(far, "far", root / "spool", pool))
                _measure(found, "S3, each request held for 20 ms", ways, requests)
    return found


def _ways(target: Target, named: str = "") -> dict[str, Way]:
    """Return every way to store steps in *target*."""
    ways: dict[str, Way] = {
        BARE: Bare(target, "bare"),
        "tiles and commit": TilesAndCommit(target, "own"),
        "recorder": Recorder(target, "recorder"),
        "one small put": Bare(target, "small", tiles=0),
        "commit alone": TilesAndCommit(target, "alone", put_tiles=False),
    }
    if target.durability == "process":  # it cannot flush
        ways["zarr-python"] = Zarr(target)
    return {f"{name}{named}": way for name, way in ways.items()}


def _measure(
    found: Findings,
    title: str,
    ways: Mapping[str, Way],
    requests: Callable[[], int] | None = None,
) -> None:
    """Measure, check what was stored, and add the table."""
    rows = compare(ways, reference=BARE, rounds=ROUNDS)
    counted = [] if requests is None else [_requests(way, requests) for way in ways.values()]
    for way in ways.values():
        way.check()
    found.table(title, rows, BARE)
    if counted:
        taken = (f"{row.name} {count}" for row, count in zip(rows, counted, strict=True))
        found.text(f"Requests a step: {', '.join(taken)}.\n")


def _requests(way: Way, requests: Callable[[], int]) -> int:
    """Return how many requests a step takes; a heartbeat may come in between."""
    taken = []
    for _ in range(COUNTED):
        before = requests()
        way()
        taken.append(requests() - before)
    return statistics.median_low(taken)


def _folder(root: Path, durability: Durability) -> Target:
    for part in ("bare", "small"):
        (root / part).mkdir(parents=True)
    flushed = LocalStore(root)
    return Target(
        open=lambda name: open_store(root / name),
        put=lambda name, data: (root / name).write_bytes(data),
        sync=flushed.sync if durability == "disk" else lambda _: None,
        get=lambda name: (root / name).read_bytes(),
        zarr=ZarrFolder(root),
        durability=durability,
        spool=None,
        each=map,
    )


def _bucket(endpoint: str, prefix: str, spool: Path, pool: ThreadPoolExecutor) -> Target:
    store = S3Store(
        BUCKET,
        prefix=prefix,
        endpoint=endpoint,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        client_options={"allow_http": True},
    )
    options = StoreOptions(endpoint_url=endpoint)
    return Target(
        open=lambda name: open_store(f"s3://{BUCKET}/{prefix}/{name}", options),
        put=lambda name, data: obstore.put(store, name, data, use_multipart=False),
        sync=lambda _: None,
        get=lambda name: bytes(obstore.get(store, name).bytes()),
        zarr=ZarrBucket(store),
        durability="process",
        spool=spool,
        each=pool.map,
    )


@cache
def _noise() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(256, size=(4, SAMPLES, *TAIL), dtype=np.uint8)


def values(step: int) -> NDArray[np.uint8]:
    """Return what is stored at a step; steps differ."""
    kind: NDArray[np.uint8] = _noise()[step % 4]
    return kind


@cache
def _tile_bytes(kind: int) -> list[bytes]:
    return [part.tobytes() for part in np.split(_noise()[kind], TILES)]


def tile_bytes(step: int) -> list[bytes]:
    """Return the bytes of the tiles of a step."""
    return _tile_bytes(step % 4)


def check_array(array: Any, steps: list[int]) -> None:
    """Compare every step of a Zarr array with what was stored."""
    for step in steps:
        np.testing.assert_array_equal(array[step], values(step))


def check_archive(target: Target, name: str, steps: list[int]) -> None:
    """Compare every step of a run with what was recorded, read as plain Zarr."""
    path = f"{name}/runs/{RUN}/trace.zarr/trace/x"
    check_array(zarr.open_array(target.zarr, path=path, mode="r"), steps)
