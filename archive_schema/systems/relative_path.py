"""Paths that files tell, and that must not lead elsewhere."""

from __future__ import annotations


def is_inside(path: str) -> bool:
    """Return whether *path* stays in the folder that it is relative to.

    Examples
    --------
    >>> is_inside("images/a.png"), is_inside("../a.png"), is_inside("/a.png"), is_inside("s3://a")
    (True, False, False, False)
    """
    return not {"", ".", ".."} & set(path.split("/")) and not {"\\", "\0"} & set(path)
