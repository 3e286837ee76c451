"""Stores to read from: a folder, and a process' memory."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from archive_schema.store import open_store
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from archive_schema.store import Store

_NUMBERS = count()


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "archive")
    return open_store(f"memory://query-{next(_NUMBERS)}")


@pytest.fixture(params=[1, 4], ids=["inline", "threads"])
def archive(request: pytest.FixtureRequest, store: Store) -> Iterator[Archive]:
    with Archive(store, reads_in_flight=request.param, refresh_s=0) as archive:
        yield archive
