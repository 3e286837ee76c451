"""Pictures of a data set: several samples' PNG files as one array."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.errors import InvalidInputError
from archive_schema.systems.png import pixels_of, png
from archive_schema.systems.relative_path import is_inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recorder.importers.foreign_tree import ForeignTree


_LARGEST: Final = 64 << 20


@dataclass(slots=True)
class Pictures:
    """Reads pictures, all of one size, and takes note of those that are odd."""

    tree: ForeignTree
    what: str
    shape: tuple[int, ...] | None = None
    odd: list[str] = field(default_factory=list)
    changed: int = 0
    """How many would be written by other bytes of equal pixels."""

    def read(self, paths: Sequence[str | None]) -> list[NDArray[np.uint8] | None]:
        """Return pixels, shape (row, column, channel), of each of *paths*; None for what is not."""
        return [None if path is None else self._read(path) for path in paths]

    def _read(self, path: str) -> NDArray[np.uint8] | None:
        if not is_inside(path):
            self.odd.append(f"{path!r:.200} leads out of the data folder: not read")
            return None
        try:
            with self.tree.open(path) as file:
                data = file.stream.read(_LARGEST)
            pixels = pixels_of(data)
        except InvalidInputError as error:
            self.odd.append(f"{path}: {error}: left out")
            return None
        self.shape = self.shape or pixels.shape
        if pixels.shape != self.shape:
            self.odd.append(f"{path} has shape {pixels.shape}, expected {self.shape}: left out")
            return None
        self.changed += png(pixels) != data
        return pixels

    def sentences(self) -> list[str]:
        """Return what is odd."""
        if not self.changed:
            return self.odd
        changed = f"{self.changed} {self.what} come back with equal pixels, not byte for byte"
        return [*self.odd, changed]


def stretches(
    pictures: Sequence[NDArray[np.uint8] | None], start: int
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Return pictures that are there one after another, as arrays with their first position."""
    found: list[tuple[int, list[NDArray[np.uint8]]]] = []
    for at, one in enumerate(pictures, start):
        if one is None:
            continue
        if found and found[-1][0] + len(found[-1][1]) == at:
            found[-1][1].append(one)
        else:
            found.append((at, [one]))
    return [(at, np.stack(ones)) for at, ones in found]
