"""Who else records a run, and whether it is whole when this writer has left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive_schema.openings import latest_openings, openings
from recorder.ownership import uncovered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive_schema.models import Claim, RunManifest
    from archive_schema.openings import Opening
    from archive_schema.records import RunRecords


@dataclass(frozen=True, slots=True)
class OtherWriters:
    """The openings of a run but one."""

    openings: tuple[Opening, ...]
    lost: tuple[Opening, ...]
    """Writers that failed or are not heard of any more, and whose work nobody did since."""
    awaited: str
    """What of the run is still to come, in words; empty if nothing is known to be."""

    @property
    def recording(self) -> tuple[Opening, ...]:
        """Those that are open, and heard of within a minute."""
        return tuple(one for one in self.openings if one.state == "recording")


def other_writers(records: RunRecords, claim: Claim) -> OtherWriters:
    """Return how the openings of a run but that of *claim* are doing.

    Parameters
    ----------
    records
        The run; refreshed here.
    """
    # In this order: a writer ends its epoch before it says that it closed.
    heartbeats = records.heartbeats()
    records.refresh()
    if records.seal is not None:
        return OtherWriters((), (), "")
    known = openings(records, heartbeats)
    return OtherWriters(
        openings=tuple(one for one in known if one.claim != claim),
        lost=tuple(
            one
            for one in latest_openings(known)
            if one.claim != claim
            and one.state in ("failed", "lost")
            and not _is_made_good(records.manifest, one, known)
        ),
        awaited=_awaited(records.manifest, known),
    )


def overlap(claim: Claim, start: int, stop: int) -> bool:
    """Return whether a writer owns any of samples ``[start, stop)``."""
    return claim.samples is not None and claim.samples[0] < stop and start < claim.samples[1]


def _is_made_good(manifest: RunManifest, gone: Opening, known: Sequence[Opening]) -> bool:
    """Return whether others have closed in the place of a writer that is gone."""
    part, others = gone.claim.samples, [o for o in known if o.claim.writer != gone.claim.writer]
    if part is None:
        return manifest.writers is not None and _closed(others) >= manifest.writers
    return not uncovered(_closed_parts(others), part)


def _awaited(manifest: RunManifest, known: Sequence[Opening]) -> str:
    closed = _closed(known)
    if manifest.writers is not None and closed < manifest.writers:
        return f"{closed} of {manifest.writers} writers have closed"
    if manifest.samples is not None and any(one.claim.samples is not None for one in known):
        gaps = uncovered(_closed_parts(known), (0, manifest.samples))
        if gaps:
            named = ", ".join(f"[{start}, {stop})" for start, stop in gaps)
            return f"no writer that owns samples {named} has closed"
    return ""


def _closed(known: Sequence[Opening]) -> int:
    return len({one.claim.writer for one in known if one.state == "closed"})


def _closed_parts(known: Sequence[Opening]) -> list[tuple[int, int]]:
    return [
        one.claim.samples
        for one in known
        if one.state == "closed" and one.claim.samples is not None
    ]
