"""The importers that are installed: this project's own, and others by entry point."""

from __future__ import annotations

from typing import Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.systems.registered import Registered
from recorder.importers.importer import Importer

_IMPORTERS: Final = Registered(
    "trace_archive.importers",
    Importer,
    {
        "batchie": "recorder.importers.batchie:IMPORTER",
        "d3-dna": "recorder.importers.d3_dna:IMPORTER",
        "dna-diffusion": "recorder.importers.dna_diffusion:IMPORTER",
        "dmd2": "recorder.importers.dmd2:IMPORTER",
        "imagenet64": "recorder.importers.imagenet64:IMPORTER",
        "vizfold": "recorder.importers.vizfold:IMPORTER",
    },
)


def importable_systems() -> list[str]:
    """Return the names of the systems whose files can be imported, sorted."""
    return _IMPORTERS.names()


def importer(system: str) -> Importer:
    """Return how files of *system* are imported.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a system that has no importer.
    """
    found = _IMPORTERS.find(system)
    if found is None:
        message = f"expected a system of {', '.join(importable_systems())}; got {system!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return found
