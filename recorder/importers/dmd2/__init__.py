"""The data folder of DMD2's visualizer: whole, cut short, or while it is being written."""

from recorder.importers.dmd2.opening import IMPORTER

__all__ = ["IMPORTER"]
