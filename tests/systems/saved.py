"""NPZ files for round trips, as NumPy writes them under recent versions of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.exporters.saved_npz import save_npz

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def savez(path: Path, **arrays: NDArray[Any]) -> None:
    """Write as `numpy.savez`."""
    with path.open("wb") as target:
        save_npz(target, arrays, compressed=False)


def savez_compressed(path: Path, **arrays: NDArray[Any]) -> None:
    """Write as `numpy.savez_compressed`."""
    with path.open("wb") as target:
        save_npz(target, arrays, compressed=True)
