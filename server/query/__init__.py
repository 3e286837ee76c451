"""Answers questions about stored runs; knows nothing of HTTP.

A read is planned, fetched and assembled: `FieldView.select` refuses what can be refused
and plans, `BlockReader` fetches and decodes blocks, `Slice` puts them together.
"""

from server.query.archive import Archive
from server.query.changes import ChangeSet
from server.query.coordinates import narrowed
from server.query.field import FieldView
from server.query.layers import (
    LAYER,
    LayerSlices,
    Planned,
    is_glob,
    matching_fields,
    matching_layers,
)
from server.query.reduce import REDUCTIONS, Largest, Reduction, reduce, top
from server.query.run import RunView
from server.query.slice import Slice

__all__ = [
    "LAYER",
    "REDUCTIONS",
    "Archive",
    "ChangeSet",
    "FieldView",
    "Largest",
    "LayerSlices",
    "Planned",
    "Reduction",
    "RunView",
    "Slice",
    "is_glob",
    "matching_fields",
    "matching_layers",
    "narrowed",
    "reduce",
    "top",
]
