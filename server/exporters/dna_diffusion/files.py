"""What DNA-Diffusion's scripts write of a run, and what users have asked it to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.dna_diffusion import TAG
from server.exporters.dna_diffusion.sequences import (
    final_sequences,
    sequences_by_step,
    text_file,
)
from server.exporters.npz import npy_header
from server.exporters.values import Values
from server.exporters.virtual_file import Literal, VirtualFile

if TYPE_CHECKING:
    from server.exporters.cut import Cut
    from server.exporters.exporter import Built

_STATE: Final = "x"


def plain_text(cut: Cut) -> Built:
    """Return the final sequences, one a line and no line feed at the end, as ``{tag}.txt``."""
    sequences, notes = final_sequences(cut)
    return text_file(sequences, ends=False), (*cut.notes, *notes, *_mixed(cut))


def fasta(cut: Cut) -> Built:
    """Return ``>seq_<sample> <tag>`` and the final sequence, in two lines a sample."""
    sequences, notes = final_sequences(cut)
    known = cut.run.ledger.sample_coordinates.get(TAG)
    tags = {} if known is None else known.values

    def before(sample: int) -> bytes:
        return f">seq_{sample} {tags.get(sample, '')}".rstrip().encode() + b"\n"

    return text_file(sequences, before=before), (*cut.notes, *notes)


def timesteps(cut: Cut) -> Built:
    """Return a table as ``save_timesteps`` writes it: a column for each step, a row a sample."""
    sequences, notes = sequences_by_step(cut)
    header = Literal("\t".join(map(str, sequences.steps or ())).encode() + b"\n")
    return text_file(sequences, header=header), (*cut.notes, *notes, *_mixed(cut))


def matrices(cut: Cut) -> Built:
    """Return x, or the one field that was asked for, as ``.npy``: (step, sample, …).

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable`` if there is no x, and not just one other field by sample.
    """
    fields = {f.spec.name: f for f in cut.fields(Place.TRACE) if f.spec.sampled}
    field = fields.get(_STATE) or (next(iter(fields.values())) if len(fields) == 1 else None)
    if field is None:
        found = ", ".join(fields) or "none"
        message = f"expected x or one field, recorded for all samples asked for; found {found}"
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, f"{message}: name it by fields=")
    values = Values(field, cut.steps_of(field), cut.samples)
    head = Literal(npy_header(values.dtype, values.shape))
    return VirtualFile([head, values]), (*cut.notes, *_mixed(cut))


def _mixed(cut: Cut) -> tuple[str, ...]:
    """Say so if there is more than one cell type, because upstream has a file for each."""
    known = cut.run.ledger.sample_coordinates.get(TAG)
    tags = {} if known is None else known.values
    found = np.unique([str(tags.get(sample, "")) for sample in cut.samples]).tolist()
    if len(found) < 2:  # noqa: PLR2004
        return ()
    return (f"samples of {', '.join(found)} in one file: cell_type= asks for one",)
