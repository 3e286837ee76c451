"""Trees of files of BATCHIE's simulations, finished or under way."""

from recorder.importers.batchie.tree import open_batchie_tree

__all__ = ["open_batchie_tree"]
