"""ImageNet64's files, ``train_data_batch_1.npz`` and its like, as one run."""

from recorder.importers.imagenet64.source import IMPORTER, open_imagenet64

__all__ = ["IMPORTER", "open_imagenet64"]
