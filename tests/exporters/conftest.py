"""One run with fields of many kinds, to export from."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from archive_schema.store import open_store
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store


@pytest.fixture
def store() -> Store:
    """Open an empty store in memory: what it is kept on makes no difference here."""
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def archive(store: Store) -> Iterator[Archive]:
    with Archive(store) as archive:
        yield archive
