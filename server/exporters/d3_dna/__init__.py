"""What D3-DNA users have files for: the logger's trace, the viewer's JSON, final sequences."""

from server.exporters.d3_dna.formats import EXPORTER

__all__ = ["EXPORTER"]
