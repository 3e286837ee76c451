"""Xpublish with a router of its own kind, because it has none that takes a slice."""

import os
from typing import Annotated

import xarray as xr
import xpublish
from fastapi import APIRouter, Depends, Response

DATA = os.environ["PEER_DATA"]


class SlicePlugin(xpublish.Plugin):
    """A route for a slice of samples at one step."""

    name: str = "slice"

    @xpublish.hookimpl
    def dataset_router(self, deps: xpublish.Dependencies) -> APIRouter:
        """Return the router."""
        router = APIRouter()

        @router.get("/steps/{n}/{name}")
        def step(
            n: int,
            name: str,
            dataset: Annotated[xr.Dataset, Depends(deps.dataset)],
            start: int = 0,
            stop: int | None = None,
        ) -> Response:
            values = dataset[name].isel(step=n, sample=slice(start, stop)).values
            return Response(values.tobytes(), media_type="application/octet-stream")

        return router


app = xpublish.Rest(
    {"run": xr.open_zarr(f"{DATA}/run.zarr", chunks=None, consolidated=False)},
    plugins={"slice": SlicePlugin()},
).app
