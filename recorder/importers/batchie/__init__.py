"""Trees of files of BATCHIE's simulations, finished or under way."""

from recorder.importers.batchie.tree import IMPORTER, open_batchie_tree

__all__ = ["IMPORTER", "open_batchie_tree"]
