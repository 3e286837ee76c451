"""Uncompressed blocks of local files, read straight into a result.

1. Where a selection takes whole blocks, and they follow one another in the result as they do in
   their tile, a result is nothing but blocks: one call reads many, each to its place and its
   checksum beside it.
2. Each block is held against its checksum while the core's cache still has it.
3. A large result is cut into as many parts as there are cores, each filled by a thread: neither
   reading nor checking holds the interpreter.

Nothing is cached, because the operating system holds the very same bytes. Whatever is not as
committed ends the attempt: the general way then reads again, and says what is wrong.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.codecs import CHECKSUM_NBYTES
from archive_schema.errors import ArchiveError
from archive_schema.models import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from archive_schema.selection import Taken
    from archive_schema.store import LocalStore
    from server.query.field import FieldView
    from server.query.plan import Plan

LEAST_NBYTES: Final = 64 << 10
"""Below this a copy costs less than looking whether it can be saved."""
READ_NBYTES: Final = 1 << 20
"""Read at once: what a core's own cache still holds when the checksums are taken."""
PART_NBYTES: Final = 2 << 20
"""The least that is worth another thread: waking it, and two that take turns at the interpreter,
cost as much as reading 1 MB."""
_MOST_BLOCKS: Final = 500
"""The system takes 1024 buffers in a call, and a block is two."""


class _Read(NamedTuple):
    """Neighbouring blocks of one tile, from the offset *start*, and where each belongs."""

    key: str
    start: int
    blocks: list[memoryview]


def in_line(taken: Sequence[Taken], block: Sequence[int]) -> bool:
    """Return whether a selection is whole blocks, one after another in the result.

    Examples
    --------
    >>> in_line((range(8), range(512), range(512)), (1, 64, 512))  # all heads
    True
    >>> in_line((3, range(64, 192), range(512)), (1, 64, 512))  # rows of one
    True
    >>> in_line((3, range(512), range(64)), (1, 64, 64))  # rows go on in the next block
    True
    >>> in_line((3, range(512), range(512)), (1, 64, 64))
    False
    """
    cut = False
    for one, extent in zip(taken, block, strict=True):
        if isinstance(one, int):
            one = range(one, one + 1)  # noqa: PLW2901  the same, but for the axis
        if isinstance(one, tuple) or one.step != 1 or one.start % extent or len(one) % extent:
            return False
        if cut and len(one) != extent:
            return False
        cut = cut or extent > 1
    return True


class StraightReader:
    """Reads fields whose blocks are stored as readers get them.

    Parameters
    ----------
    least_bytes, part_bytes, read_bytes : int
        Of a result, of what a thread fills of it, and of one call.
    """

    def __init__(
        self,
        store: LocalStore,
        *,
        least_bytes: int = LEAST_NBYTES,
        part_bytes: int = PART_NBYTES,
        read_bytes: int = READ_NBYTES,
    ) -> None:
        self._store = store
        self._least_bytes, self._part_bytes, self._read_bytes = least_bytes, part_bytes, read_bytes
        self._threads = os.cpu_count() or 1
        # The pool starts its threads at the first use of it, not here.
        self._pool = ThreadPoolExecutor(self._threads, "trace-straight")

    def close(self) -> None:
        """End the threads; reads that are under way are waited for."""
        self._pool.shutdown()

    def fill(
        self,
        field: FieldView,
        block: tuple[int, ...],
        numbers: Sequence[int],
        plan: Plan,
        values: NDArray[Any],
    ) -> bool:
        """Read into *values*, of shape (steps, *axes after step), what is recorded.

        Returns
        -------
        bool
            False if this is not the way to read it, or if not all of it is as committed: *values*
            may hold anything then.
        """
        spec = field.spec
        plain = spec.codec.name == "raw" and spec.encoding is Encoding.PLAIN
        if not plain or values.nbytes < self._least_bytes or not in_line(plan.taken, block):
            return False
        reads = list(self._reads(field, block, numbers, plan, values))
        threads = max(1, min(self._threads, len(reads), values.nbytes // self._part_bytes))
        cuts = [len(reads) * at // threads for at in range(threads + 1)]
        others = [
            self._pool.submit(self._done, reads[start:stop]) for start, stop in pairwise(cuts[1:])
        ]
        done = self._done(reads[: cuts[1]])
        return all(one.result() for one in others) and done

    def _reads(
        self,
        field: FieldView,
        block: tuple[int, ...],
        numbers: Sequence[int],
        plan: Plan,
        values: NDArray[Any],
    ) -> Iterator[_Read]:
        """Yield what is read, in the order of *values*; what is absent is left out."""
        nbytes = values.itemsize * math.prod(block)
        most = min(_MOST_BLOCKS, max(1, self._read_bytes // nbytes))
        room = values.reshape(-1).view(np.uint8).data
        place = 0
        for number in numbers:
            for part in plan.parts:
                ends = field.ends(number, part.tile)
                if ends is None:
                    place += nbytes * len(part.blocks)
                    continue
                key = field.tile_key(number, part.tile)
                known = [0, *ends[: part.blocks[-1] + 1].tolist()]
                start, stop, blocks = 0, -1, list[memoryview]()
                for at in part.blocks:
                    begin, end = known[at], known[at + 1]
                    if begin != stop or len(blocks) == most:
                        if blocks:
                            yield _Read(key, start, blocks)
                        start, blocks = begin, []
                    if end > begin:
                        blocks.append(room[place : place + nbytes])
                    place += nbytes
                    stop = end
                if blocks:
                    yield _Read(key, start, blocks)

    def _done(self, reads: Sequence[_Read]) -> bool:
        """Read and check; whether a block is as long as it should be, its checksum tells too."""
        for key, start, blocks in reads:
            checksums = memoryview(bytearray(CHECKSUM_NBYTES * len(blocks)))
            buffers = []
            for at, block in enumerate(blocks):
                buffers.append(block)
                buffers.append(checksums[CHECKSUM_NBYTES * at : CHECKSUM_NBYTES * (at + 1)])
            try:
                found = self._store.read_into(key, start, buffers)
            except ArchiveError:
                return False
            if found != sum(map(len, buffers)):
                return False
            for block, checksum in zip(buffers[::2], buffers[1::2], strict=True):
                if crc32c(block) != int.from_bytes(checksum, "little"):
                    return False
        return True
