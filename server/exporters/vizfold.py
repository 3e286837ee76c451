"""What VizFold's runs are written as."""

from __future__ import annotations

from typing import Final

from server.exporters import vizfold_archives
from server.exporters.exporter import Exporter

EXPORTER: Final = Exporter(formats=vizfold_archives.FORMATS, trees=vizfold_archives.TREES)
