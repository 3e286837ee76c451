"""Where everything of a run lies, and how an array is cut into tiles and blocks.

Pure arithmetic on names and numbers; `docs/format.md` tells the same in prose.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from archive_schema.errors import ErrorKind, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from archive_schema.models import FieldSpec, Place, RunManifest

RUNS: Final = "runs"
ANNOTATIONS: Final = "annotations"
"""Folder of what may change of runs, beside theirs."""
ZARR: Final = "trace.zarr"
TARGET_BLOCK_NBYTES: Final = 32 * 1024
"""A block of small samples holds about this much, so that a few cost one short read."""
MAP_BLOCK_NBYTES: Final = 128 * 1024
"""A block of a large map, such as an attention head, holds about this much: for a window of it
one or two blocks are read and checked, and a codec loses little."""
LARGEST_BLOCK_NBYTES: Final = 1024 * 1024
"""No block holds more, as long as it has more than one value along its last axis."""


def run_prefix(run_id: str) -> str:
    """Return the folder of a run, without a trailing slash."""
    return f"{RUNS}/{run_id}"


def manifest_key(run_id: str) -> str:
    """Return the key of the `RunManifest`."""
    return f"{RUNS}/{run_id}/run.json"


def seal_key(run_id: str) -> str:
    """Return the key of the `Seal`."""
    return f"{RUNS}/{run_id}/seal.json"


def generation_key(run_id: str, number: int) -> str:
    """Return the key of the `Generation` of a number, from 1."""
    return f"{RUNS}/{run_id}/generations/{number:06d}.json"


def sealing_key(run_id: str) -> str:
    """Return the key of the `Sealing`."""
    return f"{RUNS}/{run_id}/sealing.json"


def field_key(run_id: str, path: str) -> str:
    """Return the key of the `FieldSpec` at *path*."""
    return f"{RUNS}/{run_id}/fields/{path}.json"


def commits_prefix(run_id: str) -> str:
    """Return the folder that holds a folder for each writer."""
    return f"{RUNS}/{run_id}/commits"


def epoch_prefix(run_id: str, writer: str, epoch: int) -> str:
    """Return the folder of one opening of the run by one writer."""
    return f"{RUNS}/{run_id}/commits/{writer}/{epoch:06d}"


def claim_key(run_id: str, writer: str, epoch: int) -> str:
    """Return the key of the `Claim` of an epoch."""
    return f"{epoch_prefix(run_id, writer, epoch)}/claim.json"


def commit_key(run_id: str, writer: str, epoch: int, sequence: int) -> str:
    """Return the key of one `Commit`."""
    return f"{epoch_prefix(run_id, writer, epoch)}/{sequence:08d}.json"


def heartbeat_key(run_id: str, writer: str) -> str:
    """Return the key of the `Heartbeat` of a writer."""
    return f"{RUNS}/{run_id}/heartbeats/{writer}.json"


def zarr_key(run_id: str, path: str, zarr: str = ZARR) -> str:
    """Return the key of *path* inside the run's Zarr hierarchy."""
    return f"{RUNS}/{run_id}/{zarr}/{path}"


def field_path(place: Place, layer: str | None, name: str) -> str:
    """Return the path of a field's declaration, which also names the field in commits.

    Examples
    --------
    >>> from archive_schema.models import Place
    >>> field_path(Place.TRACE, None, "score_matrix")
    'trace/score_matrix'
    >>> field_path(Place.LAYERS, "blocks.11", "output")
    'layers/blocks.11/output'
    """
    return f"{place}/{name}" if layer is None else f"{place}/{encode_layer(layer)}/{name}"


def array_path(spec: FieldSpec, step: int | None = None) -> str:
    """Return the path of a field's Zarr array; of a ragged field, of its array at *step*.

    Fields recorded at the same steps lie in one group, so that xarray opens the group
    with one step coordinate; another cadence is a sibling group.

    Examples
    --------
    ``trace/score_matrix``, ``trace_every_4/attention``, ``layers/blocks.11/output``,
    ``ragged/trace/scores/17/scores``.
    """
    if spec.ragged:
        return f"ragged/{field_path(*spec.address)}/{step}/{spec.name}"
    return f"{group_path(spec)}/{spec.name}"


def group_path(spec: FieldSpec) -> str:
    """Return the path of the Zarr group that holds a field's array."""
    cadence = ""
    if spec.every > 1 or spec.first:
        cadence = f"_every_{spec.every}" + (f"_from_{spec.first}" if spec.first else "")
    root = f"{spec.place}{cadence}"
    return root if spec.layer is None else f"{root}/{encode_layer(spec.layer)}"


def encode_layer(layer: str) -> str:
    """Return *layer* as one Zarr node name; letters, digits, ``.``, ``_``, ``-`` stay.

    Examples
    --------
    >>> encode_layer("blocks.11.mlp"), encode_layer("a/b"), encode_layer("..")
    ('blocks.11.mlp', 'a%2Fb', '%2E.')
    """
    text = quote(layer, safe="")
    if text.startswith("__") or not text.strip("."):
        text = f"%{ord(text[0]):02X}{text[1:]}" if text else "%"
    return text


def decode_layer(text: str) -> str:
    """Return the layer that `encode_layer` wrote as *text*."""
    return "" if text == "%" else unquote(text)


