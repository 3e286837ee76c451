"""Who else records a run, as their heartbeats say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive_schema.documents import read_document
from archive_schema.layout import run_prefix
from archive_schema.models import Heartbeat
from archive_schema.records import STALE_AFTER_S

if TYPE_CHECKING:
    from archive_schema.records import RunRecords


@dataclass(frozen=True, slots=True)
class OtherWriters:
    """The other writers of a run, by name."""

    recording: tuple[str, ...]
    """Heard of within a minute."""
    lost: tuple[str, ...]
    """Failed, or not heard of any more: they may be started again."""


def other_writers(records: RunRecords, writer: str) -> OtherWriters:
    """Return how the writers but *writer* are doing; those that closed are left out."""
    beats = [
        (read_document(records.store, found.key, Heartbeat), found.modified_s)
        for found in records.store.objects(f"{run_prefix(records.run_id)}/heartbeats")
    ]
    # The latest word, which may well be our own, tells the time by the store's clock.
    now_s = max((modified_s for _, modified_s in beats), default=0.0)
    recording: list[str] = []
    lost: list[str] = []
    for beat, modified_s in sorted(beats, key=lambda one: one[0].writer):
        if beat.writer == writer or beat.state == "closed":
            continue
        fresh = beat.state == "recording" and now_s - modified_s <= STALE_AFTER_S
        (recording if fresh else lost).append(beat.writer)
    return OtherWriters(tuple(recording), tuple(lost))
