"""Files of activations: which rows they hold, and those rows, read in order."""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from archive_schema.errors import InvalidInputError
from recorder.importers.npz_file import NpzFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from recorder.importers.foreign import ForeignFile
    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.npz_file import NpzArray, NpzRows

ENDING: Final = ".npz"
_STEM: Final = re.compile(r"(batch|sample)_([0-9]{1,12})((?:_[a-z][0-9]+)?)")


class ChangedError(Exception):
    """A file is another than the one that was looked at, or has gone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sample in a file of activations."""

    path: str
    """Of the file below the data folder, without ``.npz``."""
    index: int
    digest: str
    """Tells the file from others that are there before or after it."""


@dataclass(frozen=True, slots=True)
class ActivationFile:
    """A file that is whole."""

    path: str
    layers: Mapping[str, NpzArray]
    digest: str

    @property
    def samples(self) -> int:
        """How many samples it holds."""
        return next(iter(self.layers.values())).shape[0]

    @property
    def sample_nbytes(self) -> int:
        """Bytes of one sample of the largest layer."""
        return max(
            max(array.dtype.itemsize, 1) * math.prod(array.shape[1:])
            for array in self.layers.values()
        )

    def rows(self) -> Iterator[Row]:
        """Yield its rows."""
        for index in range(self.samples):
            yield Row(self.path, index, self.digest)


def sort_key(name: str) -> tuple[str, int, str]:
    """Return what files are ordered by: by number, not by text."""
    match = _STEM.fullmatch(name.removesuffix(ENDING))
    return (match[1], int(match[2]), match[3]) if match else ("", 0, name)


def is_activations(name: str) -> bool:
    """Return whether a file is one of a batch's or a sample's activations."""
    return name.endswith(ENDING) and bool(_STEM.fullmatch(name.removesuffix(ENDING)))


def survey(file: ForeignFile, path: str) -> ActivationFile | None:
    """Return what a file holds; None if it is empty, as those of samples made in the app.

    It is read to its end, because a damaged file must give no rows.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it is cut short or damaged, or is no such file.
    """
    with NpzFile(file) as npz:
        npz.verify()
        arrays = dict(npz.arrays)
    if not arrays:
        return None
    lengths = {array.shape[:1] for array in arrays.values()}
    if len(lengths) > 1 or () in lengths or (0,) in lengths:
        shapes = ", ".join(f"{array.name} {array.shape}" for array in arrays.values())
        raise file.refuse(f"expected as many samples in each layer, found {shapes:.500}")
    for array in arrays.values():
        if array.fortran:
            raise file.refuse(f"{array.name} is in Fortran order, expected C order")
    return ActivationFile(path, arrays, _digest(arrays))


def _digest(arrays: Mapping[str, NpzArray]) -> str:
    said = repr([(a.name, a.shape, a.dtype.str, a.crc32) for a in arrays.values()])
    return blake2b(said.encode(), digest_size=8).hexdigest()


class ActivationReader:
    """Reads rows of files, each file from its beginning to its end where they come in order."""

    def __init__(self, tree: ForeignTree) -> None:
        self._tree = tree
        self._open: dict[str, _OpenFile] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keep(())

    def read(self, layer: str, rows: list[Row]) -> NDArray[Any]:
        """Return the rows of *layer*, flat: shape (len(rows), *as the files have it).

        Raises
        ------
        ChangedError
            If a file is not the one that the rows are of.
        """
        self._keep({row.path for row in rows})
        parts = []
        for first, count in _runs(rows):
            if first.path not in self._open:
                self._open[first.path] = _OpenFile(self._tree, first)
            parts.append(self._open[first.path].read(layer, first.index, count))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _keep(self, paths: Iterable[str]) -> None:
        for path in set(self._open) - set(paths):
            self._open.pop(path).close()


class _OpenFile:
    def __init__(self, tree: ForeignTree, row: Row) -> None:
        self._stack = ExitStack()
        try:
            file = self._stack.enter_context(tree.open(row.path + ENDING))
            self._npz = self._stack.enter_context(NpzFile(file))
        except InvalidInputError as error:
            self._stack.close()
            raise ChangedError(str(error)) from error
        if _digest(self._npz.arrays) != row.digest:
            self._stack.close()
            raise ChangedError(f"{row.path}{ENDING} was written over")
        self._streams: dict[str, tuple[int, NpzRows]] = {}

    def read(self, layer: str, start: int, count: int) -> NDArray[Any]:
        at, stream = self._streams.get(layer) or (0, self._npz.rows(layer, 1))
        if at > start:
            at, stream = 0, self._npz.rows(layer, 1)
        for _ in range(start - at):
            stream.read(1)
        values = stream.read(count)
        self._streams[layer] = (start + count, stream)
        return values

    def close(self) -> None:
        self._stack.close()


def _runs(rows: list[Row]) -> Iterator[tuple[Row, int]]:
    """Yield rows that lie one after another in a file, as the first and their number."""
    begin = 0
    for at in range(1, len(rows) + 1):
        if at < len(rows) and _follows(rows[at - 1], rows[at]):
            continue
        yield rows[begin], at - begin
        begin = at


def _follows(first: Row, second: Row) -> bool:
    return (first.path, first.index + 1) == (second.path, second.index)
