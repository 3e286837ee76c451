"""The tree of files of a simulation, as BATCHIE's own loaders read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.systems.batchie import SCREEN, kind_of
from server.exporters.exporter import Exporter
from server.exporters.kept_files import kept_tree_file
from server.exporters.tree import Tree
from server.systems.batchie import Simulation
from server.systems.layer_file import files_at

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from server.exporters.kept_files import Change
    from server.query import RunView
    from server.systems.layer_file import LayerFile


def batchie_tree(run: RunView, steps: Collection[int]) -> Tree:
    """Return ``iter_I/plate_J/<screen>/…`` of the latest attempts at *steps*.

    Files of which a part is still on its way, in a live run, are left out.
    """
    return _tree(run, steps, hide_masked=False)


def masked_batchie_tree(run: RunView, steps: Collection[int]) -> Tree:
    """Return the tree with NaN for observations of plates that are not observed."""
    return _tree(run, steps, hide_masked=True)


def _tree(run: RunView, steps: Collection[int], *, hide_masked: bool) -> Tree:
    simulation = Simulation(run)
    files, notes = [], []
    for folder in simulation.folders:
        if folder.step not in steps:
            continue
        if not folder.current:
            notes.append(f"step {folder.step} is an earlier attempt at {folder.path}: left out")
            continue
        for file in files_at(run, folder.step):
            if not file.whole:
                notes.append(f"{folder.path}/{file.about.path} is not whole yet: left out")
                continue
            change = _hiding(file) if hide_masked and kind_of(file.layer) is SCREEN else None
            files.append(kept_tree_file(file, f"{folder.path}/{simulation.screen}", change))
    return Tree.of(files, notes)


def _hiding(file: LayerFile) -> Change:
    def change(path: str, values: NDArray[Any]) -> NDArray[Any]:
        if path != "observations":
            return values
        hidden: NDArray[Any] = np.where(file.dataset("observation_mask"), values, np.nan)
        return hidden

    return change


EXPORTER: Final = Exporter(
    trees={"batchie-tree": batchie_tree, "batchie-tree-masked": masked_batchie_tree}
)
