"""DNA-Diffusion's runs as files: sequences by cell type, all steps of them, and their matrices."""

from server.exporters.dna_diffusion.formats import EXPORTER

__all__ = ["EXPORTER"]
