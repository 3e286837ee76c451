"""A disk that is too small, and may become larger: only root may mount one."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path

MAY_MOUNT: Final = os.geteuid() == 0


class SmallDisk:
    """A disk of *nbytes* that is mounted at *folder* while it is entered."""

    def __init__(self, folder: Path, nbytes: int) -> None:
        self._folder = folder
        self._nbytes = nbytes

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mount(f"size={self._nbytes}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def grow(self, nbytes: int) -> None:
        """Make the disk larger, with all that lies on it."""
        self._mount(f"remount,size={nbytes}")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder)]
        subprocess.run(command, check=True)
