"""Flat activations: one row a sample, all layers one after another in the order of their names.

It is what diffviews' ``convert_to_fast_format`` makes, as float32.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.dmd2 import GUIDANCE, OUTPUT
from server.exporters.values import Values
from server.exporters.virtual_file import CHUNK_NBYTES, Literal, VirtualFile
from server.systems.dmd2 import features_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.exporters.cut import Cut
    from server.exporters.exporter import Built
    from server.exporters.values import Positions
    from server.query.field import FieldView

_DTYPE = np.dtype("<f4")


def flat_npy(cut: Cut) -> Built:
    """Return ``x.npy``: shape (steps x samples, values of all layers), float32."""
    rows = _rows(cut)
    head = io.BytesIO()
    about = {"descr": _DTYPE.str, "fortran_order": False, "shape": (rows.count, rows.width)}
    npy.write_array_header_1_0(head, about)
    return VirtualFile([Literal(head.getvalue()), rows]), cut.notes


def flat_json(cut: Cut) -> Built:
    """Return ``x.npy.json``, which says where in a row each layer is."""
    rows = _rows(cut)
    names = [str(field.spec.layer) for field in rows.fields]
    about = {
        "layers": names,
        "shapes": {
            name: [rows.count, features_of(f)] for name, f in zip(names, rows.fields, strict=True)
        },
        "total_features": rows.width,
        "num_samples": rows.count,
        "dtype": _DTYPE.name,
    }
    return VirtualFile([Literal(json.dumps(about, indent=2).encode())]), cut.notes


def _rows(cut: Cut) -> FlatRows:
    fields = [f for f in cut.fields(Place.LAYERS) if f.spec.name == OUTPUT and f.spec.sampled]
    fields = [f for f in fields if set(cut.steps) <= set(cut.steps_of(f))]
    if not fields:
        message = f"run {cut.run.manifest.id!r} has no layers that hold all samples asked for"
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
    return FlatRows(tuple(sorted(fields, key=lambda f: str(f.spec.layer))), cut.steps, cut.samples)


@dataclass(frozen=True)
class FlatRows:
    """The rows of a flat file, a step after another, read when they are asked for."""

    fields: tuple[FieldView, ...]
    steps: tuple[int, ...]
    samples: Positions

    @property
    def width(self) -> int:
        """Return how many values a row has."""
        return sum(map(features_of, self.fields))

    @property
    def count(self) -> int:
        """Return how many rows there are."""
        return len(self.steps) * len(self.samples)

    @property
    def grain(self) -> int:
        """Return the length of a row in bytes."""
        return self.width * _DTYPE.itemsize

    @property
    def nbytes(self) -> int:
        """Exact length."""
        return self.count * self.grain

    @property
    def digest(self) -> str:
        """Return what tells the rows from others; nothing is read for it."""
        said = [Values(field, self.steps, self.samples).digest for field in self.fields]
        return blake2b(" ".join(said).encode(), digest_size=16).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield bytes ``[start, stop)``, at most `CHUNK_NBYTES` at a time."""
        at_once = max(1, CHUNK_NBYTES // self.grain)
        while start < stop:
            row, skipped = divmod(start, self.grain)
            step, sample = divmod(row, len(self.samples))
            last = min(
                sample + at_once, len(self.samples), sample - (-(stop - start) // self.grain)
            )
            last = max(last, sample + 1)
            data = memoryview(self._read(self.steps[step], self.samples[sample:last]))
            end = min(len(data), skipped + stop - start)
            for begin in range(skipped, end, CHUNK_NBYTES):
                yield bytes(data[begin : min(begin + CHUNK_NBYTES, end)])
            start += end - skipped

    def _read(self, step: int, samples: Positions) -> bytes:
        parts: list[Any] = []
        for field in self.fields:
            chosen = field.select({"step": step, "sample": tuple(samples)})
            values = chosen.array(keep=False)
            if GUIDANCE in field.dims:
                values = values[:, 0]
            parts.append(values.reshape(len(values), -1).astype(_DTYPE, copy=False))
        return np.concatenate(parts, axis=1).tobytes()
