"""What DNA-Diffusion's scripts write: sequences by cell type, all steps of them, cross maps."""

from typing import Final

from recorder.importers.dna_diffusion.opening import open_dna_diffusion
from recorder.importers.importer import FileImporter

IMPORTER: Final = FileImporter(
    open=open_dna_diffusion,
    signs=("cross_att_values_*.npy", "*_save_timesteps.txt", "*_ENCLB*.txt"),
)

__all__ = ["IMPORTER"]
