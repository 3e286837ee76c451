"""DMD2's data sets as they are recorded: their samples, neighbours and pictures."""

from server.systems.dmd2.dataset import ImageSet, image_set

__all__ = ["ImageSet", "image_set"]
