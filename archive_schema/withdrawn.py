"""Tiles that are recorded no more: commits named them, and their objects are lost or damaged.

A withdrawal names the commit, so what a later commit records in the same place holds, whichever
of the three a reader meets first.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archive_schema.models import Commit


class Withdrawn:
    """The withdrawn tiles of a run, by the commit and the field that named them."""

    def __init__(self) -> None:
        self._tiles: defaultdict[tuple[str, int, int, str], set[tuple[int, int]]] = defaultdict(set)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self._tiles.values()))

    def add(self, commits: Iterable[Commit]) -> bool:
        """Take note of what *commits* withdraw; return whether any of it is new."""
        before = self.count
        for commit in commits:
            for part in commit.withdrawn:
                named = (part.writer, part.epoch, part.sequence, part.field)
                self._tiles[named].update(zip(part.step, part.tile, strict=True))
        return self.count > before

    def left_of(self, commit: Commit) -> Commit:
        """Return *commit* without the tiles of it that are withdrawn."""
        named = (commit.writer, commit.epoch, commit.sequence)
        gone = [self._tiles.get((*named, tiles.field)) for tiles in commit.tiles]
        if not any(gone):
            return commit
        left = (t.without(g) if g else t for t, g in zip(commit.tiles, gone, strict=True))
        return commit.model_copy(update={"tiles": tuple(left)})
