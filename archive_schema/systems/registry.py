"""The systems that are installed: this project's own, and others by entry point."""

from __future__ import annotations

from typing import Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.systems.declaration import SystemDeclaration
from archive_schema.systems.registered import Registered

_SYSTEMS: Final = Registered(
    "trace_archive.systems",
    SystemDeclaration,
    {
        "batchie": "archive_schema.systems.batchie:SYSTEM",
        "d3-dna": "archive_schema.systems.d3_dna:SYSTEM",
        "dmd2": "archive_schema.systems.dmd2:SYSTEM",
        "dna-diffusion": "archive_schema.systems.dna_diffusion:SYSTEM",
        "generic": "archive_schema.systems.generic:SYSTEM",
        "imagenet64": "archive_schema.systems.imagenet64:SYSTEM",
        "vizfold": "archive_schema.systems.vizfold:SYSTEM",
    },
)


def system(name: str) -> SystemDeclaration:
    """Return the declaration of the system called *name*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a system that is not installed, or declares another name.
    """
    found = _SYSTEMS.find(name)
    if found is None:
        message = f"expected a system of {', '.join(system_names())}; got {name!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    if found.name != name:
        message = f"system {name!r} declares the name {found.name!r}: expected the same"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return found


def system_names() -> list[str]:
    """Return the names of all installed systems, sorted."""
    return _SYSTEMS.names()
