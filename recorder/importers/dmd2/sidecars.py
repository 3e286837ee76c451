"""The JSON beside files of activations: what it tells of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archive_schema.errors import InvalidInputError
from archive_schema.systems.dmd2_files import KeptFiles, batch_text, record_of
from recorder.importers.dmd2.dataset import sidecar_samples

if TYPE_CHECKING:
    from recorder.importers.dmd2.activations import ActivationFile, Row
    from recorder.importers.dmd2.columns import Columns
    from recorder.importers.foreign_tree import ForeignTree


class Sidecars:
    """Reads the JSON beside each file once, and takes note of what the files have in common."""

    def __init__(self, tree: ForeignTree, columns: Columns) -> None:
        self.kept = KeptFiles(layout="batch", layers=())
        self.odd: list[str] = []
        self._tree = tree
        self._columns = columns
        self._read: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def coordinates(self, row: Row, file: ActivationFile, *, there: bool) -> dict[str, Any]:
        """Return what is told of a row, as sample coordinates.

        Parameters
        ----------
        there
            Whether there is such a JSON.
        """
        if (row.path, row.digest) not in self._read:
            single = row.path.rpartition("/")[2].startswith("sample_")
            layers = tuple(dict.fromkeys((*self.kept.layers, *file.layers)))
            layout = "sample" if single else "batch"
            self.kept = self.kept.model_copy(update={"layout": layout, "layers": layers})
            self._read[row.path, row.digest] = self._samples(row.path, file) if there else []
        samples = self._read[row.path, row.digest]
        return samples[row.index] if samples else {}

    def _samples(self, path: str, file: ActivationFile) -> list[dict[str, Any]]:
        try:
            with self._tree.open(f"{path}.json") as opened:
                samples, text = sidecar_samples(opened)
        except InvalidInputError as error:
            self.odd.append(f"not whole, left out: {error}")
            return []
        if len(samples) != file.samples:
            self.odd.append(
                f"{path}.json tells of {len(samples)} samples, and the file beside it holds"
                f" {file.samples}: it is another's, left out"
            )
            return []
        if not self.kept.keys:
            keys = tuple(dict.fromkeys(key for one in samples for key in one))
            self.kept = self.kept.model_copy(update={"keys": keys})
        found = [self._columns.coordinates(one) for one in samples]
        kept = self.kept.model_copy(update={"layers": tuple(file.layers)})
        if batch_text(kept, [record_of(one, kept.keys) for one in found]) != text:
            self.odd.append(f"{path}.json comes back with equal values, not byte for byte")
        return found
