"""Reading from S3: SeaweedFS on this machine, and the same behind a proxy that takes 20 ms longer.

The limit is obstore getting the very same bytes: one range for a slice (8 of 100 samples of one
step, 16 kB), one range a step for a sample through all steps, and all objects of a run for a
file. Our caches are off; the proxy counts the requests. Values are compared before timing.
"""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import numpy as np
import obstore
from obstore.store import S3Store

from archive_schema.store import StoreOptions, open_store
from benchmarks.findings import Beside, Findings, row_named
from benchmarks.measure import compare
from benchmarks.s3 import far_away, s3_server
from benchmarks.servers import archive_server, started
from benchmarks.traces import QUICK, SAMPLES, STEPS, record, trace
from server.exporters import export
from server.query import Archive
from tests.ports import unused_port
from tests.s3_server import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from benchmarks.measure import Row
    from server.query import RunView

PREFIX: Final = "bench"
URL: Final = f"s3://{BUCKET}/{PREFIX}"
NAME: Final = "score_matrix"
FIELDS: Final = ("sequence", "score_matrix", "prob_matrix")
OURS: Final = "trace-archive"
GET: Final = "one range GET"
GETS: Final = "64 GETs in flight"
ROUTE: Final = "bare Starlette route that awaits the GET"
DELAY_S: Final = 0.02
IN_FLIGHT: Final = (4, 16, 64) if QUICK else (2, 4, 8, 16, 32, 64, 128)
FLOOR: Final = """
import sys
import obstore
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

sys.path.insert(0, sys.argv[1])
from benchmarks.bench_s3_read import bucket

store = bucket(sys.argv[2])

async def ready(request):
    return Response()

async def range_(request):
    key, stop = request.path_params["key"], int(request.path_params["stop"])
    data = await obstore.get_range_async(store, key, start=0, end=stop)
    return Response(bytes(data), media_type="application/octet-stream")

app = Starlette(routes=[Route("/", ready), Route("/{stop}/{key:path}", range_)])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), log_level="warning", access_log=False)
"""


@dataclass(frozen=True)
class Place:
    """Where the run is read from, and how often."""

    name: str
    endpoint: str
    rounds: int
    calls: int

    @cached_property
    def bucket(self) -> S3Store:
        """The bucket as obstore has it."""
        return bucket(self.endpoint)

    @contextmanager
    def run(self, in_flight: int | None = None) -> Iterator[RunView]:
        """Open the run as our server does, with nothing kept in memory."""
        store = open_store(URL, StoreOptions(endpoint_url=self.endpoint))
        with Archive(store, cache_bytes=0, reads_in_flight=in_flight) as archive:
            yield archive.run("r")


def bucket(endpoint: str) -> S3Store:
    """Return the bucket of the server at *endpoint*, with nothing around it."""
    return S3Store(
        BUCKET,
        prefix=PREFIX,
        endpoint=endpoint,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        client_options={"allow_http": True},
    )


def report() -> Findings:
    """Return what slices, samples through all steps and whole files cost on S3."""
    found = Findings()
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder) / "s3") as endpoint:
        record(URL)
        with far_away(endpoint, DELAY_S) as (far, requests):
            places = (
                Place("S3", endpoint, 11 if QUICK else 41, 20),
                Place("S3 + 20 ms", far, 5 if QUICK else 11, 5),
            )
            with places[1].run() as run:
                before = requests()
                for step in range(STEPS):
                    expected = trace().score_matrix[step, :8]
                    np.testing.assert_array_equal(_eight(run, step), expected)
                found.number(
                    "s3.requests",
                    (requests() - before) / STEPS,
                    remark="Beside it, two requests a second confirm that a sealed run is there.",
                )
            slices: dict[str, Row] = {}
            for place in places:
                with place.run() as run:
                    slices[place.name] = _slices(found, place, run)
                    _over_http(found, place, run, Path(folder))
                    _files(found, place, run)
            _through_all_steps(found, places)
    ours, away = slices.values()
    found.number(
        "s3.time",
        [wall for _, wall in ours.ratios],
        limit=Beside(GET, 1 / ours.wall_ratio),
        remark=f"Wall time on this machine, where a GET takes less than a millisecond;"
        f" {away.wall_ratio:.2f} where it takes 20 more.",
    )
    return found


def _eight(run: RunView, step: int) -> NDArray[np.float16]:
    """Plan a slice anew, as for a request, of a run that is known."""
    return run.field(NAME).select({"step": step, "sample": slice(0, 8)}).array()


