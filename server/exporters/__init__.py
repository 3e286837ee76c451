"""Runs as files: in their system's own formats and in plain HDF5 and NPZ, computed from slices."""

from server.exporters.registry import Export, export, formats_of
from server.exporters.virtual_file import VirtualFile

__all__ = ["Export", "VirtualFile", "export", "formats_of"]
