"""From a run and the name of a format to a tree of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.selection import ALL, take_steps
from server.exporters.registry import trees

if TYPE_CHECKING:
    from archive_schema.selection import Selector
    from server.exporters.tree import Tree, TreeFile
    from server.query import RunView


def export_tree(
    run: RunView,
    format: str | None = None,  # noqa: A002  the word that the API, the command line and docs use
    *,
    steps: Selector | None = None,
) -> Tree:
    """Return *run* as a tree of files, of which nothing is read yet.

    Parameters
    ----------
    format
        One of `tree_formats` of the run's system; by default its own.
    steps
        By step number; by default all.

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable`` if the system has no such tree.
    NotFoundError
        ``step-not-recorded``.
    """
    known = trees(run.manifest.system)
    build = known.get(format or next(iter(known), ""))
    if build is None:
        names = ", ".join(known) or "no tree of files"
        message = f"runs of system {run.manifest.system!r} are written as {names}; got {format!r}"
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
    taken = take_steps(ALL if steps is None else steps, run.steps)
    return build(run, {taken} if isinstance(taken, int) else set(taken))


def tree_file(run: RunView, path: str) -> TreeFile:
    """Return the file *path* of the run's own tree.

    Raises
    ------
    InvalidInputError
        As `export_tree`.
    NotFoundError
        ``object-not-found``.
    """
    for file in export_tree(run).files:
        if file.path == path:
            return file
    message = f"run {run.manifest.id!r} has no file {path!r} in its tree"
    raise NotFoundError(ErrorKind.OBJECT_NOT_FOUND, message)