def _ranges(run: RunView, samples: int) -> list[tuple[str, int]]:
    """Return the key of each step's tile, and where the blocks of the first samples end."""
    field = run.field(NAME)
    last = (samples - 1) // field.spec.block[0]
    entries = [(step, field.ledger.tile(step)) for step in range(STEPS)]
    return [(field.tile_key(step, 0), one.ends[last]) for step, one in entries if one is not None]


def _slices(found: Findings, place: Place, run: RunView) -> Row:
    ranges, steps = cycle(_ranges(run, 8)), cycle(range(STEPS))

    def get() -> object:
        key, stop = next(ranges)
        return obstore.get_range(place.bucket, key, start=0, end=stop)

    ways: dict[str, Callable[[], object]] = {GET: get, OURS: lambda: _eight(run, next(steps))}
    rows = compare(ways, reference=GET, rounds=place.rounds, calls=place.calls)
    found.table(f"8 of {SAMPLES} samples of one step, in process, {place.name}", rows, GET)
    return row_named(rows, OURS)


def _over_http(found: Findings, place: Place, run: RunView, folder: Path) -> None:
    script, port = folder / "floor.py", unused_port()
    script.write_text(FLOOR)
    root = str(Path(__file__).parent.parent)
    settings = {
        "TRACE_ARCHIVE_STORE_ENDPOINT_URL": place.endpoint,
        "TRACE_ARCHIVE_CACHE_BYTES": "0",
        "TRACE_ARCHIVE_RECENT_BYTES": "0",
    }
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, settings))
        command = [sys.executable, str(script), root, place.endpoint, str(port)]
        floor = _Client(stack.enter_context(started(command, port)).url)
        ours = _Client(stack.enter_context(archive_server(URL)).url)
        ranges, steps = cycle(_ranges(run, 8)), cycle(range(STEPS))

        def bare() -> bytes:
            key, stop = next(ranges)
            return floor.get(f"/{stop}/{key}")

        def slice_() -> bytes:
            return ours.get(f"/runs/r/steps/{next(steps)}/{NAME}?samples=0:8&format=raw")

        ways: dict[str, Callable[[], object]] = {ROUTE: bare, OURS: slice_}
        rows = compare(ways, reference=ROUTE, rounds=place.rounds, calls=place.calls)
    found.table(f"The same over HTTP, one connection, {place.name}; the client's CPU", rows, ROUTE)


class _Client:
    """One connection that is kept."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"))

    def get(self, path: str) -> bytes:
        """Return the body of an answer."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"GET {path} was answered {answer.status}: {body[:500]!r}")
        return body


def _files(found: Findings, place: Place, run: RunView) -> None:
    keys = [run.field(name).tile_key(step, 0) for name in FIELDS for step in range(STEPS)]
    with ThreadPoolExecutor(64) as pool:

        def get() -> object:
            return sum(pool.map(lambda key: len(obstore.get(place.bucket, key).bytes()), keys))

        ways: dict[str, Callable[[], object]] = {
            GETS: get,
            "our .h5": lambda: _drained(run, "h5"),
            "our .npz": lambda: _drained(run, "npz"),
        }
        rows = compare(ways, reference=GETS, rounds=3)
    mb = sum(values.nbytes for values in trace().step(0).values()) * STEPS / 1e6
    title = f"Whole run of {mb:.0f} MB as a file, {len(keys)} objects, {place.name}"
    found.table(title, rows, GETS)


def _drained(run: RunView, format_name: str) -> int:
    file = export(run, format_name).file
    nbytes = sum(len(part) for part in file.read())
    assert nbytes == file.size
    return nbytes


def _through_all_steps(found: Findings, places: tuple[Place, ...]) -> None:
    series: dict[str, list[tuple[float, float]]] = {}
    for place in places:
        for count in IN_FLIGHT:
            with place.run(count) as run, ThreadPoolExecutor(count) as pool:
                ranges = _ranges(run, 1)

                def get(
                    place: Place = place,
                    pool: ThreadPoolExecutor = pool,
                    ranges: list[tuple[str, int]] = ranges,
                ) -> object:
                    def one(at: tuple[str, int]) -> object:
                        return obstore.get_range(place.bucket, at[0], start=0, end=at[1])

                    return list(pool.map(one, ranges))

                def ours(run: RunView = run) -> object:
                    return run.field(NAME).select({"sample": 0}).array()

                np.testing.assert_array_equal(ours(), trace().score_matrix[:, 0])
                rows = compare({GET: get, OURS: ours}, reference=GET, rounds=3)
            for way in (GET, OURS):
                point = (count, row_named(rows, way).wall_s * 1e3)
                series.setdefault(f"{way}, {place.name}", []).append(point)
    title = f"One sample through all {STEPS} steps, by ranges in flight"
    found.curve(title, "ranges in flight", "ms", series)
