"""A store to import into, and the archive that reads it."""

from __future__ import annotations

import uuid
from pathlib import Path
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


@pytest.fixture(scope="session")
def real_files() -> Path:
    """Return the folder with files that the upstream logger wrote."""
    return Path(__file__).parents[1] / "data" / "d3_dna"
