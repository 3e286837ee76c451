"""Archives as VizFold's proposals write them, real ones and such that have something odd."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.errors import UnstableSpecificationWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DATA = Path(__file__).parents[1] / "data/vizfold"
SYNTHETIC = DATA / "pr53_archiveformat"
FIRST = DATA / "pr59_vizfold_1_0/1G1J.vizfold.zarr"
HEADS_LAST = DATA / "pr62_vizfold_to_zarr/run.vizfold.zarr"
DOCUMENTS = (".zarray", ".zgroup", ".zattrs", "zarr.json")


def arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of a Zarr store with zarr-python."""
    found = {}
    for document in sorted((*path.rglob(".zarray"), *path.rglob("zarr.json"))):
        node = zarr.open(str(document.parent), mode="r")
        if isinstance(node, zarr.Array):
            name = document.parent.relative_to(path).as_posix()
            found[name] = np.asarray(node[...])
    return found


def write_zarr(
    path: Path,
    arrays: dict[str, Any],
    *,
    version: int = 3,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    chunks: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """Write a store of Zarr 2 or 3, as their defaults are."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2 if version == 2 else 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        for name, value in arrays.items():
            values = np.asarray(value)
            extra: dict[str, Any] = {}
            if version == 3 and dims and name in dims:
                extra["dimension_names"] = dims[name]
            made = root.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(chunks or {}).get(name, "auto") if values.shape else "auto",
                **extra,
            )
            made[...] = values
            if version == 2 and dims and name in dims:
                made.attrs["_ARRAY_DIMENSIONS"] = list(dims[name])
    return path


def zipped(path: Path, source: Path, prefix: str = "") -> Path:
    """Put the files of *source* into the ZIP *path*, below *prefix*."""
    with zipfile.ZipFile(path, "w") as target:
        for file in sorted(source.rglob("*")):
            if file.is_file():
                target.write(file, prefix + file.relative_to(source).as_posix())
    return path


def without_documents(path: Path, source: Path) -> Path:
    """Copy a store but for its metadata, as its authors' .gitignore does."""
    shutil.copytree(source, path, ignore=lambda _, names: [n for n in names if n in DOCUMENTS])
    return path


def edit_document(path: Path, **changes: Any) -> None:
    """Change members of a metadata document."""
    document = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(document | changes), "utf-8")


def maps(heads: int, length: int, seed: int = 0) -> NDArray[np.float32]:
    """Make attention of *heads*, whose rows sum to one."""
    values = np.random.default_rng(seed).random((heads, length, length), np.float32)
    made: NDArray[np.float32] = values / values.sum(axis=-1, keepdims=True)
    return made
