"""Values as requests, without any help of a client library."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from numpy.typing import ArrayLike


def npy(array: ArrayLike) -> bytes:
    """Return *array* as a `.npy` file."""
    stream = io.BytesIO()
    np.save(stream, np.asanyarray(array), allow_pickle=False)
    return stream.getvalue()


def npz(**arrays: ArrayLike) -> bytes:
    """Return arrays as an `.npz` file."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **{n: np.asarray(a) for n, a in arrays.items()})
    return stream.getvalue()


def put(
    client: httpx.Client, path: str, body: bytes | Iterator[bytes], **headers: str
) -> httpx.Response:
    """Put *body* at *path* below the tiles of the run ``r``."""
    return client.put(f"/runs/r/tiles/{path}", content=body, headers=headers)


def json_put(client: httpx.Client, path: str, document: dict[str, Any]) -> httpx.Response:
    """Put JSON at *path* below the tiles of the run ``r``."""
    return client.put(f"/runs/r/tiles/{path}", json=document)
