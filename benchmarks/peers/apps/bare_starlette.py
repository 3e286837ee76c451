"""The floor: a bare Starlette route that returns bytes from memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

TRUTH = np.load(f"{os.environ['PEER_DATA']}/truth.npy", mmap_mode="r")
SLICES = [step[:8].tobytes() for step in TRUTH]
STEPS = [step.tobytes() for step in TRUTH]


async def _slice(request: Request) -> Response:
    return Response(SLICES[request.path_params["n"]], media_type="application/octet-stream")


async def _step(request: Request) -> Response:
    return Response(STEPS[request.path_params["n"]], media_type="application/octet-stream")


app = Starlette(routes=[Route("/slice/{n:int}", _slice), Route("/step/{n:int}", _step)])
