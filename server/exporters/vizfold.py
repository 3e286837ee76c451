"""What VizFold's runs are written as."""

from __future__ import annotations

from typing import Final

from server.exporters import vizfold_archives, vizfold_tree
from server.exporters.exporter import Exporter

EXPORTER: Final = Exporter(
    formats=vizfold_archives.FORMATS, trees={**vizfold_tree.TREES, **vizfold_archives.TREES}
)
