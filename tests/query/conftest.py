"""Archives that read one range at a time, and several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store


@pytest.fixture(params=[1, 4], ids=["inline", "threads"])
def archive(request: pytest.FixtureRequest, store: Store) -> Iterator[Archive]:
    """Open the store of the test, and look at it at every call."""
    with Archive(store, reads_in_flight=request.param, refresh_s=0) as archive:
        yield archive
