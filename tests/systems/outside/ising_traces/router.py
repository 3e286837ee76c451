"""Answers in the words of `ising`, below ``/runs/{run}/ising``."""

from fastapi import APIRouter, Depends, Request, Response

from server.replies import known_parameters
from server.routes.computed import Computed, reply_array
from server.service import service_of

router = APIRouter(
    prefix="/runs/{run}/ising", tags=["ising"], dependencies=[Depends(known_parameters)]
)


@router.get("/magnetization", summary="Mean spin of each chain after each sweep")
def magnetization(request: Request, run: str, format: str | None = None) -> Response:  # noqa: A002
    """Return values from -1 to 1, in any format of a slice."""
    view = service_of(request).archive.run(run)
    up = view.field("spins").select({}).array().mean(axis=-1)
    computed = Computed(view, "magnetization", ("step", "sample"), 2 * up - 1)
    return reply_array(request, computed, {}, format)
