"""Runs as files: in their system's own formats and in plain HDF5 and NPZ, computed from slices.

A package outside registers an `Exporter`, by the name of its system, in the entry-point group
``trace_archive.exporters``.
"""

from server.exporters.cut import Cut
from server.exporters.exported import Export, export
from server.exporters.exporter import Exporter, Format
from server.exporters.registry import formats_of, tree_formats
from server.exporters.tree import MadeFile, Tree, TreeFile, zip_parts
from server.exporters.trees import export_tree, tree_file
from server.exporters.values import Values
from server.exporters.virtual_file import Content, Literal, VirtualFile

__all__ = [
    "Content",
    "Cut",
    "Export",
    "Exporter",
    "Format",
    "Literal",
    "MadeFile",
    "Tree",
    "TreeFile",
    "Values",
    "VirtualFile",
    "export",
    "export_tree",
    "formats_of",
    "tree_file",
    "tree_formats",
    "zip_parts",
]
