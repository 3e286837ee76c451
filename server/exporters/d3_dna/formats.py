"""What D3-DNA's runs are written as."""

from __future__ import annotations

from typing import Final

from server.exporters.d3_dna.files import logger_hdf5, logger_npz
from server.exporters.d3_dna.sequences import (
    csv,
    fasta,
    one_hot_npz,
    plain_text,
    tokens_hdf5,
    tokens_npz,
)
from server.exporters.d3_dna.viewer import viewer_json
from server.exporters.exporter import Exporter, Format

_HDF5: Final = "application/x-hdf5"
_NPZ: Final = "application/x-npz"

EXPORTER: Final = Exporter(
    formats={
        "h5": Format(_HDF5, ".h5", logger_hdf5),
        "npz": Format(_NPZ, ".npz", logger_npz),
        "json": Format("application/json", ".json", viewer_json),
        "fasta": Format("text/x-fasta", ".fasta", fasta),
        "txt": Format("text/plain", ".txt", plain_text),
        "csv": Format("text/csv", ".csv", csv),
        "sequences-npz": Format(_NPZ, "_sequences.npz", tokens_npz),
        "sequences-h5": Format(_HDF5, "_sequences.h5", tokens_hdf5),
        "onehot-npz": Format(_NPZ, "_onehot.npz", one_hot_npz),
    },
)
