"""Takes over a tree of files, once or for as long as another program writes it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from archive_schema.errors import ConflictError, ErrorKind, NotFoundError
from archive_schema.records import RunRecords
from recorder.importers.comparison import Comparison
from recorder.importers.report import ImportReport
from recorder.recorder import TraceRecorder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic import JsonValue

    from archive_schema.store import Store
    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.source import Findings, Progress, Sink


class TreeSource(Protocol):
    """A tree of files, understood as a run that may still grow."""

    @property
    def metadata(self) -> Mapping[str, JsonValue]:
        """The run's metadata, the same at every look."""

    @property
    def steps(self) -> Collection[int]:
        """Steps that are in the tree now."""

    @property
    def samples(self) -> int:
        """Length of the sample axis, as far as it is known."""

    @property
    def files(self) -> int:
        """Files that were taken over, or were there already."""

    @property
    def ended(self) -> bool:
        """Whether the files say that no more will come."""

    def findings(self) -> Findings:
        """Return what is missing or odd in the tree as it is now."""

    def look(self, sink: Sink, progress: Progress, *, settled: bool) -> bool:
        """Hand over files that are new and whole; return whether there were any.

        Parameters
        ----------
        settled
            Whether nobody writes any more: a file need not be seen twice, unchanged, before it
            is taken for whole.
        """

    def compare(self, sink: Sink, progress: Progress) -> None:
        """Hand over every file that is there."""


_Open = Callable[["ForeignTree", "str | None", "RunRecords | None"], "TreeSource | None"]
"""From a tree, the name of a part of it and what is recorded to a source; None if it is empty."""


@dataclass(frozen=True, slots=True)
class Following:
    """How a tree is followed while it grows."""

    wait: Callable[[], bool]
    """Waits until it is time to look again; False to end."""


@contextmanager
def following_until_told(interval_s: float) -> Iterator[Following]:
    """Follow a tree until this process is told to end by SIGINT or SIGTERM; a look is finished.

    Parameters
    ----------
    interval_s : float, seconds
        Between two looks.
    """
    told = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: told.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield Following(lambda: not told.wait(interval_s))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def import_tree(
    open_tree: _Open,
    tree: ForeignTree,
    store: Store,
    run_id: str,
    *,
    system: str,
    progress: Progress,
    part: str | None = None,
    following: Following | None = None,
    seal: bool | None = None,
) -> ImportReport:
    """Take over *tree* as the run *run_id*.

    What is recorded already is nothing; what was cut short goes on.

    Parameters
    ----------
    part
        Which of several runs in the tree.
    following
        Look again and again, until it says so or the files say that the run is at its end.
    seal : bool, optional
        Whether the run is sealed in the end; None if the files say that it is at its end. A
        run that was followed, and is told to end before, is not.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if there is no such tree.
    ConflictError
        ``run-differs`` if the run is sealed and has another content.
    """
    records = _records(store, run_id)
    source = open_tree(tree, part, records)
    while source is None:
        if following is None or not following.wait():
            raise tree.refuse(
                f"expected a tree of files of {system}, found none"
                if tree.exists()
                else "there is no such file or folder"
            )
        source = open_tree(tree, part, records)
    if records is not None and records.seal is not None:
        _compare(source, records, system, progress)
        return _report(source, run_id, known=True, sealed=True)
    with TraceRecorder(
        store, run=run_id, system=system, metadata=source.metadata, seal_at_exit=False
    ) as recorder:
        source.look(recorder, progress, settled=following is None)
        interrupted = False
        while following is not None and not source.ended and not interrupted:
            recorder.flush()
            interrupted = not following.wait()
            if not interrupted:
                source.look(recorder, progress, settled=False)
        sealed = seal is not False and (source.ended or (seal is True and not interrupted))
        if sealed:
            recorder.seal()
    return _report(source, run_id, known=False, sealed=sealed)


def _compare(source: TreeSource, records: RunRecords, system: str, progress: Progress) -> None:
    here = {"system": system, "metadata": dict(source.metadata)}
    there = {"system": records.manifest.system, "metadata": records.manifest.metadata}
    if here != there:
        message = f"run {records.run_id!r} is sealed, and is not this tree: {there}, not {here}"
        raise ConflictError(ErrorKind.RUN_DIFFERS, message)
    comparison = Comparison(records)
    source.compare(comparison, progress)
    comparison.finish(source.steps)


def _report(source: TreeSource, run_id: str, *, known: bool, sealed: bool) -> ImportReport:
    findings = source.findings()
    return ImportReport(
        run=run_id,
        generation=findings.generation,
        steps=len(source.steps),
        samples=source.samples,
        missing=tuple(findings.missing),
        odd=tuple(findings.odd),
        known=known,
        sealed=sealed,
        files=source.files,
    )


def _records(store: Store, run_id: str) -> RunRecords | None:
    try:
        return RunRecords(store, run_id)
    except NotFoundError:
        return None
