"""What can be wrong with a run, by name, and what a check of it says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Finding(StrEnum):
    """Stable codes of what can be found. Append only: scripts match on the text."""

    MANIFEST_LOST = "manifest-lost"
    MANIFEST_DAMAGED = "manifest-damaged"
    FIELD_LOST = "field-lost"
    FIELD_DAMAGED = "field-damaged"
    CLAIM_LOST = "claim-lost"
    CLAIM_DAMAGED = "claim-damaged"
    COMMIT_LOST = "commit-lost"
    """A number is missing from an epoch's chain, or the end of a writer that said it closed."""
    COMMIT_DAMAGED = "commit-damaged"
    HEARTBEAT_LOST = "heartbeat-lost"
    HEARTBEAT_DAMAGED = "heartbeat-damaged"
    SEALING_LOST = "sealing-lost"
    SEALING_DAMAGED = "sealing-damaged"
    INDEX_LOST = "index-lost"
    INDEX_DAMAGED = "index-damaged"
    SEAL_DAMAGED = "seal-damaged"
    DOCUMENT_LOST = "document-lost"
    """A Zarr document; commits and declarations tell all that it says."""
    DOCUMENT_DAMAGED = "document-damaged"
    COORDINATE_LOST = "coordinate-lost"
    """The values of a coordinate array or a mask in the Zarr hierarchy."""
    COORDINATE_DAMAGED = "coordinate-damaged"
    TILE_LOST = "tile-lost"
    TILE_DAMAGED = "tile-damaged"
    """Also a sound tile in the place of another."""
    TILE_CONFLICT = "tile-conflict"
    """Commits say two things of one tile, or of one coordinate."""
    TILE_ASIDE = "tile-aside"
    """A tile that waits for the seal to be brought home; nothing is wrong with it."""
    WRITER_LOST = "writer-lost"
    """An epoch without an end, whose writer is not heard of any more."""
    SEALING_UNFINISHED = "sealing-unfinished"
    """Somebody began to seal the run, and it has no seal."""
    ORPHAN = "orphan"
    """An object that nothing names."""
    GENERATION_DAMAGED = "generation-damaged"
    """The record of where the values of a compacted run lie."""
    SUPERSEDED = "superseded"
    """What lies as it did before the run was compacted; no reader begins to read it any more."""

    @property
    def harmless(self) -> bool:
        """Whether nothing that was recorded is lost, damaged or contradictory."""
        return self in _HARMLESS


_HARMLESS: Final = frozenset(
    (
        Finding.TILE_ASIDE,
        Finding.WRITER_LOST,
        Finding.SEALING_UNFINISHED,
        Finding.ORPHAN,
        Finding.SUPERSEDED,
    )
)


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was found."""

    finding: Finding
    key: str
    detail: str
    repairable: bool = False
    """Whether `repair_run` can put it right without losing anything recorded."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify_run` found; harmless findings are in *found* and no damage."""

    run: str
    tiles: int
    """Tiles that were read."""
    nbytes: int
    """Stored bytes that were read."""
    found: tuple[Found, ...]

    @property
    def sound(self) -> bool:
        """Whether everything that the commits name is there and undamaged."""
        return all(one.finding.harmless for one in self.found)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that was put right, or would be."""

    finding: Finding
    """What was wrong."""
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair_run` did, or would do, and what nobody can do any more."""

    run: str
    dry_run: bool
    done: tuple[Action, ...]
    lost: tuple[Found, ...]
    """What could not be put right."""
