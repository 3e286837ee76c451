"""From the name of a system and a file, or a tree of files, to a run."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError, NotFoundError
from archive_schema.layout import declared_steps
from archive_schema.records import RunRecords
from recorder.budget import default_max_bytes
from recorder.importers.comparison import Comparison
from recorder.importers.foreign_tree import ForeignTree
from recorder.importers.importer import TreeImporter
from recorder.importers.registry import importer
from recorder.importers.report import ImportReport
from recorder.importers.resemblance import described
from recorder.importers.tree import import_tree
from recorder.recorder import TraceRecorder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from archive_schema.store import Store, StoreOptions
    from recorder.importers.importer import Importer
    from recorder.importers.source import Progress, Source
    from recorder.importers.tree import Following

_MOST_NBYTES: Final = 256 << 20
"""Memory for what is read and not yet stored: reading is faster, and waits."""


def import_file(
    system: str,
    url: str | os.PathLike[str],
    store: Store,
    run_id: str,
    *,
    options: StoreOptions | None = None,
    progress: Progress | None = None,
    part: str | None = None,
    following: Following | None = None,
    seal: bool | None = None,
    flags: Mapping[str, str] | None = None,
) -> ImportReport:
    """Take over a file, or a tree of files, of *system* as the run *run_id*.

    An import that was cut short goes on where it stood. The same files again are nothing; others
    are refused once the run is sealed. A file is sealed when it is taken over, a tree when its
    files say that no more will come.

    Parameters
    ----------
    url : str
        A path, or any URL that fsspec knows.
    options
        How *url* is reached, if it is on S3.
    part, following, seal
        Of trees; see `import_tree`.
    flags
        What the system's importer asks for where its files do not say; see `Importer.flags`.

    Raises
    ------
    InvalidInputError
        ``file-invalid``, saying what was expected and what was found;
        ``invalid-parameter`` for a system that has no importer, or not those flags.
    ConflictError
        ``run-differs`` and its like if the run is there with another content.
    """
    known = importer(system)
    given = _flags(system, known, flags or {})
    progress = progress or _silent
    with _located(str(url), options, system):
        if isinstance(known, TreeImporter):
            if following is not None and not known.grows:
                message = f"files of {system} are not followed: import them when they are written"
                raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
            return import_tree(
                lambda *found: known.open(*found, **given),
                ForeignTree(str(url), options),
                store,
                run_id,
                system=system,
                progress=progress,
                part=part,
                following=following,
                seal=seal,
            )
        if (part, following, seal) != (None, None, None):
            message = (
                f"a run of {system} is a file, or files that are there: expected none of --part,"
                " --follow and --seal"
            )
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        opener = partial(known.open, str(url), options, **given)
        return _import_file(opener, system, store, run_id, progress)


def _import_file(
    opener: Callable[[], AbstractContextManager[Source]],
    system: str,
    store: Store,
    run_id: str,
    progress: Progress,
) -> ImportReport:
    with opener() as source:
        sealed = _sealed(store, run_id)
        if sealed is None:
            _record(source, system, store, run_id, progress)
        else:
            _compare(source, sealed, system, progress)
        findings = source.findings
        return ImportReport(
            run=run_id,
            generation=findings.generation,
            steps=len(source.steps),
            samples=source.samples,
            missing=tuple(findings.missing),
            odd=tuple(findings.odd),
            known=sealed is not None,
            files=findings.files,
        )


@contextmanager
def _located(url: str, options: StoreOptions | None, system: str) -> Iterator[None]:
    """Say of a path whose files are refused what lies there."""
    try:
        yield
    except InvalidInputError as error:
        invalid = error.kind is ErrorKind.FILE_INVALID
        said = described(url, options, system) if invalid else ""
        if not said:
            raise
        raise InvalidInputError(error.kind, f"{error}; {said}") from error


def _flags(system: str, known: Importer, given: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(set(given) - set(known.flags))
    if unknown:
        there = "; ".join(f"{name}: {text}" for name, text in known.flags.items()) or "none"
        message = f"unknown flags {', '.join(unknown)}; those of {system} are: {there}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return dict(given)


def _record(source: Source, system: str, store: Store, run_id: str, progress: Progress) -> None:
    with TraceRecorder(
        store,
        run=run_id,
        system=system,
        metadata=source.metadata,
        steps=list(source.steps),
        samples=source.samples,
        tile=source.tile,
        max_bytes=min(default_max_bytes(), _MOST_NBYTES),
    ) as recorder:
        source.feed(recorder, progress)


def _compare(source: Source, records: RunRecords, system: str, progress: Progress) -> None:
    manifest = records.manifest
    steps = declared_steps(manifest)
    here: dict[str, object] = {
        "system": system,
        "steps": source.steps,
        "samples": source.samples,
        **{f"metadata {key}": value for key, value in source.metadata.items()},
    }
    there: dict[str, object] = {
        "system": manifest.system,
        "steps": None if steps is None else tuple(steps),
        "samples": manifest.samples,
        **{f"metadata {key}": value for key, value in manifest.metadata.items()},
    }
    for what in {**here, **there}:
        if there.get(what) != here.get(what):
            message = (
                f"run {records.run_id!r} is sealed, and is not this file: {what}"
                f" is {there.get(what)!r:.200} there, {here.get(what)!r:.200} in the file"
            )
            raise ConflictError(ErrorKind.RUN_DIFFERS, message)
    comparison = Comparison(records)
    source.feed(comparison, progress)
    comparison.finish()


def _sealed(store: Store, run_id: str) -> RunRecords | None:
    try:
        records = RunRecords(store, run_id)
    except NotFoundError:
        return None
    return records if records.seal is not None else None


def _silent(done: int, total: int) -> None:
    del done, total
