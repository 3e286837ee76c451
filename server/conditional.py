"""Validators and lifetimes of answers: strong ETags, ``If-None-Match``, ``Cache-Control``."""

from __future__ import annotations

import re
from typing import Final

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""Of a sealed run: nothing about it changes any more."""
REVALIDATE: Final = "no-cache"
"""Of a run that is being recorded: keep it, and ask each time."""

_ENCODING: Final = "1"
"""Rises when an encoder begins to write other bytes for the same values."""
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


def etag(digest: str, representation: str) -> str:
    """Return the strong, quoted tag of one representation of what *digest* names.

    Examples
    --------
    >>> etag("5f0c", "npy")
    '"5f0c-npy.1"'
    """
    return f'"{digest}-{representation}.{_ENCODING}"'


def none_matches(header: str | None, tag: str) -> bool:
    """Return whether ``If-None-Match: header`` says that the client holds *tag*.

    Tags are compared weakly, as RFC 9110 §13.1.2 demands, so that a proxy that made the
    tag weak while it compressed the answer still gets its 304.

    Examples
    --------
    >>> none_matches('W/"a", "b"', '"a"'), none_matches("*", '"a"'), none_matches(None, '"a"')
    (True, True, False)
    """
    if header is None:
        return False
    return header.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(header)


def matches(header: str | None, tag: str) -> bool:
    """Return whether ``If-Match: header`` lets an answer with *tag* pass.

    Tags are compared strongly, as RFC 9110 §13.1.1 demands: a weak one promises no bytes.

    Examples
    --------
    >>> matches('"a", "b"', '"b"'), matches('W/"a"', '"a"'), matches("*", '"a"')
    (True, False, True)
    """
    if header is None or header.strip() == "*":
        return True
    return tag in (one.group() for one in _TAG.finditer(header))


def cache_control(*, sealed: bool) -> str:
    """Return how long an answer about a run may be kept."""
    return IMMUTABLE if sealed else REVALIDATE
