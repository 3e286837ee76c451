"""The exporters that are installed: this project's own, and others by entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.systems.registered import Registered
from server.exporters.exporter import Exporter

if TYPE_CHECKING:
    from server.exporters.exporter import BuildTree, Format

_EXPORTERS: Final = Registered(
    "trace_archive.exporters",
    Exporter,
    {
        "batchie": "server.exporters.batchie:EXPORTER",
        "d3-dna": "server.exporters.d3_dna:EXPORTER",
        "dna-diffusion": "server.exporters.dna_diffusion:EXPORTER",
        "dmd2": "server.exporters.dmd2:EXPORTER",
        "generic": "server.exporters.generic:EXPORTER",
        "imagenet64": "server.exporters.imagenet64:EXPORTER",
        "vizfold": "server.exporters.vizfold:EXPORTER",
    },
)


def formats(system: str) -> dict[str, Format]:
    """Return what runs of *system* are written as, by name; its own count before those of all."""
    found = [_EXPORTERS.find(name) for name in ("generic", system)]
    return {name: one for exporter in found if exporter for name, one in exporter.formats.items()}


def trees(system: str) -> dict[str, BuildTree]:
    """Return the trees of files that runs of *system* are written as, by name, its own first."""
    found = _EXPORTERS.find(system)
    return {} if found is None else dict(found.trees)


def formats_of(system: str) -> dict[str, str]:
    """Return the media type of each format that runs of *system* can be written in."""
    return {name: known.media_type for name, known in formats(system).items()}


def tree_formats(system: str) -> list[str]:
    """Return the names of the trees that runs of *system* are written as, its own first."""
    return list(trees(system))
