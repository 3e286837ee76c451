"""Finds the files of a run: those of a folder, of several cell types, or a single one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from archive_schema.errors import InvalidInputError
from archive_schema.systems.dna_diffusion import tag_of_cross, tag_of_sequences
from recorder.importers.dna_diffusion import cross, text
from recorder.importers.dna_diffusion.cells import cells_of
from recorder.importers.dna_diffusion.source import FolderSource
from recorder.importers.foreign import open_foreign
from recorder.importers.foreign_tree import ForeignTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import StoreOptions

_BELOW: Final = ("data", "data/outputs")
"""Where the scripts put sequences, seen from where they put cross maps."""


@contextmanager
def open_dna_diffusion(url: str, options: StoreOptions | None = None) -> Iterator[FolderSource]:
    """Open the folder or the file at *url*.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if nothing there is what DNA-Diffusion writes.
    """
    tree = ForeignTree(url, options)
    paths = list(tree.files("", _BELOW.__contains__))
    folder, _, name = tree.url.rpartition("/")
    beside = ForeignTree(folder or ".", options)
    if not paths and name not in beside.folders():
        tree, paths = beside, [name]
        with open_foreign(url, options):  # says what is wrong if there is no such file
            pass
    sequences: list[text.TextFile] = []
    crosses: list[cross.CrossFile] = []
    odd: list[str] = []
    for path in paths:
        name = path.rpartition("/")[2]
        crossed, tag = tag_of_cross(name), tag_of_sequences(name)
        try:
            if crossed is not None:
                with tree.open(path) as file:
                    crosses.append(cross.survey(file, path, crossed))
            elif tag is not None:
                with tree.open(path) as file:
                    sequences.append(text.survey(file, path, tag))
            else:
                odd.append(f"{path} is nothing that DNA-Diffusion writes: left out")
        except InvalidInputError as error:
            odd.append(f"{error}: left out")
    odd += (sentence for file in sequences for sentence in file.odd)
    cells = cells_of(sequences, crosses, odd)
    if not cells:
        there = "; ".join(odd[:8]) or "nothing"
        message = f"expected files of sequences, such as K562_ENCLB843GMH.txt; found {there}"
        raise tree.refuse(message)
    yield FolderSource(tree, cells, odd)
