"""The systems that are installed: this project's own, and others by entry point."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.systems import batchie, d3_dna
from archive_schema.systems.declaration import SystemDeclaration

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP: Final = "trace_archive.systems"
GENERIC: Final = SystemDeclaration(name="generic", title="Any sampler")


def system(name: str) -> SystemDeclaration:
    """Return the declaration of the system called *name*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a system that is not installed.
    """
    known = _systems()
    if name not in known:
        message = f"expected a system of {', '.join(sorted(known))}; got {name!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return known[name]


def system_names() -> list[str]:
    """Return the names of all installed systems, sorted."""
    return sorted(_systems())


@lru_cache(maxsize=1)
def _systems() -> Mapping[str, SystemDeclaration]:
    found = {own.name: own for own in (GENERIC, batchie.SYSTEM, d3_dna.SYSTEM)}
    for entry in entry_points(group=GROUP):
        declaration = entry.load()
        if not isinstance(declaration, SystemDeclaration) or declaration.name in found:
            message = f"{entry.value} is no SystemDeclaration with a name of its own"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        found[declaration.name] = declaration
    return found