def tile_key(run_id: str, spec: FieldSpec, position: int, tile: int, zarr: str = ZARR) -> str:
    """Return the key of one tile: a shard of the field's Zarr array.

    Parameters
    ----------
    position : int
        Position on the field's own step axis (`step_position`); for a ragged field, the
        step number; ignored for inputs and outputs.
    tile : int
        Position on the tile grid of the sample axis; 0 without one.
    """
    return tile_keys(run_id, spec, zarr)(position, tile)


def tile_keys(run_id: str, spec: FieldSpec, zarr: str = ZARR) -> Callable[[int, int], str]:
    """Return `tile_key` of one field: what its keys share is put together once."""
    if spec.ragged:
        chunk = "c" + ".0" * (len(spec.dims) - 1)
        return lambda step, _: zarr_key(run_id, f"{array_path(spec, step)}/{chunk}", zarr)
    array = zarr_key(run_id, array_path(spec), zarr).replace("{", "{{").replace("}", "}}")
    leading = (("{0}",) if spec.place.stepped else ()) + (("{1}",) if spec.tile else ())
    shard = leading + ("0",) * len(spec.tail)
    return f"{array}/{'.'.join(('c', *shard))}".format


def stored_key(
    manifest: RunManifest, spec: FieldSpec, step: int, tile: int, zarr: str = ZARR
) -> str:
    """Return the key at which a committed tile has its home: `tile_key` by the step's number.

    Raises
    ------
    FormatError
        ``record-damaged`` for a step that has no place in the field's array.
    """
    return stored_keys(manifest, spec, zarr)(step, tile)


def stored_keys(
    manifest: RunManifest, spec: FieldSpec, zarr: str = ZARR
) -> Callable[[int, int], str]:
    """Return `stored_key` of one field: what its keys share is put together once."""
    key = tile_keys(manifest.id, spec, zarr)
    if spec.ragged or not spec.place.stepped:
        return key

    def stored(step: int, tile: int) -> str:
        position = step_position(manifest, spec, step)
        if position is None:
            path = field_path(*spec.address)
            message = f"field {path!r}: step {step} is committed, but has no place in the array"
            raise FormatError(ErrorKind.RECORD_DAMAGED, message)
        return key(position, tile)

    return stored


def aside_key(run_id: str, key: str, writer: str, epoch: int) -> str:
    """Return where a writer puts the tile of *key* when that key is taken.

    Nobody else ever writes there, so that no writer can harm another's tile.
    """
    path = key.removeprefix(zarr_key(run_id, ""))
    return f"{RUNS}/{run_id}/displaced/{writer}/{epoch:06d}/{path}"


def step_position(manifest: RunManifest, spec: FieldSpec, step: int) -> int | None:
    """Return where *step* lies on the step axis of the field's Zarr array, or None if nowhere."""
    axis = manifest.steps
    if isinstance(axis, tuple):
        at = bisect_left(axis, step)
        if axis[at : at + 1] != (step,):
            return None
    elif axis is None or step < axis:
        at = step
    else:
        return None
    position, rest = divmod(at - spec.first, spec.every)
    return None if rest or position < 0 else position


def field_steps(spec: FieldSpec, steps: Sequence[int]) -> Sequence[int]:
    """Return the steps at which a field can be recorded, of the run's *steps*."""
    return steps[spec.first :: spec.every]


def declared_steps(manifest: RunManifest) -> Sequence[int] | None:
    """Return the run's step numbers, if it declared them."""
    return range(manifest.steps) if isinstance(manifest.steps, int) else manifest.steps


def tile_extent(spec: FieldSpec, tile: int, samples: int | None) -> tuple[int, int]:
    """Return the samples ``[start, stop)`` of a tile in a run of *samples* samples."""
    start = tile * spec.tile
    stop = start + spec.tile
    return start, stop if samples is None else min(stop, samples)


def choose_block(tile_shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the extent of a block for tiles of *tile_shape*.

    Of the first axis as many entries as `TARGET_BLOCK_NBYTES` takes; where a single one is
    above `MAP_BLOCK_NBYTES`, one entry, and of the next axis such a part that a block comes
    closest to that. A block divides its tile evenly, because Zarr's sharding demands it.

    Examples
    --------
    >>> choose_block((100, 249, 4), 2)  # a score matrix: 10 samples
    (10, 249, 4)
    >>> choose_block((1, 8, 512, 512), 2)  # attention: a quarter of a head
    (1, 1, 128, 512)
    >>> choose_block((8, 251, 251), 4)  # a prime: a head, rather than a single row
    (1, 251, 251)
    """
    block = [max(extent, 1) for extent in tile_shape]
    for axis, extent in enumerate(block):
        rest = itemsize * math.prod(block[axis + 1 :])
        if rest > MAP_BLOCK_NBYTES:
            block[axis] = 1
        elif axis == 0:
            block[axis] = max(_divisors(extent, TARGET_BLOCK_NBYTES // rest))
            break
        else:
            parts = _divisors(extent, LARGEST_BLOCK_NBYTES // rest)
            block[axis] = min(parts, key=lambda part: abs(math.log(part * rest / MAP_BLOCK_NBYTES)))
            break
    return tuple(block)


def blocks_per_axis(tile_shape: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """Return the grid of blocks in a tile, in C order; its product is 0 for an empty tile."""
    return tuple(-(-extent // part) for extent, part in zip(tile_shape, block, strict=True))


def _divisors(number: int, limit: int) -> list[int]:
    """Return the divisors of *number* up to *limit*, or 1."""
    pairs = (
        (divisor, number // divisor)
        for divisor in range(1, math.isqrt(number) + 1)
        if number % divisor == 0
    )
    return [part for pair in pairs for part in pair if part <= max(limit, 1)]
