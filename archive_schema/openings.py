"""Who records a run: every opening of it, and whether anybody is still there.

How an epoch ended is certain: its last commit says so, and nothing can follow. Of an epoch that
is open, heartbeats are a hint, to be trusted by people and by nobody who would harm a writer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from archive_schema.models import End
from archive_schema.records import STALE_AFTER_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from archive_schema.models import Claim, Heartbeat
    from archive_schema.records import RunRecords

OpeningState: TypeAlias = End | Literal["recording", "lost"]
"""How an epoch ended; of an open one, whether it was heard of within a minute."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening of a run by one writer."""

    claim: Claim
    state: OpeningState
    reason: str
    """Why it ended, for people."""
    heard_s: float
    """When it was last heard of: seconds since the epoch, by the store's clock if it had a word."""
    tiles: int
    """Tiles that it committed."""

    def __str__(self) -> str:
        claim = self.claim
        part = (
            "" if claim.samples is None else f", samples [{claim.samples[0]}, {claim.samples[1]})"
        )
        return f"{claim.writer} ({claim.host}, process {claim.process}{part})"


def openings(
    records: RunRecords,
    heartbeats: Mapping[str, tuple[Heartbeat, float]],
    ages_s: Mapping[str, float] | None = None,
) -> list[Opening]:
    """Return every opening of a run, those of one writer in their order.

    Parameters
    ----------
    records
        To be refreshed after *heartbeats* were read: whoever says that it closed has ended.
    ages_s
        For how many seconds each writer had no new word (`RunRecords.ages_s`); None to count to
        the latest word of any writer, which tells the time by the store's clock.

    Raises
    ------
    FormatError
        ``record-damaged``.
    """
    now_s = max((modified_s for _, modified_s in heartbeats.values()), default=0.0)
    claims = records.claims()
    found = []
    for chain in records.epochs:
        claim = claims.get((chain.writer, chain.epoch))
        if claim is None:
            continue
        beat, modified_s = heartbeats.get(chain.writer, (None, 0.0))
        state: OpeningState | None = chain.end
        reason, heard_s = chain.reason, claim.time.timestamp()
        age_s = now_s - heard_s
        if beat is not None and beat.epoch == claim.epoch:
            heard_s = modified_s
            age_s = now_s - heard_s if ages_s is None else ages_s[claim.writer]
            if state is None and beat.state != "recording":
                state, reason = beat.state, beat.error
        if state is None:
            state = "recording" if age_s <= STALE_AFTER_S else "lost"
        found.append(Opening(claim, state, reason, heard_s, chain.tiles))
    return found


def latest_openings(found: list[Opening]) -> list[Opening]:
    """Return the latest opening of each writer, with the tiles of all its openings."""
    latest: dict[str, Opening] = {}
    for one in found:
        before = latest.get(one.claim.writer)
        tiles = one.tiles + (0 if before is None else before.tiles)
        latest[one.claim.writer] = Opening(one.claim, one.state, one.reason, one.heard_s, tiles)
    return list(latest.values())
