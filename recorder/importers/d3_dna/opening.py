"""Tells the logger's two formats apart."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from recorder.importers import hdf5_file, npz_file
from recorder.importers.d3_dna.hdf5 import survey_hdf5
from recorder.importers.d3_dna.log import LogSource
from recorder.importers.d3_dna.npz import survey_npz
from recorder.importers.foreign import open_foreign
from recorder.importers.importer import FileImporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import StoreOptions


@contextmanager
def open_d3_dna(url: str, options: StoreOptions | None = None) -> Iterator[LogSource]:
    """Open the logger's file at *url*.

    Raises
    ------
    InvalidInputError
        ``file-invalid``.
    """
    with open_foreign(url, options) as file:
        if file.signature == hdf5_file.SIGNATURE:
            with hdf5_file.open_hdf5(file) as opened:
                yield LogSource(*survey_hdf5(file, opened))
        elif file.signature[:4] in npz_file.SIGNATURES:
            with npz_file.NpzFile(file) as npz:
                yield LogSource(*survey_npz(file, npz))
        else:
            begins = f"{file.nbytes} bytes that begin with {file.signature!r}"
            raise file.refuse(f"expected an HDF5 or an NPZ file, found {begins}")


IMPORTER: Final = FileImporter(
    open=open_d3_dna, signs=("steps/step_*", "score_matrices.npy", "sequences.npy")
)
