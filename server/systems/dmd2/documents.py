"""What DMD2's calls answer with."""

from __future__ import annotations

from archive_schema.wire import WireDocument


class ImageLayerDocument(WireDocument):
    """One layer, and where it is in a flat row of all layers."""

    layer: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    """Of one sample."""
    features: int
    start: int
    """In a flat row, which has the layers in the order of their names."""


class ImageSetDocument(WireDocument):
    """A data set of images."""

    run: str
    model: str
    samples: int
    named: int
    """Samples that the files tell the name of."""
    class_order: str | None
    """``standard``, ``imagenet64`` or ``other``; None without a codebook."""
    classes: int
    layers: tuple[ImageLayerDocument, ...]
    width: int
    """Values in a flat row of all layers."""
    pictures: tuple[str, ...]
    """Outputs that are pictures."""
    embeddings: tuple[str, ...]


class CellDocument(WireDocument):
    """One picture on a sheet, in pixels from its upper left corner."""

    sample: int
    sample_id: str | None
    x: int
    y: int
    width: int
    height: int
    recorded: bool


class AtlasDocument(WireDocument):
    """Which picture is where on a sheet of the same parameters."""

    run: str
    field: str
    size: int
    columns: int
    cells: tuple[CellDocument, ...]
