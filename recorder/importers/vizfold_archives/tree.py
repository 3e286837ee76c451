"""An archive as the import of trees takes it: whole, and at its end as soon as it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.errors import ErrorKind, InvalidInputError
from recorder.importers.vizfold_archives.opening import open_archive

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from pydantic import JsonValue

    from archive_schema.store import StoreOptions
    from recorder.importers.source import Findings, Progress, Sink, Source


class ArchiveTree:
    """An archive that is looked into now, and read when it is asked for.

    Parameters
    ----------
    attention_axes
        As `open_archive`.

    Raises
    ------
    InvalidInputError
        As `open_archive`.
    """

    files = 1
    ended = True

    def __init__(
        self, url: str, options: StoreOptions | None, attention_axes: str | None = None
    ) -> None:
        self._url = url
        self._options = options
        self._axes = attention_axes
        with self._open() as source:
            self.metadata: Mapping[str, JsonValue] = source.metadata
            self.steps = source.steps
            self.samples = source.samples
            self._findings = source.findings

    def findings(self) -> Findings:
        """Return what is missing or odd."""
        return self._findings

    def look(self, sink: Sink, progress: Progress, *, settled: bool) -> bool:
        """Hand over everything; return that there was something.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` unless *settled*: what is still being written has no end.
        """
        if not settled:
            message = "an archive is imported when it is written: expected no --follow"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        self.compare(sink, progress)
        return True

    def compare(self, sink: Sink, progress: Progress) -> None:
        """Hand over everything."""
        with self._open() as source:
            source.feed(sink, progress)
            self._findings = source.findings

    def _open(self) -> AbstractContextManager[Source]:
        return open_archive(self._url, self._options, attention_axes=self._axes)
