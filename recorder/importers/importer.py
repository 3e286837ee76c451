"""What a system says of the files that its programs write: how they are opened, and told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recorder.importers.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recorder.importers.tree import TreeSource

OpenFile = Callable[..., AbstractContextManager[Source]]
"""From a URL, the `StoreOptions` it is reached with or None, and flags as keywords."""
OpenTree = Callable[..., "TreeSource | None"]
"""From a `ForeignTree`, the name of a part of it or None, the `RunRecords` of what is recorded or
None, and flags as keywords; None if the tree is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """What every importer has; one is a `FileImporter` or a `TreeImporter`."""

    open: Callable[..., Any]
    signs: tuple[str, ...] = ()
    """Globs over names that tell the system's files from others: of files and folders in a tree
    (``iter_*/plate_*``), of members in an archive, of groups and datasets in an HDF5 file, or of
    the file itself. One that matches is enough. `*` crosses no slash."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """What a user may have to say because the files do not: names, and a sentence each. They reach
    `open` as keywords, with text as values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImporter(Importer):
    """A run is one file."""

    open: OpenFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeImporter(Importer):
    """A run is a tree of files, which may still grow; or whatever else *open* makes of a path."""

    open: OpenTree
    grows: bool = True
    """Whether a tree can be followed while a program writes it."""
