"""Names of layers by glob, in the order in which people count."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_GLOB: Final = re.compile(r"[*?\[]")
_DIGITS: Final = re.compile(r"([0-9]+)")


def is_glob(name: str) -> bool:
    """Return whether *name* may mean several names."""
    return _GLOB.search(name) is not None


def matching_names(names: Iterable[str], glob: str) -> list[str]:
    """Return those of *names* that match *glob*, in natural order; one called just so is alone.

    Examples
    --------
    >>> matching_names(["blocks.10", "blocks.2", "mid"], "blocks.*")
    ['blocks.2', 'blocks.10']
    """
    known = list(names)
    found = [glob] if glob in known else [name for name in known if fnmatchcase(name, glob)]
    return sorted(found, key=natural)


def natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts names as people count: ``blocks.2`` before ``blocks.10``."""
    parts = enumerate(_DIGITS.split(name))
    return [
        (len(digits := part.lstrip("0")), digits) if at % 2 else (0, part) for at, part in parts
    ]
