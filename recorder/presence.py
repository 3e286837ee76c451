"""Who else records a run right now, as their heartbeats say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from archive_schema.layout import run_prefix
from archive_schema.models import Heartbeat
from archive_schema.records import STALE_AFTER_S, read_document

if TYPE_CHECKING:
    from archive_schema.records import RunRecords


def live_writers(records: RunRecords, but: str) -> list[str]:
    """Return the writers, *but* one, that record and were heard of lately."""
    live = []
    for found in records.store.objects(f"{run_prefix(records.run_id)}/heartbeats"):
        heartbeat = read_document(records.store, found.key, Heartbeat)
        fresh = time.time() - found.modified_s <= STALE_AFTER_S
        if heartbeat.writer != but and heartbeat.state == "recording" and fresh:
            live.append(heartbeat.writer)
    return sorted(live)
