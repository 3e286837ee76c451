"""Archives in the layouts that VizFold's pull requests proposed: Zarr, ZIP of Zarr, HDF5, NPZ."""

from recorder.importers.vizfold_archives.opening import FLAGS, SIGNS, is_archive, open_archive
from recorder.importers.vizfold_archives.tree import ArchiveTree

__all__ = ["FLAGS", "SIGNS", "ArchiveTree", "is_archive", "open_archive"]
