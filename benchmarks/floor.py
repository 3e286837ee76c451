"""What cannot be done faster from Python: read the bytes of blocks and decode them, nothing else.

Everything that a reader must find out (which object, which bytes, which codec) is known beforehand;
nothing is checked.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard
from numcodecs import Blosc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from archive_schema.models import Codec
    from server.query.field import FieldView

_CHECKSUM_NBYTES = 4


class Floor:
    """Reads slices of a field recorded in one tile a step.

    Parameters
    ----------
    root
        Folder of the store.
    """

    def __init__(self, field: FieldView, root: Path) -> None:
        spec = field.spec
        self._decode = _decoder(spec.codec)
        self._dtype, self._tail = np.dtype(spec.stored_dtype), spec.tail
        self._samples, self._extent = field.run.samples, spec.block[0]
        self._paths = {step: f"{root}/{field.tile_key(step, 0)}" for step in field.steps}
        ends = {step: field.ends(step, 0) for step in field.steps}
        self._ends = {
            step: [0, *taken.tolist()] for step, taken in ends.items() if taken is not None
        }

    def __getitem__(self, at: tuple[Any, ...]) -> NDArray[Any]:
        """Return what NumPy would, of steps and of samples that follow each other."""
        steps, samples = (*at, slice(None))[:2]
        if isinstance(steps, int):
            return self._read(steps, samples)
        return np.stack([self._read(step, samples) for step in range(len(self._paths))[steps]])

    def _read(self, step: int, samples: int | slice) -> NDArray[Any]:
        wanted = range(self._samples)[samples]
        start, stop = (
            (wanted, wanted + 1) if isinstance(wanted, int) else (wanted[0], wanted[-1] + 1)
        )
        first, last = start // self._extent, -(-stop // self._extent)
        ends = self._ends[step][first : last + 1]
        opened = os.open(self._paths[step], os.O_RDONLY)
        try:
            data = os.pread(opened, ends[-1] - ends[0], ends[0])
        finally:
            os.close(opened)
        blocks = [
            self._block(data[begin - ends[0] : end - ends[0] - _CHECKSUM_NBYTES])
            for begin, end in pairwise(ends)
        ]
        whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        start, stop = start - first * self._extent, stop - first * self._extent
        taken: NDArray[Any] = whole[start if isinstance(wanted, int) else slice(start, stop)]
        return taken

    def _block(self, data: bytes) -> NDArray[Any]:
        return np.frombuffer(self._decode(data), self._dtype).reshape(self._extent, *self._tail)


def _decoder(codec: Codec) -> Callable[[bytes], Any]:
    if codec.name == "zstd":
        return zstandard.ZstdDecompressor().decompress
    if codec.name == "blosc":
        return Blosc().decode  # type: ignore[no-any-return]
    return bytes
