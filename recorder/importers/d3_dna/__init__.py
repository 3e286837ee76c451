"""Files of D3-DNA's visualization logger, of every generation, HDF5 and NPZ."""

from recorder.importers.d3_dna.opening import IMPORTER, open_d3_dna

__all__ = ["IMPORTER", "open_d3_dna"]
