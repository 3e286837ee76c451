"""Which codec for which kind of field: how small, how fast in, how fast out, and what noise costs.

Blocks of `benchmarks.kinds` as a recorder cuts them, encoded and decoded by one thread with their
checksums, in interleaved rounds; MB of 10^6 bytes of values, a second of CPU time. Decoded values
are compared before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.codecs import decode_block, encode_block
from archive_schema.dtypes import Storage, dtype_name
from archive_schema.layout import blocks_per_axis, choose_block
from archive_schema.models import Codec, Encoding
from benchmarks.findings import Findings
from benchmarks.kinds import NOISE, fields
from benchmarks.traces import QUICK
from recorder.codec_choice import default_codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Field = NDArray[Any]

_CODECS: Final = {
    "raw": Codec(name="raw"),
    "zstd -1": Codec(name="zstd", level=-1),
    "zstd 1": Codec(name="zstd", level=1),
    "zstd 3": Codec(name="zstd", level=3),
    "lz4, shuffle": Codec(name="blosc", compressor="lz4", shuffle="shuffle"),
    "lz4, bitshuffle": Codec(name="blosc", compressor="lz4", shuffle="bitshuffle"),
    "zstd 1, shuffle": Codec(name="blosc", compressor="zstd", shuffle="shuffle"),
    "zstd 1, bitshuffle": Codec(name="blosc", compressor="zstd", shuffle="bitshuffle"),
}
_ROUNDS: Final = 3 if QUICK else 7
_MOST_BLOCKS: Final = 24
_ROUND_NBYTES: Final = 300_000
_MEDIUM: Final = 100e6
"""Bytes a second of a store at some distance."""


def report() -> Findings:
    """Return three tables: sizes and speeds, the cost of a round trip, and step by step."""
    known = fields()
    measured = {name: _measure(values) for name, values in known.items()}
    found = Findings()
    found.text("\n".join([*_speeds(known, measured), *_round_trips(measured), *_steps(known), ""]))
    return found


def _speeds(
    known: dict[str, Field], measured: dict[str, dict[str, tuple[float, float, float]]]
) -> Iterator[str]:
    yield "### Ratio, and encoded / decoded MB a second; the default in bold\n"
    yield f"| field | {' | '.join(_CODECS)} |"
    yield f"|---|{'---:|' * len(_CODECS)}"
    for name, ways in measured.items():
        chosen = _default(name, known[name])
        cells = []
        for way, (ratio, encoded, decoded) in ways.items():
            bold = "**" if _CODECS[way] == chosen else ""
            cells.append(f"{bold}{ratio:.2f}{bold}, {encoded:.0f} / {decoded:.0f}")
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _round_trips(measured: dict[str, dict[str, tuple[float, float, float]]]) -> Iterator[str]:
    yield f"### Milliseconds to encode a MB, move it at {_MEDIUM / 1e6:.0f} MB/s, and decode it\n"
    yield f"| field | {' | '.join(_CODECS)} |"
    yield f"|---|{'---:|' * len(_CODECS)}"
    for name, ways in measured.items():
        costs = [
            1e3 / encoded + 1e9 / _MEDIUM / ratio + 1e3 / decoded
            for ratio, encoded, decoded in ways.values()
        ]
        cells = (f"**{cost:.1f}**" if cost == min(costs) else f"{cost:.1f}" for cost in costs)
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _steps(known: dict[str, Field]) -> Iterator[str]:
    yield "### Ratio of the default from the first to the last step\n"
    yield "| field | first | a quarter | half | three quarters | last |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, values in known.items():
        if name.startswith(NOISE):
            continue
        codec = _default(name, values)
        at = np.linspace(0, len(values) - 1, 5).astype(int)
        ratios = (_ratio(list(_blocks(values[n : n + 1])), codec) for n in at)
        yield f"| {name} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |"
    yield ""


def _measure(values: Field) -> dict[str, tuple[float, float, float]]:
    """Return ratio, and MB/s of encoding and decoding, for each codec."""
    blocks = list(_blocks(values))
    blocks = blocks[:: -(-len(blocks) // _MOST_BLOCKS)]
    nbytes = sum(block.nbytes for block in blocks)
    calls = -(-_ROUND_NBYTES // nbytes)
    dtype, shape = dtype_name(values.dtype), blocks[0].shape
    packed = {way: [encode_block(one, codec) for one in blocks] for way, codec in _CODECS.items()}
    for way, codec in _CODECS.items():
        for stored, block in zip(packed[way], blocks, strict=True):
            if decode_block(stored, codec, dtype, shape).tobytes() != block.tobytes():
                message = f"{way} gives back other values"
                raise AssertionError(message)
    spent: dict[str, list[tuple[float, float]]] = {way: [] for way in _CODECS}
    for _ in range(_ROUNDS):
        for way, codec in _CODECS.items():
            start = time.process_time()
            for block in blocks * calls:
                encode_block(block, codec)
            middle = time.process_time()
            for stored in packed[way] * calls:
                decode_block(stored, codec, dtype, shape)
            spent[way].append((middle - start, time.process_time() - middle))
    found = {}
    for way, times in spent.items():
        encoded, decoded = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = nbytes / sum(map(len, packed[way]))
        found[way] = (ratio, *(nbytes * calls / 1e6 / spent_s for spent_s in (encoded, decoded)))
    return found


def _ratio(blocks: list[Field], codec: Codec) -> float:
    return sum(b.nbytes for b in blocks) / sum(len(encode_block(b, codec)) for b in blocks)


def _blocks(values: Field) -> Iterator[Field]:
    """Cut each step into blocks, as a recorder does."""
    shape = choose_block(values.shape[1:], values.dtype.itemsize)
    for step in values:
        for at in product(*map(range, blocks_per_axis(step.shape, shape))):
            part = step[tuple(slice(n * b, (n + 1) * b) for n, b in zip(at, shape, strict=True))]
            yield np.ascontiguousarray(part)


def _default(name: str, values: Field) -> Codec:
    """Return what a recorder chooses for a field of the trace."""
    dtype = dtype_name(values.dtype)
    encoding = Encoding.BITS if name.endswith("bits") else Encoding.PLAIN
    block = choose_block(values.shape[1:], values.dtype.itemsize)
    return default_codec(Storage(dtype, dtype, dtype, encoding), block)
