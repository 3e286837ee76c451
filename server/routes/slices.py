"""Slices of fields: the byte route.

A request becomes a planned `Slice`, which knows shape, length and digest before anything is
read; from there on, the answer is one of six encodings of it, or of what is computed of it
(`server.routes.derived`).
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.globs import is_glob
from archive_schema.models import Place
from archive_schema.wire import MEDIA_TYPES, SliceFormat
from server.answers import Exchange, send_body, send_not_modified, send_whole, whole_answer
from server.conditional import etag
from server.formats import choose_format, encode, values_of
from server.formats.binary import npz
from server.parameters import QUANTS, STATISTICS, slice_request
from server.query import REDUCTIONS, LayerSlices
from server.routes.call import COORDINATES, Call, Parameter
from server.routes.derived import send_computed, send_statistics, send_top
from server.routes.planned import planned, planned_layers
from server.routes.slice_head import check_answer, slice_head

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from server.parameters import SliceRequest
    from server.query import Planned, RunView
    from server.service import Service

FORMATS: Final = tuple(SliceFormat)
INLINE_NBYTES: Final = 64 * 1024
INLINE_STEPS: Final = 8
"""A slice of so many steps and bytes is read faster than a thread is reached."""
_STEP: Final = re.compile(r"-?[0-9]{1,18}")

PARAMETERS: Final = (
    Parameter("format", "Format of the answer; wins over Accept.", tuple(FORMATS)),
    Parameter(
        "samples",
        "Selector of the sample axis: an integer, a slice or a list. Every dimension of the field"
        " is selected so, by its name or its plural: `positions=10:50`.",
        example="0:8",
    ),
    Parameter(
        "missing",
        "What becomes of what is not recorded: a 404, or null beside a mask.",
        ("error", "mask"),
    ),
    Parameter(
        "reduce",
        "Reduce on the server, accumulated in float64; `stats` gives a table of statistics.",
        (*REDUCTIONS, STATISTICS),
    ),
    Parameter("over", "Dimensions to reduce, with commas; all by default.", example="sample"),
    Parameter("keep", "Instead of `over`: dimensions not to reduce.", example="step,sample"),
    Parameter(
        "then",
        "After `reduce` over the dimensions of `over`, reduce what is left, but for `keep`.",
        REDUCTIONS,
    ),
    Parameter(
        "downsample",
        "Cut the last two dimensions, or those named, into so many parts at most, and give the"
        " mean of each part: `row:31,column:31`.",
        example="256",
    ),
    Parameter(
        "quant",
        "Give integers between the least and the greatest value, which `X-Trace-Offset` and"
        " `X-Trace-Scale` turn back; the greatest integer stands for what is not finite.",
        QUANTS,
    ),
    Parameter(
        "top",
        "Give the largest values of a matrix as (row, column, value); the places along axes before"
        " these come first.",
        example="50",
    ),
    Parameter("threshold", "Leave out triplets below this value.", example="0.01"),
    COORDINATES,
)
STEPS: Final = Parameter(
    "steps", "Selector of the step axis, by step number; negative from the last.", example="::10"
)


class SliceAnswer:
    """Answers with slices of the fields at one place."""

    def __init__(self, service: Service, place: Place) -> None:
        self._service = service
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter()
        exchange = Exchange(scope, receive, send)
        path = exchange.path
        run = await self._service.run(path["run"])
        known = self._service.recent.get(exchange.asked, run.version)
        if known is not None:
            await send_whole(exchange, known)
            return
        step = step_number(path["step"]) if "step" in path else None
        found, request = await self._planned(run, exchange, step)
        settings = self._service.settings
        if request.top is not None:
            await send_top(exchange, found, request, request.top, settings)
        elif request.reduction is not None and request.reduction.operation is None:
            await send_statistics(exchange, found, request, request.reduction, settings)
        elif request.reduction or request.downsample or request.quant:
            await send_computed(exchange, found, request, settings)
        else:
            await self._send_slice(exchange, found, request, began)

    async def _planned(
        self, run: RunView, exchange: Exchange, step: int | None
    ) -> tuple[Planned, SliceRequest]:
        path, query_string = exchange.path, exchange.scope["query_string"]
        layer = path.get("layer")
        if layer is not None and is_glob(layer) and layer not in run.layers():
            return await run_sync(planned_layers, run, path, query_string, step)
        field = run.field(path["field"], layer=layer, place=self._place)
        request = slice_request(query_string, field.dims, () if step is None else ("step",))
        # To look through coordinates takes a while where there are many samples.
        if request.named:
            return await run_sync(planned, field, request, step), request
        return planned(field, request, step), request

    async def _send_slice(
        self, exchange: Exchange, found: Planned, request: SliceRequest, began: float
    ) -> None:
        chosen = choose_format(request.format, exchange.header(b"accept"), FORMATS)
        check_answer(found, chosen, self._service.settings)
        masked = request.missing == "mask"
        tag = etag(found.digest, f"{chosen}-mask" if masked else chosen)
        if isinstance(found, LayerSlices) and not found.alike():
            if chosen is not SliceFormat.NPZ:
                found.check_alike()
            members = [(name, values_of(one, masked=masked)) for name, one in found.slices.items()]
            head = slice_head(found, tag, request)
            if not await send_not_modified(exchange, head):
                await send_body(exchange, head, npz(members), began=began)
            return
        values = values_of(found, masked=masked)
        head = slice_head(found, tag, request, values)
        small = found.nbytes <= INLINE_NBYTES and len(found.steps) <= INLINE_STEPS
        # Encoding reads nothing yet, but to know the length of a large table takes a while.
        body = encode(values, chosen) if small else await run_sync(encode, values, chosen)
        if await send_not_modified(exchange, head):
            return
        if small and exchange.scope["method"] == "GET":
            whole = partial(whole_answer, head, body, found.field.run.version, began=began)
            away = self._service.remote or bool(found.layers)
            answer = await run_sync(whole) if away else whole()
            self._service.recent.put(exchange.asked, answer)
            await send_whole(exchange, answer)
        else:
            await send_body(exchange, head, body, began=began)


def step_number(text: str) -> int:
    """Return the step number in a path.

    Raises
    ------
    InvalidInputError
        ``invalid-selection``.
    """
    if not _STEP.fullmatch(text):
        message = f"expected a step number in the path, such as 17 or -1; got {text[:40]!r}"
        raise InvalidInputError(ErrorKind.INVALID_SELECTION, message)
    return int(text)


def slice_calls(service: Service) -> list[Call]:
    """Return every call that answers with a slice."""
    trace, layers = SliceAnswer(service, Place.TRACE), SliceAnswer(service, Place.LAYERS)
    inputs, outputs = SliceAnswer(service, Place.INPUTS), SliceAnswer(service, Place.OUTPUTS)
    calls = (
        ("/runs/{run}/steps/{step}/{field}", trace, "step_field", "A field at one step"),
        (
            "/runs/{run}/steps/{step}/layers/{layer:path}/{field}",
            layers,
            "step_layer_field",
            "A layer's field at one step",
        ),
        ("/runs/{run}/fields/{field}", trace, "field", "A field over steps"),
        (
            "/runs/{run}/layers/{layer:path}/{field}",
            layers,
            "layer_field",
            "A layer's field over steps",
        ),
        ("/runs/{run}/inputs/{field}", inputs, "input_field", "What the sampler began with"),
        ("/runs/{run}/outputs/{field}", outputs, "output_field", "A final result"),
    )
    return [
        Call(
            path,
            answer,
            name,
            summary,
            "slices",
            PARAMETERS if "step}" in path or "puts" in path else (STEPS, *PARAMETERS),
            tuple(MEDIA_TYPES.values()),
            (HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        )
        for path, answer, name, summary in calls
    ]
