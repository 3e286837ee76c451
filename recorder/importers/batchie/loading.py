"""One file of a plate folder, read and understood."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import InvalidInputError
from archive_schema.systems.batchie import (
    DISTANCES,
    EVALUATION,
    METADATA_FILE,
    PRIVATE,
    SCREEN,
    SELECTED,
    SELECTED_FILE,
    SHARED,
    SHARED_PREFIX,
    THETAS,
    FileKind,
    kind_of,
)
from archive_schema.systems.kept_file import CONTENT, FILE, KeptFile
from recorder.importers.hdf5_file import open_hdf5
from recorder.importers.kept_hdf5 import take_hdf5

if TYPE_CHECKING:
    from collections.abc import Callable

    import h5py
    from numpy.typing import NDArray

    from archive_schema.models import Scalar
    from recorder.importers.fitting import Fitting
    from recorder.importers.foreign import ForeignFile
    from recorder.importers.source import Sink

ENDING: Final = ".h5"
_KEPT: Final = re.compile(r"[^/]+\.json|model_evaluation_analysis/[^/]+\.(?:pdf|json)")
"""Files without arrays whose bytes are kept."""
_LARGEST_KEPT: Final = 64 << 20
_AT_ONCE: Final = 1 << 20
_DRAW: Final = re.compile(rf"{PRIVATE}/([0-9]{{1,9}})/(.+)")


class NotWholeError(Exception):
    """A file that is still being written, or was cut short."""


@dataclass(slots=True)
class LoadedFile:
    """What a file gives to the run."""

    layer: str
    fields: dict[str, NDArray[Any]]
    coordinates: dict[str, Scalar] = field(default_factory=dict)
    """Of the step."""
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Sample coordinates, of the screen after a step."""
    observed: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Fields along the rows."""
    rows_digest: str = ""
    """Tells the rows of a screen, or of an evaluation, from those of others."""
    pairs: tuple[int, NDArray[np.int64]] | None = None
    """Of a chunk of distances: the number of thetas, and the pairs as ``row * size + column``."""
    odd: list[str] = field(default_factory=list)


def layer_of(path: str) -> str:
    """Return the layer that the file *path* becomes; its path but for ``.h5`` of known files."""
    stem = path.removesuffix(ENDING)
    return stem if stem != path and kind_of(stem) else path


def path_of(layer: str) -> str:
    """Return the file that *layer* was; the inverse of `layer_of`."""
    return layer + ENDING if kind_of(layer) else layer


def is_known(path: str) -> bool:
    """Return whether the file *path* of a plate folder is taken over."""
    return path.endswith(ENDING) or path == SELECTED_FILE or bool(_KEPT.fullmatch(path))


def load(file: ForeignFile, path: str, fitting: Fitting, *, settled: bool) -> LoadedFile:
    """Read all of a file.

    Parameters
    ----------
    settled
        Whether what is missing in it will not come any more: it is told then, as odd.

    Raises
    ------
    NotWholeError
        If it cannot be read, or lacks what its kind has.
    """
    layer = layer_of(path)
    try:
        about = KeptFile(path=path, nbytes=file.nbytes, sha256=_sha256(file))
        if path.endswith(ENDING):
            return _loaded_hdf5(file, layer, about, fitting, settled=settled)
        loaded = _loaded_bytes(file, layer)
    except (InvalidInputError, ValueError) as error:
        raise NotWholeError(str(error)) from error
    loaded.fields[FILE] = about.array()
    return loaded


def hand_over(loaded: LoadedFile, sink: Sink, step: int) -> None:
    """Record what a file holds as a layer."""
    for name in loaded.fields:
        sink.declare(name, layer=loaded.layer, ragged=True)
    sink.record(step, None, loaded.layer, **loaded.fields)


def _sha256(file: ForeignFile) -> str:
    digest = sha256()
    while data := file.stream.read(_AT_ONCE):
        digest.update(data)
    file.stream.seek(0)
    return digest.hexdigest()


def _loaded_bytes(file: ForeignFile, layer: str) -> LoadedFile:
    if file.nbytes > _LARGEST_KEPT:
        raise file.refuse(f"has {file.nbytes} bytes, more than the {_LARGEST_KEPT} that are kept")
    data = file.stream.read()
    loaded = LoadedFile(layer, {CONTENT: np.frombuffer(data, np.uint8)})
    if layer == METADATA_FILE:
        found = json.loads(data)  # one that is cut short is a ValueError
        if not isinstance(found, dict):
            raise file.refuse(f"expected a JSON object, got {type(found).__name__}")
        for name, value in found.items():
            if re.fullmatch(r"[a-z_]+", name) and type(value) is int:
                loaded.coordinates[name] = value
            else:
                loaded.odd.append(f"{layer}: {name} is no number, and no step coordinate")
    elif layer == SELECTED_FILE:
        text = data.decode("utf-8", "replace").strip()
        if not text:
            raise file.refuse("is empty")
        if re.fullmatch(r"-?[0-9]{1,18}", text):
            loaded.coordinates[SELECTED] = int(text)
        else:
            loaded.odd.append(f"{layer} is {text[:40]!r}, expected the id of a plate")
    return loaded


def _loaded_hdf5(
    file: ForeignFile, layer: str, about: KeptFile, fitting: Fitting, *, settled: bool
) -> LoadedFile:
    def fit(name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
        return fitting.fit(layer, name, values)

    kind = kind_of(layer)
    names = {} if kind is None else kind.fields
    needed = [name for name in names if kind is not None and name in kind.required]
    with open_hdf5(file) as opened:
        lacking = _lacking(opened, kind)
        if lacking and not settled:
            raise NotWholeError(lacking)
        taken = take_hdf5(opened, _naming(kind), fit)
    about = about.model_copy(update={"hdf5": taken.members})
    loaded = LoadedFile(layer, {**taken.fields, FILE: about.array()})
    loaded.odd += [f"{about.path}: {sentence}" for sentence in taken.odd]
    if lacking:
        loaded.odd.append(f"{about.path}: {lacking}")
    elif unread := [name for name in needed if name not in taken.values]:
        loaded.odd.append(f"{about.path} has no array of numbers or text at {', '.join(unread)}")
    elif kind is None:
        loaded.odd.append(f"{about.path} is no file that BATCHIE's pipeline writes; kept as it is")
    else:
        _understand(loaded, kind, about, taken.values)
    return loaded


def _lacking(opened: h5py.File, kind: FileKind | None) -> str:
    if kind is None:
        return ""
    there = {*opened, *opened.attrs}
    lacking = sorted(kind.required - there)
    return f"expected {', '.join(lacking)}, found {', '.join(sorted(there))}" if lacking else ""


def _naming(kind: FileKind | None) -> Callable[[str], tuple[str, int | None]]:
    def naming(path: str) -> tuple[str, int | None]:
        if kind is THETAS:
            match = _DRAW.fullmatch(path)
            if match:
                return match[2], int(match[1])
            if path.startswith(f"{SHARED}/"):
                return SHARED_PREFIX + path.removeprefix(f"{SHARED}/"), None
        return path, None

    return naming


def _understand(
    loaded: LoadedFile, kind: FileKind, about: KeptFile, values: dict[str, NDArray[Any]]
) -> None:
    if kind is SCREEN:
        loaded.rows_digest = _rows_digest(values)
        if loaded.layer == "advanced_screen":
            observed = {name: values[name] for name in ("observations", "observation_mask")}
            if _alike([*observed.values(), values["plate_names"]]):
                loaded.rows, loaded.observed = _rows(values), observed
            if not loaded.rows:
                loaded.odd.append(f"{about.path}: columns of other lengths; no samples by name")
    elif kind is EVALUATION:
        loaded.rows_digest = _rows_digest(values)
    elif kind is DISTANCES:
        size = int(values["size"].ravel()[0]) if values["size"].size else 0
        rows, columns = values["row_indices"].ravel(), values["col_indices"].ravel()
        if len(rows) == len(columns) == values["values"].size:
            loaded.pairs = (size, rows.astype(np.int64) * size + columns)
        else:
            loaded.odd.append(f"{about.path}: rows, columns and values differ in number")
    elif kind is THETAS:
        _understand_thetas(loaded, about)


def _understand_thetas(loaded: LoadedFile, about: KeptFile) -> None:
    draws = {m.path for m in about.hdf5 or () if re.fullmatch(rf"{PRIVATE}/[0-9]+", m.path)}
    capacity = about.attributes().get("n_thetas")
    if capacity != len(draws):
        loaded.odd.append(f"{about.path} has room for {capacity} thetas and holds {len(draws)}")


def _rows(values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return what names the experiments of a screen, as sample coordinates."""
    rows = {"sample_name": values["sample_names"], "plate_name": values["plate_names"]}
    for single, plural in (("treatment_name", "treatment_names"), ("dose", "treatment_doses")):
        for at in range(values[plural].shape[1] if values[plural].ndim == 2 else 0):  # noqa: PLR2004  a matrix
            rows[f"{single}_{at}"] = values[plural][:, at]
    return rows if _alike(list(rows.values())) and values["sample_names"].size else {}


def _alike(columns: list[NDArray[Any]]) -> bool:
    return len({column.shape for column in columns}) == 1 and columns[0].ndim == 1


def _rows_digest(values: dict[str, NDArray[Any]]) -> str:
    names = "\0".join(map(str, values["sample_names"].ravel().tolist()))
    return sha256(names.encode() + values["observations"].tobytes()).hexdigest()
