"""Fields of every kind, partly recorded, and selections of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hypothesis import strategies as st

from archive_schema.layout import field_steps
from archive_schema.models import Codec, FieldSpec, Place
from tests.query.builder import spec_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.selection import Selector

DTYPES: Final = (
    "bool", "int8", "uint16", "int64", "float16", "float32", "float64", "U3", "S2",
)  # fmt: skip
CODECS: Final = (
    Codec(),
    Codec(name="raw"),
    Codec(name="zstd", level=3),
    Codec(name="blosc", compressor="lz4", shuffle="bitshuffle"),
    Codec(name="blosc", compressor="zstd", shuffle="shuffle"),
)


@dataclass(frozen=True, slots=True)
class RandomField:
    """A field, the run's axes, and the values of every (step, tile) that is recorded."""

    spec: FieldSpec
    run_steps: int | tuple[int, ...] | None
    samples: int
    steps: tuple[int, ...]
    """Steps at which anything of the field is recorded."""
    values: dict[tuple[int, int], NDArray[Any]]


@st.composite
def random_fields(draw: st.DrawFn, *, whole: bool = False, text: bool = True) -> RandomField:
    """Draw a field; *whole* records everything, *text* allows fixed strings."""
    place = draw(st.sampled_from([Place.TRACE, Place.LAYERS, Place.INPUTS, Place.OUTPUTS]))
    tile = draw(st.integers(0, 4))
    samples = draw(st.integers(1, 9)) if tile else 0
    tail = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    extents = (tile, *tail) if tile else tail
    block = tuple(draw(st.sampled_from(_divisors(max(extent, 1)))) for extent in extents)
    kind = draw(st.sampled_from(["plain", "tokens", "widened", "bits"]))
    names = DTYPES if text else tuple(name for name in DTYPES if name[0] not in "US")
    dtype = draw(st.sampled_from(names)) if kind == "plain" else "uint8"
    every, first = draw(st.sampled_from([(1, 0), (2, 0), (2, 1), (1, 2)]))
    spec = spec_of(
        "x",
        np.zeros(extents, _carrier(kind, dtype)),
        place=place,
        layer="blocks.0" if place is Place.LAYERS else None,
        tile=tile,
        block=block,
        source={"tokens": "int64", "widened": "bfloat16", "bits": "bfloat16"}.get(kind),
        tokens=kind == "tokens",
        bits=kind == "bits",
        codec=draw(st.sampled_from(CODECS)),
        every=every if place.stepped else 1,
        first=first if place.stepped else 0,
    )
    run_steps = draw(st.sampled_from([None, 6, (0, 3, 4, 10, 11, 50)])) if place.stepped else None
    known = run_steps if isinstance(run_steps, tuple) else range(6)
    steps = tuple(field_steps(spec, known)) if place.stepped else (0,)
    tiles = range(-(-samples // tile)) if tile else range(1)
    places = [(step, number) for step in steps for number in tiles]
    if not whole:
        places = draw(st.lists(st.sampled_from(places), unique=True, min_size=1))
    seed = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = {
        (step, number): _values(seed, kind, dtype, _extents(spec, number, samples))
        for step, number in places
    }
    recorded = tuple(sorted({step for step, _ in places}))
    return RandomField(spec, run_steps, samples, recorded, values)


def selectors(length: int) -> st.SearchStrategy[Selector]:
    """Draw a selector of a positional axis; integers lie within it."""
    bound = st.none() | st.integers(-length - 2, length + 2)
    stride = st.none() | st.integers(-4, 4).filter(bool)
    slices = st.builds(slice, bound, bound, stride)
    if not length:
        return slices
    integers = st.integers(-length, length - 1)
    return slices | integers | st.lists(integers, min_size=1, max_size=6).map(tuple)


def step_selectors(steps: tuple[int, ...]) -> st.SearchStrategy[Selector]:
    """Draw a selector of the step axis that names only recorded steps."""
    last = steps[-1]
    bound = st.none() | st.integers(0, last + 2)
    slices = st.builds(slice, bound, bound, st.none() | st.integers(-3, 3).filter(bool))
    integers = st.sampled_from(steps) | st.integers(-len(steps), -1)
    return slices | integers | st.lists(integers, min_size=1, max_size=5).map(tuple)


@st.composite
def selections(draw: st.DrawFn, field: RandomField) -> dict[str, Selector]:
    """Draw selectors of some of the dims of *field*."""
    chosen: dict[str, Selector] = {}
    lengths = {"sample": field.samples}
    lengths |= dict(zip(reversed(field.spec.dims), reversed(field.spec.tail), strict=False))
    for dim in field.spec.dims:
        if draw(st.booleans()):
            one = step_selectors(field.steps) if dim == "step" else selectors(lengths[dim])
            chosen[dim] = draw(one)
    return chosen


def _extents(spec: FieldSpec, tile: int, samples: int) -> tuple[int, ...]:
    if not spec.tile:
        return spec.tail
    return (min(spec.tile, samples - tile * spec.tile), *spec.tail)


def _carrier(kind: str, dtype: str) -> np.dtype[Any]:
    return np.dtype("uint16" if kind in ("widened", "bits") else dtype)


def _values(
    rng: np.random.Generator, kind: str, dtype: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Return random bits, which are also every sort of NaN."""
    carrier = _carrier(kind, dtype)
    if carrier.kind in "US":
        return rng.choice(np.array(["", "a", "bcd"]), shape).astype(carrier)
    if carrier.kind == "b":
        return rng.random(shape) < 0.5
    count = int(np.prod(shape)) * carrier.itemsize
    return np.frombuffer(rng.bytes(count), carrier).reshape(shape)


def _divisors(number: int) -> list[int]:
    return [part for part in range(1, number + 1) if number % part == 0]
