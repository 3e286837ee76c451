"""What an earlier process of the writer left in its spool, taken over by the next.

Its fields are declared and its coordinates committed before anything else happens; its tiles
count as recorded, and drain while the sampler goes on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from archive_schema.errors import ConflictError, FormatError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from recorder.opened import OpenedRun
    from recorder.overflow import Overflow
    from recorder.spool import Entry


def adopt(overflow: Overflow, opened: OpenedRun) -> None:
    """Take over what waits in the spool.

    What is committed by now is forgotten. What is damaged, or contradicts what is recorded, is
    set aside and named (`Spool.refused`).

    Raises
    ------
    StorageError
        If the store did not take a declaration or the coordinates; nothing is lost then.
    """
    waiting = list(iter(overflow.spool.take, None))
    spent: list[Entry] = []
    # Each goes back before those that wait, so that the oldest ends up first.
    for entry in reversed(waiting):
        try:
            if not _waits(overflow, opened, entry):
                spent.append(entry)
        except (ConflictError, FormatError, InvalidInputError, NotFoundError) as error:
            overflow.refuse(entry, None, error)
    steps, samples = opened.coordinates.take()
    if steps or samples:
        opened.committer.put(opened.committer.next((), steps, samples))
    for entry in spent:
        overflow.committed(entry, None)


def _waits(overflow: Overflow, opened: OpenedRun, entry: Entry) -> bool:
    """Take over one file; return whether it holds a tile that is not recorded yet."""
    spooled = overflow.spool.head(entry)
    opened.coordinates.restore(spooled.steps, spooled.samples)
    tile = overflow.tile_of(spooled)
    if tile is None:
        return False
    spec = opened.encoder.declared(tile.spec)
    if opened.fields.get(spec.address) is None:
        opened.fields.resume(spec)
    if spec == tile.spec:  # one object, not one a tile
        tile = replace(tile, spec=spec)
    if not opened.encoder.expect(tile):
        return False
    opened.samples.resume(spec, tile.tile * spec.tile + tile.samples)
    overflow.adopt(entry, tile)
    return True
