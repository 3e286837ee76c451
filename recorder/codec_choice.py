"""Which codec a field gets where the caller names none: by its kind, and raw where nothing shrinks.

The choice and what was measured are in `docs/format.md`; `benchmarks/bench_codecs.py` repeats it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from archive_schema.codecs import encode_tile
from archive_schema.dtypes import is_text, numpy_dtype
from archive_schema.layout import choose_block
from archive_schema.models import Codec, Encoding, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.dtypes import Storage
    from archive_schema.models import FieldSpec

_ENTROPY: Final = Codec(name="zstd", level=1)
_BITS: Final = Codec(name="blosc", level=1, compressor="lz4", shuffle="bitshuffle")
_BYTES: Final = Codec(name="blosc", level=1, compressor="lz4", shuffle="shuffle")
_BITS_OF_A_ROW: Final = 8
"""Blosc leaves bits as they are, and says nothing, unless their values fill whole bytes."""
_SHORT_FLOAT_NBYTES: Final = 2
_LEAST_RATIO: Final = 1.15
"""Below this a codec costs more than its bytes are worth."""


def default_codec(storage: Storage, block: Sequence[int]) -> Codec:
    """Choose a codec by what the values are.

    Parameters
    ----------
    block
        Extent of a block; empty where it differs from step to step.

    Examples
    --------
    >>> from archive_schema.dtypes import storage_of
    >>> default_codec(storage_of("float16"), (10, 249, 4)).name
    'zstd'
    >>> default_codec(storage_of("int64", tokens=True), (64, 249)).shuffle
    'bitshuffle'
    """
    dtype = numpy_dtype(storage.stored)
    is_float = dtype.kind == "f" or storage.encoding is Encoding.BITS
    if is_text(storage.stored) or (is_float and dtype.itemsize <= _SHORT_FLOAT_NBYTES):
        return _ENTROPY
    if block and math.prod(block) % _BITS_OF_A_ROW == 0:
        return _BITS
    return _BYTES if dtype.itemsize > 1 else _ENTROPY


def worthwhile_codec(spec: FieldSpec, stored: NDArray[Any]) -> Codec:
    """Return the codec of *spec*, or ``raw`` if its first tile hardly shrinks and stands for all.

    A field of the trace follows the noise: its first tile says nothing of its last one. What a
    layer gives out keeps its kind from step to step, and inputs and outputs have no other steps.

    Parameters
    ----------
    stored
        Values of the first tile, as `encode_tile` takes them.
    """
    if spec.place is Place.TRACE or not stored.size:
        return spec.codec
    block = spec.block
    if spec.ragged:
        block = choose_block(stored.shape, numpy_dtype(spec.stored_dtype).itemsize)
    nbytes = len(encode_tile(stored, spec, block).data)
    return spec.codec if stored.nbytes >= _LEAST_RATIO * nbytes else Codec(name="raw")
