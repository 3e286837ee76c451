"""What came of an import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was found in a file."""

    run: str
    generation: str
    """Which of the system's formats the file has."""
    steps: int
    samples: int
    missing: tuple[str, ...]
    """What files of the latest generation have and this one has not, a sentence each."""
    odd: tuple[str, ...]
    """What was not as expected: left out, or kept in another way. A sentence each."""
    known: bool = False
    """Whether the run was there already, with the same content, so that nothing was written."""
    sealed: bool = True
    """Whether the run is finished; one that was followed, or is not at its end, may be resumed."""
    files: int = 1
    """How many files were found and understood."""
