"""Files of other programs become runs, through the same recorder that samplers use."""

from recorder.importers.registry import import_file, importable_systems
from recorder.importers.report import ImportReport
from recorder.importers.tree import Following, following_until_told

__all__ = [
    "Following",
    "ImportReport",
    "following_until_told",
    "import_file",
    "importable_systems",
]
