"""Files of other programs become runs, through the same recorder that samplers use.

A package outside registers a `FileImporter` or a `TreeImporter`, by the name of its system, in the
entry-point group ``trace_archive.importers``.
"""

from recorder.importers.foreign import ForeignFile, open_foreign
from recorder.importers.foreign_tree import ForeignTree
from recorder.importers.importer import FileImporter, TreeImporter
from recorder.importers.importing import import_file
from recorder.importers.registry import importable_systems
from recorder.importers.report import ImportReport
from recorder.importers.source import Findings, Progress, Sink
from recorder.importers.tree import Following, following_until_told

__all__ = [
    "FileImporter",
    "Findings",
    "Following",
    "ForeignFile",
    "ForeignTree",
    "ImportReport",
    "Progress",
    "Sink",
    "TreeImporter",
    "following_until_told",
    "import_file",
    "importable_systems",
    "open_foreign",
]
