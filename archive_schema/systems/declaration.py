"""The form in which a system declares what its runs hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from archive_schema.models import Place

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class FieldDeclaration:
    """What is known of a field before its first values come."""

    dims: tuple[str, ...]
    """Names of all axes but step: ``("sample", "position", "channel")``."""
    tokens: bool = False
    """Whether the values are ids in a vocabulary of at most 256."""
    ragged: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class SystemDeclaration:
    """A system: its name and the fields that its runs may record.

    A run may record other fields too; their axes are then named by their lengths.
    """

    name: str
    title: str
    fields: Mapping[Place, Mapping[str, FieldDeclaration]] = field(default_factory=dict)
    vocabulary: str = ""
    """The letters of its token ids, in order: ``ACGT``."""
    layers: Mapping[str, Mapping[str, FieldDeclaration]] = field(default_factory=dict)
    """Fields of layers, by a glob over the layers' names; the first that matches counts."""

    def field(self, place: Place, name: str, layer: str | None = None) -> FieldDeclaration | None:
        """Return what is declared of a field, or None."""
        if place is Place.LAYERS and layer is not None:
            for pattern, fields in self.layers.items():
                if fnmatchcase(layer, pattern):
                    return fields.get(name)
        return self.fields.get(place, {}).get(name)
