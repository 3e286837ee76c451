"""The structure as PDB text: the recorded file, or the alpha carbons of recorded coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.models import Place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.systems.vizfold.prediction import Prediction

_CA: Final = 1
"""Of the 37 atoms that a residue may have."""
_LETTERS: Final = "ARNDCQEGHILKMFPSTWYV"
_NAMES: Final = "ALAARGASNASPCYSGLNGLUGLYHISILELEULYSMETPHEPROSERTHRTRPTYRVAL"
_NAME_OF: Final = {letter: _NAMES[3 * at : 3 * at + 3] for at, letter in enumerate(_LETTERS)}
_CHAINS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COORDINATES: Final = ("final_atom_positions", "coordinates")
_CONFIDENCES: Final = ("plddt", "confidence")
_FULL: Final = 3
"""Axes of coordinates of all atoms."""


def pdb_text(prediction: Prediction) -> tuple[bytes, str | None]:
    """Return PDB text, and what is to be said of it.

    Raises
    ------
    NotFoundError
        ``field-not-found`` if neither a file nor coordinates are recorded.
    """
    for name in ("pdb", "relaxed_pdb"):
        recorded = prediction.whole(name, Place.OUTPUTS)
        if recorded is not None:
            return recorded.tobytes(), None
    for name in _COORDINATES:
        positions = prediction.whole(name, Place.OUTPUTS)
        if positions is not None:
            return _alpha_carbons(prediction, positions), f"alpha carbons of {name} only"
    message = f"run {prediction.run.manifest.id!r} has no structure: neither pdb nor coordinates"
    raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)


def _alpha_carbons(prediction: Prediction, positions: NDArray[Any]) -> bytes:
    there = np.ones(len(positions), bool)
    if positions.ndim == _FULL:
        mask = prediction.whole("final_atom_mask", Place.OUTPUTS)
        if mask is not None:
            there = mask[:, _CA] > 0
        positions = positions[:, _CA]
    there &= np.isfinite(positions).all(axis=1)
    confidence = next(
        (c for name in _CONFIDENCES if (c := prediction.whole(name, Place.OUTPUTS)) is not None),
        np.zeros(len(positions)),
    )
    lines: list[str] = []
    for at, name, chain, number in _residues(prediction.sequence or "", len(positions)):
        if there[at]:
            x, y, z = (float(value) for value in positions[at])
            lines.append(
                f"ATOM  {(len(lines) + 1) % 100_000:5d}  CA  {name} {chain}{number % 10_000:4d}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{float(confidence[at]):6.2f}           C  "
            )
    return "".join(f"{line}\n" for line in [*lines, "END"]).encode()


def _residues(sequence: str, count: int) -> list[tuple[int, str, str, int]]:
    """Return position, name, chain and number in its chain of each residue."""
    chains = sequence.split(":")
    if sum(map(len, chains)) != count:
        chains = ["X" * count]
    letters = [
        (_NAME_OF.get(letter, "UNK"), _CHAINS[at % len(_CHAINS)], number)
        for at, chain in enumerate(chains)
        for number, letter in enumerate(chain, 1)
    ]
    return [(at, *letter) for at, letter in enumerate(letters)]
