"""One file of a tree, as one layer at one step."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from archive_schema.systems.kept_file import CONTENT, FILE, KeptFile, KeptPlace, kept_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.query import RunView


class LayerFile:
    """A file that was taken over.

    Parameters
    ----------
    run
        Where it is recorded.
    layer, step
        What it became.
    """

    def __init__(self, run: RunView, layer: str, step: int) -> None:
        self._run = run
        self.layer = layer
        self.step = step

    @cached_property
    def about(self) -> KeptFile:
        """What is kept of the file beside its values."""
        return _parsed(self.field(FILE).tobytes())

    @property
    def whole(self) -> bool:
        """Whether everything of the file is recorded: of a live run, a part may be on its way."""
        return all(self._has(name) for name in self.about.fields)

    @property
    def content(self) -> NDArray[Any]:
        """The bytes of a file that holds no arrays."""
        return self.field(CONTENT)

    def field(self, name: str) -> NDArray[Any]:
        """Return the values of a field of the layer; errors as `FieldView.select`."""
        found = self._run.field(name, layer=self.layer)
        return found.select({"step": self.step}).array()

    def dataset(self, path: str) -> NDArray[Any]:
        """Return the values of a dataset of the file.

        Raises
        ------
        NotFoundError
            ``not-recorded`` if the file has none of that name.
        """
        if self._has(path):  # as nearly always; only what did not fit lies elsewhere
            return self.field(path)
        place = self.place(path)
        values = self.field(place.field)
        return values if place.at is None else values[place.at]

    def alike(self, *paths: str) -> list[NDArray[Any]]:
        """Return datasets that have one entry for each of the same things.

        Raises
        ------
        InvalidInputError
            ``shape-mismatch`` if their numbers differ; errors as `dataset`.
        """
        found = [np.atleast_1d(self.dataset(path)) for path in paths]
        if len({len(values) for values in found}) > 1:
            shapes = ", ".join(f"{p} {v.shape}" for p, v in zip(paths, found, strict=True))
            message = (
                f"{self.about.path} at step {self.step}: expected as many of each, got {shapes}"
            )
            raise InvalidInputError(ErrorKind.SHAPE_MISMATCH, message)
        return found

    def place(self, path: str) -> KeptPlace:
        """Return where the values of a dataset lie; errors as `dataset`."""
        for member in self.about.hdf5 or ():
            if member.path == path and member.dataset is not None:
                return member.dataset.place
        message = f"{self.about.path} at step {self.step} has no dataset {path!r}"
        raise NotFoundError(ErrorKind.NOT_RECORDED, message)

    def _has(self, name: str) -> bool:
        known = self._run.ledger.at(Place.LAYERS, self.layer, name)
        return known is not None and known.has(self.step)


def files_at(run: RunView, step: int) -> list[LayerFile]:
    """Return the files that became layers at *step*, by the names of their layers."""
    layers = sorted(
        known.spec.layer
        for known in list(run.ledger.fields.values())
        if known.spec.layer is not None and known.spec.name == FILE and known.has(step)
    )
    return [LayerFile(run, layer, step) for layer in layers]


@lru_cache(maxsize=128)
def _parsed(data: bytes) -> KeptFile:
    return kept_file(data)
