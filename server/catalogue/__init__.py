"""The list of runs: a table in SQLite that follows the store."""

from server.catalogue.catalogue import Catalogue
from server.catalogue.filter import LARGEST_PAGE, RunFilter

__all__ = ["LARGEST_PAGE", "Catalogue", "RunFilter"]
