"""Files of other programs become runs, through the same recorder that samplers use."""

from recorder.importers.registry import import_file, importable_systems
from recorder.importers.report import ImportReport

__all__ = ["ImportReport", "import_file", "importable_systems"]
