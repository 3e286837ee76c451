"""What DMD2's users have files for: the visualizer's data folder, and flat activations."""

from server.exporters.dmd2.formats import EXPORTER

__all__ = ["EXPORTER"]
