"""Files whose bytes are kept: sequences, alignments, structures."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.models import Place
from recorder.importers.vizfold.prediction import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from pydantic import JsonValue

    from recorder.importers.foreign_tree import ForeignTree

_LARGEST: Final = 1 << 30
_LONGEST: Final = 1 << 20


def read_bytes(tree: ForeignTree, path: str) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it is longer than anything that is kept.
    """
    with tree.open(path) as file:
        if file.nbytes > _LARGEST:
            raise file.refuse(f"has {file.nbytes} bytes, more than the {_LARGEST} that are kept")
        return file.stream.read()


def kept_bytes(tree: ForeignTree, path: str, name: str, place: Place) -> Value:
    """Return the bytes of a file as the field *name*; errors as `read_bytes`."""
    values = np.frombuffer(read_bytes(tree, path), np.uint8)
    return Value(place, name, (f"{name}_byte",), values)


def fasta_values(
    tree: ForeignTree, path: str, data: bytes, metadata: MutableMapping[str, JsonValue]
) -> Iterator[Value]:
    """Yield a FASTA file and its sequence, chains joined by ``:``; note its length and hash.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it holds no sequence.
    """
    lines = data.decode("utf-8", "replace").splitlines()
    chains: list[list[str]] = []
    for line in lines:
        if line.startswith(">"):
            chains.append([])
        elif line.strip():
            if not chains:
                chains.append([])
            chains[-1].append(line.strip())
    sequence = ":".join("".join(chain) for chain in chains if chain)
    if not 0 < len(sequence) <= _LONGEST:
        raise tree.refuse(f"{path}: expected a sequence of up to {_LONGEST} residues")
    metadata["sequence_length"] = len(sequence) - sequence.count(":")
    metadata["fasta_sha256"] = sha256(data).hexdigest()
    yield Value(Place.INPUTS, "fasta", ("fasta_byte",), np.frombuffer(data, np.uint8))
    yield Value(Place.INPUTS, "sequence", (), np.array(sequence))
