"""Runs as files: in their system's own formats and in plain HDF5 and NPZ, computed from slices."""

from server.exporters.registry import Export, export, formats_of
from server.exporters.tree import MadeFile, Tree, TreeFile, zip_parts
from server.exporters.trees import export_tree, tree_file, tree_formats
from server.exporters.virtual_file import VirtualFile

__all__ = [
    "Export",
    "MadeFile",
    "Tree",
    "TreeFile",
    "VirtualFile",
    "export",
    "export_tree",
    "formats_of",
    "tree_file",
    "tree_formats",
    "zip_parts",
]
