"""What single systems add to the API, in their own words: this project's, and by entry point.

A system adds a FastAPI router of its own, below ``/runs/{run}/<system>``; it finds the run by
`server.service.service_of` and answers by `server.replies`. OpenAPI describes it as any other.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from fastapi import APIRouter

from server.routes import batchie, dmd2, vizfold

GROUP: Final = "trace_archive.routers"


def system_routers() -> list[APIRouter]:
    """Return the routers of all systems.

    Raises
    ------
    TypeError
        If an entry point leads to something else.
    """
    found = [batchie.router, dmd2.router, vizfold.router]
    for entry in entry_points(group=GROUP):
        router = entry.load()
        if not isinstance(router, APIRouter):
            message = f"{entry.value} is no APIRouter, but {type(router).__name__}"
            raise TypeError(message)
        found.append(router)
    return found
