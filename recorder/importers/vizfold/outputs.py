"""What pickles and ``.pt`` files hold: the output of a model, or representations by layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.vizfold import EVOFORMER, STRUCTURE, SYSTEM
from recorder.importers.vizfold.arrays import representation
from recorder.importers.vizfold.prediction import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recorder.importers.vizfold.pickles import Tree

PASSES_KEY: Final = "num_recycles"
_REPRESENTATIONS: Final = ("msa", "pair", "single")
_ALIASES: Final = {
    "ptm": "ptm_score",
    "iptm": "iptm_score",
    "predicted_lddt/logits": "lddt_logits",
    **{f"final_{name}": name for name in _REPRESENTATIONS},
    **{
        f"{name}/logits": f"{name}_logits"
        for name in ("distogram", "masked_msa", "experimentally_resolved")
    },
}
"""What AlphaFold and ColabFold call OpenFold's outputs, and what hook utilities do."""
_LAYER: Final = re.compile(r"(?:.*\D)?([0-9]{1,6})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,100}")
_RESERVED: Final = frozenset(("samples", "layer", "step", "sample", "recorded", "n"))


def is_model_output(found: Tree) -> bool:
    """Return whether an object is what a model gave out."""
    return isinstance(found, dict) and bool(
        {"final_atom_positions", "structure_module", "sm", "plddt"} & found.keys()
    )


def passes_of(found: Tree) -> int | None:
    """Return the number of passes that OpenFold's output tells; None if it does not.

    In AlphaFold's ``num_recycles`` the first pass does not count everywhere, so it is not told.
    """
    if not isinstance(found, dict) or "sm" not in found:
        return None
    said = found.get(PASSES_KEY)
    value = said.item() if isinstance(said, np.ndarray) and said.size == 1 else said
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return int(value) if is_count and value is not None else None  # type: ignore[arg-type]


def object_values(found: Tree, step: int, odd: list[str]) -> Iterator[Value]:
    """Yield what an object holds: outputs of the run, and fields of layers at *step*."""
    if not isinstance(found, dict):
        odd.append(f"holds a {type(found).__name__} where a dict was expected: left out")
        return
    for key, value in found.items():
        name = key.removesuffix("_layers")
        if name in _REPRESENTATIONS and isinstance(value, dict):
            yield from _by_layer(name, value, step, odd)
        elif key in ("sm", STRUCTURE) and isinstance(value, dict):
            yield from _structure(value, step, odd)
        elif key == "representations" and isinstance(value, dict):
            for inner, array in _flat("", value):
                yield from _output(inner, array, odd)
        elif key != PASSES_KEY:
            for path, array in _flat(key, value):
                yield from _output(path, array, odd)


def _by_layer(name: str, layers: dict[str, Tree], step: int, odd: list[str]) -> Iterator[Value]:
    for key, value in layers.items():
        match = _LAYER.fullmatch(key)
        known = representation(name, value) if isinstance(value, np.ndarray) else None
        if match is None or known is None:
            odd.append(f"{name} of layer {key[:40]} is no array of {name}s of a layer: left out")
            continue
        dims, values = known
        yield Value(Place.LAYERS, name, dims, values, f"{EVOFORMER}{int(match[1])}", step)


def _structure(found: dict[str, Tree], step: int, odd: list[str]) -> Iterator[Value]:
    for path, value in _flat("", found):
        if SYSTEM.field(Place.OUTPUTS, path) is not None and path != "single":
            yield from _output(path, value, odd)  # AlphaFold puts them there
            continue
        declared = SYSTEM.field(Place.LAYERS, path, STRUCTURE)
        values = _number(value)
        if values is None or not _is_name(path):
            odd.append(f"sm/{path} holds no numbers: left out")
            continue
        dims = _dims(values) if declared is None else declared.dims
        if len(dims) != values.ndim:
            dims = _dims(values)
        yield Value(Place.LAYERS, path, dims, np.atleast_1d(values), STRUCTURE, step)


def _output(path: str, value: Tree, odd: list[str]) -> Iterator[Value]:
    name = _ALIASES.get(path, path).replace("/", "_")
    values = _number(value)
    if values is None or not _is_name(name):
        odd.append(f"{path[:100]} holds no numbers: left out")
        return
    declared = SYSTEM.field(Place.OUTPUTS, name)
    dims = None if declared is None else declared.dims
    if dims is None or len(dims) != values.ndim:
        dims = _dims(values)
    yield Value(Place.OUTPUTS, name, dims, values)


def _flat(path: str, found: Tree) -> Iterator[tuple[str, Tree]]:
    if not isinstance(found, dict):
        yield path, found
        return
    for key, value in found.items():
        yield from _flat(f"{path}/{key}" if path else key, value)


def _number(value: Tree) -> NDArray[Any] | None:
    if isinstance(value, np.ndarray):
        return value
    return np.asarray(value) if isinstance(value, bool | int | float) else None


def _dims(values: NDArray[Any]) -> tuple[str, ...]:
    """Name axes by their lengths, where nobody knows better."""
    seen: dict[int, int] = {}
    names = []
    for length in values.shape:
        seen[length] = seen.get(length, 0) + 1
        names.append(f"dim_{length}" + (f"_{seen[length]}" if seen[length] > 1 else ""))
    return tuple(names)


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED
