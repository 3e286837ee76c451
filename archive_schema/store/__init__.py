"""The one place where the archive's bytes go in and come out.

A store is a flat map from key to bytes. `create` is atomic and exclusive, `write` is
atomic, and nothing else is promised; everything above is built on these two.
"""

from archive_schema.store.http import HttpStore
from archive_schema.store.interface import Store, StoredObject
from archive_schema.store.local import LocalStore
from archive_schema.store.objects import ObjectsStore
from archive_schema.store.opening import open_store
from archive_schema.store.options import StoreOptions

__all__ = [
    "HttpStore",
    "LocalStore",
    "ObjectsStore",
    "Store",
    "StoreOptions",
    "StoredObject",
    "open_store",
]
