"""A folder with the files of each cell type, as DNA-Diffusion's scripts name them."""

from __future__ import annotations

from functools import partial
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from archive_schema.errors import NotFoundError
from archive_schema.layout import encode_layer
from archive_schema.systems.dna_diffusion import (
    CROSS_FILE,
    SEQUENCES_FILE,
    TAG,
    TIMESTEPS_FILE,
)
from server.exporters.cut import cut_run
from server.exporters.dna_diffusion.files import fasta, matrices, plain_text, timesteps
from server.exporters.tree import Tree, TreeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from archive_schema.selection import Selector
    from server.exporters.cut import Cut
    from server.exporters.exporter import Built
    from server.exporters.virtual_file import VirtualFile
    from server.query import RunView

_FILES: Final[tuple[tuple[str, tuple[str, ...], Callable[[Cut], Built]], ...]] = (
    (SEQUENCES_FILE, ("final_sequence",), plain_text),
    ("{tag}.fasta", ("final_sequence",), fasta),
    (TIMESTEPS_FILE, ("tokens", "x"), timesteps),
    ("{tag}.npy", ("x",), matrices),
    (CROSS_FILE, ("cross",), matrices),
)
"""Names, the fields of which one is needed, and what makes them."""


def dna_diffusion_tree(run: RunView, steps: Collection[int]) -> Tree:
    """Return the files of each tag, as far as what is in them is recorded."""
    there = {field.spec.name for field in run.fields() if field.spec.layer is None}
    chosen = None if set(steps) >= set(run.steps) else tuple(sorted(steps))
    files, notes = [], []
    for tag, samples in _tagged(run).items():
        for name, fields, build in _FILES:
            wanted = [one for one in fields if one in there]
            path = name.format(tag=encode_layer(tag))
            if not wanted:
                continue
            taken = _crossed(run, samples) if name == CROSS_FILE else samples
            if not taken:
                continue
            try:
                made, said = build(cut_run(run, chosen, _selector(taken), wanted))
            except NotFoundError as error:
                notes.append(f"{path} is left out: {error}")
                continue
            files.append(_tree_file(run, path, made))
            notes += [f"{path}: {one}" for one in said]
    return Tree.of(files, notes)


def _tagged(run: RunView) -> dict[str, tuple[int, ...]]:
    """Return tags and their samples; of a run that has no tags, all under its own name."""
    known = run.ledger.sample_coordinates.get(TAG)
    if known is None:
        return {run.manifest.id: tuple(range(run.samples))}
    samples: dict[str, list[int]] = {}
    for sample, tag in sorted(known.values.items()):
        samples.setdefault(str(tag), []).append(sample)
    return {tag: tuple(found) for tag, found in samples.items()}


def _crossed(run: RunView, samples: tuple[int, ...]) -> tuple[int, ...]:
    """Return those of *samples* whose cross maps are recorded: upstream keeps the last batch's."""
    ledger = run.field("cross").ledger
    recorded = ledger.recorded(run.samples, ledger.steps)
    there = set(np.flatnonzero(recorded.sum(axis=0)).tolist())
    return tuple(sample for sample in samples if sample in there)


def _selector(samples: tuple[int, ...]) -> Selector:
    first, last = samples[0], samples[-1]
    return slice(first, last + 1) if last - first == len(samples) - 1 else samples


def _tree_file(run: RunView, path: str, made: VirtualFile) -> TreeFile:
    made.ahead = run.archive.reader.ahead
    return TreeFile(path, made.size, made.digest, partial(_write, made))


def _write(made: VirtualFile, target: IO[bytes]) -> None:
    for part in made.read():
        target.write(part)
