"""One run under faults: who records it, who reads it, and what must hold when it is over."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from archive_schema.errors import NotFoundError
from archive_schema.layout import run_prefix
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder
from recorder.maintenance import verify_run
from tests.faults.sampler import Order
from tests.faults.truth import FIELDS, LAYER, SAMPLES, STEPS, TILE, Tile, tiles, truth
from tests.faults.watch import InProcess, OverHttp, Reader
from tests.faults.world import PROGRAM, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from archive_schema.store import Store
    from tests.faults.proxy import Fault, FaultProxy
    from tests.faults.watch import Seen, Source
    from tests.faults.world import World

_SAMPLER: Final = str(ROOT / "tests/faults/sampler.py")
_STATUS_BELIEVED_S: Final = 1.2
"""A little more than the time for which the service believes a status it found."""
_PATIENCE_S: Final = 200.0
"""After this a process that should have said or ended something is taken to hang."""


_T = TypeVar("_T")


class Ending(NamedTuple):
    """How a sampler ended."""

    kind: str
    """Of the error it was told; empty if it came to its end."""
    message: str


class Sampler:
    """A sampler process."""

    def __init__(self, order: Order, environment: Mapping[str, str], log: Path) -> None:
        self.order = order
        self._log = log
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, _SAMPLER, order.text()],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._last = ""

    def await_word(self, word: str) -> bool:
        """Return once the sampler said *word*; False if it ended before."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last = line.strip()
            if self._last == word:
                return True
        return False

    def begin(self) -> None:
        """Let it record, if it waits for that."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def await_acknowledged(self, steps: int) -> None:
        """Return once it noted so many steps as safe, or ended."""
        self._await(self.acknowledged, steps)

    def await_spooled(self, steps: int) -> None:
        """Return once it noted so many steps as safe in the spool, or ended."""
        self._await(self.spooled, steps)

    def acknowledged(self) -> set[Tile]:
        """Return the tiles that it noted as safe."""
        return _noted(self.order.acknowledged)

    def spooled(self) -> set[Tile]:
        """Return the tiles that it noted as safe in the spool."""
        return _noted(self.order.spooled)

    def _await(self, noted: Callable[[], set[Tile]], steps: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while len({tile[1:] for tile in noted()}) < steps and self._process.poll() is None:
            assert time.monotonic() < deadline, f"{steps} steps were not safe in time"
            time.sleep(0.002)

    def kill(self) -> bool:
        """End it at once, as ``kill -9`` does; return whether it was still there."""
        self._process.kill()
        killed = self._process.wait() == -signal.SIGKILL
        self._close()
        return killed

    def stop(self) -> None:
        """Let it stand still, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> Ending:
        """Let it come to its end, and wait for that.

        Raises
        ------
        AssertionError
            If it failed otherwise than by an error of the archive.
        """
        try:
            out, _ = self._process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the sampler hangs: {self.order}") from None
        last = (out.strip().splitlines() or [self._last])[-1]
        if self._process.returncode == 0:
            return Ending("", "")
        assert last.startswith("{"), self._log.read_text()[-3000:]
        return Ending(**json.loads(last))

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def _noted(path: str) -> set[Tile]:
    """Return the tiles that a sampler noted in a file."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        return set()
    # The last line may be one that is being written.
    lines = [line.split() for line in text.split("\n")[:-1]]
    return {Tile(name, int(step), int(start)) for name, step, start in lines}


@dataclass(slots=True)
class Outcome:
    """What became of a scene."""

    scenario: str
    store: str
    seed: int
    faults: int = 0
    """Kills, restarts, disturbed requests, changed objects: what was done to it."""
    safe: int = 0
    """Tiles that some sampler was told to be safe: acknowledged, or kept in a spool."""
    lost: list[str] = field(default_factory=list)
    """Such tiles that were not read back equal."""
    reads: int = 0
    """Tiles that readers held to the truth, while it went on and after."""
    wrong: list[str] = field(default_factory=list)
    """Reads that were neither the truth, nor "not recorded", nor an honest error."""
    refused: Counter[str] = field(default_factory=Counter)
    """Honest errors that readers met, by kind."""
    incomplete: list[str] = field(default_factory=list)
    """What is not as it is in a run that nothing disturbed, after the run was completed."""

    @property
    def flawless(self) -> bool:
        """Whether everything held."""
        return not (self.lost or self.wrong or self.incomplete)


class Scene:
    """One run in a world, with its samplers and readers, while it is entered.

    Parameters
    ----------
    honest : set of str
        Kinds of errors that readers may meet.
    versions : int
        How many samplers there are that have values of their own.
    """

    def __init__(
        self, world: World, name: str, seed: int, *, honest: set[str], versions: int = 1
    ) -> None:
        self.world = world
        self.run = f"{name}-{seed}-{time.monotonic_ns()}"
        self.chance = random.Random(seed)
        self.outcome = Outcome(name, world.kind, seed)
        self._versions = versions
        self._samplers: list[Sampler] = []
        self._faults: list[Fault] = []
        sources: tuple[Source, ...] = (
            InProcess(world.archive, self.run),
            OverHttp(world.client, self.run),
        )
        self._readers = [
            Reader(source, seed + number, honest, versions) for number, source in enumerate(sources)
        ]
        self._stack = ExitStack()
        self._kept = ExitStack()

    def __enter__(self) -> Self:
        for reader in self._readers:
            self._stack.enter_context(reader)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        for sampler in self._samplers:
            sampler.kill()
        self._stack.close()
        self._kept.close()

    @property
    def prefix(self) -> str:
        """Return the prefix of the run's keys."""
        return run_prefix(self.run)

    @property
    def spool(self) -> Path:
        """Return the folder in which samplers keep what the store does not take."""
        return self.world.folder / f"{self.run}.spool"

    def sampler(
        self,
        *,
        version: int = 0,
        samples: tuple[int, int] = (0, SAMPLES),
        pace_s: float = 0.004,
        flush_every: int = 3,
        meets: bool = False,
        waits: bool = False,
        **options: Any,
    ) -> Sampler:
        """Start a sampler, which reaches the store by a way that can be disturbed.

        Parameters
        ----------
        version, samples, pace_s, flush_every, meets, waits
            As in `Order`.
        options
            More arguments of its `TraceRecorder`.
        """
        order = Order(
            store=self.world.recorder_url,
            run=self.run,
            acknowledged=str(self.world.folder / f"{self.run}-{version}.acknowledged"),
            spooled=str(self.world.folder / f"{self.run}-{version}.spooled"),
            samples=samples,
            version=version,
            pace_s=pace_s,
            flush_every=flush_every,
            meets=meets,
            waits=waits,
            options=options,
        )
        variables = {
            **self.world.environment(self.world.for_recorders),
            **self.world.recorder_clock.environment,
            "TRACE_ARCHIVE_SPOOL": str(self.spool),
        }
        sampler = Sampler(order, variables, self.world.folder / "samplers.log")
        self._samplers.append(sampler)
        return sampler

    def keep(self, resource: AbstractContextManager[_T]) -> _T:
        """Enter what must last until everything about the run was looked at."""
        return self._kept.enter_context(resource)

    def disturb(self, way: FaultProxy | None, fault: Fault) -> Fault:
        """Let requests on *way* fail from now on."""
        assert way is not None, "a folder has no way that could be disturbed"
        self._faults.append(fault)
        return way.add(fault)

    def drain(self) -> None:
        """Have a process bring what is in the spool into the store, and look whether it did."""
        variables = self.world.environment(self.world.for_recorders)
        command = [PROGRAM, "drain", str(self.spool)]
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
        if done.returncode:
            self.outcome.incomplete.append(f"not drained: {done.stdout}{done.stderr}")
        self._check_safe(Sampler.spooled, "safe in the spool")

    def expect_refused(self, expected: dict[Tile, str]) -> None:
        """Note it if any reader cannot read others than these tiles, or for another reason."""
        for reader in self._readers:
            found = reader.refused()
            if found != expected:
                self.outcome.wrong.append(f"expected {expected} to be refused, found {found}")

    def restore(self) -> None:
        """Let everything pass again."""
        for way in self.world.ways:
            way.clear()

    def expect(self, ending: Ending, *kinds: str) -> None:
        """Note it if a sampler did not end by an error of these kinds; an empty one is none."""
        if ending.kind not in kinds:
            self.outcome.incomplete.append(f"expected {kinds}, a sampler ended with {ending}")

    def expect_status(self, *statuses: str) -> None:
        """Note it if the service gives the run another status, asked for a while."""
        end = time.monotonic() + _STATUS_BELIEVED_S
        while time.monotonic() < end:
            answer = self.world.client.get(f"/runs/{self.run}").json()
            if answer["status"] not in statuses:
                self.outcome.wrong.append(f"the service says that the run is {answer['status']}")
            time.sleep(0.1)

    def await_committed(self, field: str) -> None:
        """Return once a tile of *field* is committed."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self._commits(field):
            assert time.monotonic() < deadline, f"no tile of {field} was committed"
            time.sleep(0.01)

    def _commits(self, field: str) -> bool:
        try:
            return field in RunRecords(self.world.store, self.run).ledger.fields
        except NotFoundError:
            return False

    def await_refusal(self, kind: str) -> None:
        """Return once every reader met an error of this kind."""
        deadline = time.monotonic() + _PATIENCE_S
        while not all(reader.seen.refused[kind] for reader in self._readers):
            assert time.monotonic() < deadline, f"readers met no {kind}"
            time.sleep(0.01)

    def pause(self, longest_s: float) -> None:
        """Let a random time pass: the moment is what is tried."""
        time.sleep(self.chance.uniform(0, longest_s))

    def finish(self) -> Outcome:
        """End all disturbance, complete the run, and hold it to the truth."""
        self.restore()
        for clock in (self.world.recorder_clock, self.world.service_clock):
            clock.set(0.0)
        self._stack.close()
        self.outcome.faults += sum(fault.hits for fault in self._faults)
        self._check_safe(Sampler.acknowledged, "acknowledged")
        self._complete()
        self._check_completed()
        for reader in self._readers:
            self._add(reader.seen)
        return self.outcome

    def _check_safe(self, noted: Callable[[Sampler], set[Tile]], how: str) -> None:
        """Note what samplers were told to be safe and is not, or not as they had it."""
        with self.world.open_archive() as archive:
            reader = Reader(InProcess(archive, self.run), 0, set(), self._versions)
            reader.look_at_all()
        self._add(reader.seen)
        safe = {
            (tile, sampler.order.version) for sampler in self._samplers for tile in noted(sampler)
        }
        self.outcome.safe += len(safe)
        for tile, version in safe:
            if reader.version(tile) != version:
                self.outcome.lost.append(f"{tile} of sampler {version} was {how}")

    def _complete(self) -> None:
        """Start each recorder again, until the run is sealed; with the values of the first.

        Twice at most: what a spool kept and the run does not take, because it has other values,
        is told before the run is sealed.
        """
        version = self._samplers[0].order.version
        names = [sampler.order.options.get("writer", "main") for sampler in self._samplers]
        for writer in (*dict.fromkeys(names), *dict.fromkeys(names)):
            if RunRecords(self.world.store, self.run).seal is None:
                # Whoever opens a run of which the sealing was cut short seals it.
                self.expect(
                    self.sampler(writer=writer, version=version, pace_s=0.0).end(), "", "run-sealed"
                )

    def _check_completed(self) -> None:
        store, problems = self.world.store, self.outcome.incomplete
        status = RunRecords(store, self.run).status()
        if status is not RunStatus.SEALED:
            problems.append(f"the run is {status}, not sealed")
        problems += [
            f"verify: {one.finding} {one.key}: {one.detail}"
            for one in verify_run(store, self.run).found
            if not one.finding.harmless
        ]
        for reader in self._readers:
            missing = set(tiles()) - reader.look_at_all()
            problems += [f"{tile} is not recorded" for tile in sorted(missing)]
        if self._versions == 1:
            problems += _differences(hierarchy(store, self.run), _undisturbed())

    def _add(self, seen: Seen) -> None:
        self.outcome.reads += seen.reads
        self.outcome.wrong += seen.wrong
        self.outcome.refused += seen.refused


def hierarchy(store: Store, run: str) -> dict[str, Any]:
    """Return every object of a run's Zarr hierarchy, but for what names the run.

    Documents are parsed: the order of fields in them is that of their declaration.
    """
    prefix = f"{run_prefix(run)}/trace.zarr/"
    objects: dict[str, Any] = {}
    for found in store.objects(prefix.rstrip("/")):
        data, name = store.read(found.key), found.key.removeprefix(prefix)
        objects[name] = json.loads(data) if name.endswith("zarr.json") else data
    objects["zarr.json"].pop("attributes")
    return objects


@cache
def _undisturbed() -> dict[str, Any]:
    """Return the hierarchy of a run to which nothing happened."""
    store = open_store("memory://undisturbed")
    with TraceRecorder(store, "undisturbed", steps=STEPS, samples=SAMPLES) as rec:
        for start in range(0, SAMPLES, TILE):
            samples = slice(start, start + TILE)
            for step in range(STEPS):
                x, tokens, out = (truth(name, step)[samples] for name in FIELDS)
                rec.record(step, samples=samples, t=step / STEPS, x=x, tokens=tokens)
                rec.record(step, samples=samples, layer=LAYER, out=out)
    return hierarchy(store, "undisturbed")


def _differences(got: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [
        f"{key} is not as in a run that nothing disturbed"
        for key in sorted(expected.keys() | got.keys())
        if got.get(key) != expected.get(key)
    ]
