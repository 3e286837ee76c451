"""What DNA-Diffusion's runs are written as."""

from __future__ import annotations

from typing import Final

from server.exporters.dna_diffusion.files import fasta, matrices, plain_text, timesteps
from server.exporters.dna_diffusion.tree import dna_diffusion_tree
from server.exporters.exporter import Exporter, Format

EXPORTER: Final = Exporter(
    formats={
        "txt": Format("text/plain", ".txt", plain_text),
        "fasta": Format("text/x-fasta", ".fasta", fasta),
        "tsv": Format("text/tab-separated-values", ".tsv", timesteps),
        "npy": Format("application/x-npy", ".npy", matrices),
    },
    trees={"dna-diffusion-tree": dna_diffusion_tree},
)
