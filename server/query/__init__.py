"""Answers questions about stored runs; knows nothing of HTTP.

A read is planned, fetched and assembled: `FieldView.select` refuses what can be refused
and plans, `BlockReader` fetches and decodes blocks, `Slice` puts them together.
"""

from server.query.archive import Archive
from server.query.changes import ChangeSet
from server.query.field import FieldView
from server.query.reduce import REDUCTIONS, Reduction, reduce, top
from server.query.run import RunView
from server.query.slice import Slice

__all__ = [
    "REDUCTIONS",
    "Archive",
    "ChangeSet",
    "FieldView",
    "Reduction",
    "RunView",
    "Slice",
    "reduce",
    "top",
]
