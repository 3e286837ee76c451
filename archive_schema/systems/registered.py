"""What packages bring for systems, by the systems' names: this project's, and by entry point.

Both are references, ``module:object``, and none is followed before it is asked for. So a command
waits for no system but its own, and a package that is broken harms no other.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from archive_schema.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_T = TypeVar("_T")


class Registered(Generic[_T]):
    """Objects of one kind.

    Parameters
    ----------
    group : str
        The entry-point group in which packages outside name theirs; an entry's name is that of
        the system.
    kind : type
        What each of them is.
    own : mapping of str to str
        This project's, by the name of the system.
    """

    def __init__(self, group: str, kind: type[_T], own: Mapping[str, str]) -> None:
        self._group = group
        self._kind = kind
        self._own = own
        self._found: dict[str, _T] = {}

    def names(self) -> list[str]:
        """Return the names of the systems, sorted; nothing is imported for it."""
        return sorted(self._entries)

    def find(self, name: str) -> _T | None:
        """Return what is registered for the system *name*, or None.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` if it cannot be imported or is of another kind, and if several
            packages have one.
        """
        if name not in self._found and name in self._entries:
            self._found[name] = self._loaded(self._entries[name])
        return self._found.get(name)

    @cached_property
    def _entries(self) -> dict[str, list[EntryPoint]]:
        found = {name: [EntryPoint(name, at, self._group)] for name, at in self._own.items()}
        for entry in entry_points(group=self._group):
            found.setdefault(entry.name, []).append(entry)
        return found

    def _loaded(self, entries: list[EntryPoint]) -> _T:
        entry, *others = entries
        if others:
            places = " and ".join(one.value for one in entries)
            raise _refused(entry, f"expected one, found {places}")
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as error:
            raise _refused(entry, f"{entry.value} cannot be imported: {error}") from error
        if not isinstance(loaded, self._kind):
            expected, found = self._kind.__name__, type(loaded).__name__
            raise _refused(entry, f"expected {entry.value} to be a {expected}, got a {found}")
        return loaded


def _refused(entry: EntryPoint, reason: str) -> InvalidInputError:
    message = f"system {entry.name!r} in {entry.group}: {reason}"
    return InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
