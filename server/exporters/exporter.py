"""What a system says of the files that its runs are written as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from server.exporters.cut import Cut
    from server.exporters.tree import Tree
    from server.exporters.virtual_file import VirtualFile
    from server.query.run import RunView

Built: TypeAlias = "tuple[VirtualFile, tuple[str, ...]]"
"""A file, and what it does not hold or holds otherwise, a sentence each."""
BuildTree: TypeAlias = "Callable[[RunView, Collection[int]], Tree]"
"""From a run and some of its steps to files."""


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a run as one file."""

    media_type: str
    ending: str
    build: Callable[[Cut], Built]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """The formats of one system, by their names; each has those of `generic` besides.

    A format that is named like an ending of files is what such a file is written as.
    """

    formats: Mapping[str, Format] = field(default_factory=dict)
    trees: Mapping[str, BuildTree] = field(default_factory=dict)
    """The first is what a folder is written as."""
