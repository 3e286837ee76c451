"""The formats of DMD2's runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.systems.dmd2_files import table_text
from server.exporters.dmd2.flat import flat_json, flat_npy
from server.exporters.dmd2.tree import dmd2_tree, told_dmd2_tree
from server.exporters.exporter import Exporter, Format
from server.exporters.virtual_file import Literal, VirtualFile
from server.systems.dmd2 import image_set
from server.systems.dmd2.listing import listed

if TYPE_CHECKING:
    from server.exporters.cut import Cut
    from server.exporters.exporter import Built


def embeddings_csv(cut: Cut) -> Built:
    """Return what the app's export button gives: a row for each sample, with its coordinates."""
    columns, rows = listed(image_set(cut.run), list(cut.samples))
    return VirtualFile([Literal(table_text(columns, rows).encode())]), cut.notes


EXPORTER: Final = Exporter(
    formats={
        "npy": Format("application/octet-stream", ".npy", flat_npy),
        "npy-json": Format("application/json", ".npy.json", flat_json),
        "csv": Format("text/csv", ".csv", embeddings_csv),
    },
    trees={"dmd2-tree": dmd2_tree, "dmd2-tree-as-told": told_dmd2_tree},
)
