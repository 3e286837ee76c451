"""DMD2's data sets as they are recorded: their samples, neighbours and pictures."""

from server.systems.dmd2.dataset import ImageSet, features_of, image_set

__all__ = ["ImageSet", "features_of", "image_set"]
