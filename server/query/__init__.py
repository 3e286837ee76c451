"""Answers questions about stored runs; knows nothing of HTTP.

A read is planned, fetched and assembled: `FieldView.select` refuses what can be refused
and plans, `BlockReader` fetches and decodes blocks, `Slice` puts them together.
"""

from server.query.archive import Archive
from server.query.changes import ChangeSet
from server.query.coordinates import narrowed
from server.query.downsample import downsample, part_edges
from server.query.field import FieldView
from server.query.layers import (
    LAYER,
    LayerSlices,
    Planned,
    matching_fields,
    matching_layers,
)
from server.query.reduce import REDUCTIONS, Held, Largest, Reducible, Reduction, reduce, top
from server.query.run import RunView
from server.query.slice import Slice
from server.query.statistics import BINS, Statistics, statistics

__all__ = [
    "BINS",
    "LAYER",
    "REDUCTIONS",
    "Archive",
    "ChangeSet",
    "FieldView",
    "Held",
    "Largest",
    "LayerSlices",
    "Planned",
    "Reducible",
    "Reduction",
    "RunView",
    "Slice",
    "Statistics",
    "downsample",
    "matching_fields",
    "matching_layers",
    "narrowed",
    "part_edges",
    "reduce",
    "statistics",
    "top",
]
