"""The commits of one epoch: numbered from 0 without a gap, each created once, the last an end.

Because a number is created once, whoever puts an end at the next number knows that nothing
follows: it fences a writer that may still be alive, without asking it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.documents import parse_document
from archive_schema.errors import ErrorKind, FormatError
from archive_schema.layout import commit_key
from archive_schema.models import Commit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive_schema.models import End

_LARGEST_WINDOW: Final = 512


class Chain:
    """What was read so far of the commits of one epoch.

    Who reads asks for `window`, and `parse` and `add` what it finds there, until `add` says that
    there is no more: a long chain costs few round trips, and one that is known a single request.
    """

    def __init__(self, run_id: str, writer: str, epoch: int) -> None:
        self.run_id = run_id
        self.writer = writer
        self.epoch = epoch
        self.length = 0
        """Commits read, the end too."""
        self.tiles = 0
        """Tiles that they make visible."""
        self.end: End | None = None
        self.reason = ""
        """Of the end, for people."""
        self._window = 1

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.end is not None

    def key(self, sequence: int) -> str:
        """Return the key of one commit."""
        return commit_key(self.run_id, self.writer, self.epoch, sequence)

    def window(self) -> list[str]:
        """Return the keys to read next."""
        return [self.key(self.length + ahead) for ahead in range(self._window)]

    def parse(self, found: Sequence[bytes | None]) -> list[Commit]:
        """Return the commits that lay at the keys of `window`, None where nothing did.

        Raises
        ------
        FormatError
            ``record-damaged``.
        """
        commits: list[Commit] = []
        for data in found:
            if data is None or (commits and commits[-1].end):
                break
            sequence = self.length + len(commits)
            commit = parse_document(data, self.key(sequence), Commit)
            if (commit.writer, commit.epoch, commit.sequence) != (
                self.writer,
                self.epoch,
                sequence,
            ):
                message = (
                    f"{self.key(sequence)} is the commit {commit.sequence} of epoch {commit.epoch}"
                    f" of writer {commit.writer!r}"
                )
                raise FormatError(ErrorKind.RECORD_DAMAGED, message)
            commits.append(commit)
        return commits

    def add(self, commits: Sequence[Commit]) -> bool:
        """Take note of what is new, in order; return whether there may be more to read now."""
        self.length += len(commits)
        self.tiles += sum(len(tiles.step) for commit in commits for tiles in commit.tiles)
        for commit in commits:
            if commit.end is not None:
                self.end, self.reason = commit.end, commit.reason
        more = len(commits) == self._window and not self.ended
        self._window = min(2 * self._window, _LARGEST_WINDOW) if more else 1
        return more
