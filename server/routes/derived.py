"""Answers that are computed of a slice: reductions, overviews, statistics, the largest values."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync

from archive_schema.wire import MEDIA_TYPES, OFFSET_HEADER, SCALE_HEADER, SliceFormat
from server.answers import raw_header, send_body, send_not_modified
from server.conditional import etag
from server.formats import Body, choose_format, encode, quantised, values_of
from server.formats.binary import npz
from server.formats.tables import TABLE_FORMATS, encode_table
from server.formats.triplets import TOP_FORMATS, encode_top
from server.limits import check_size
from server.query import LayerSlices, top
from server.routes.reduced import by_layer, computed, dims_over, outline, statistics_table
from server.routes.slice_head import check_answer, slice_head

if TYPE_CHECKING:
    from server.answers import Exchange
    from server.parameters import ReductionRequest, SliceRequest, Top
    from server.query import Planned
    from server.settings import Settings

FORMATS: Final = tuple(SliceFormat)


async def send_computed(
    exchange: Exchange, found: Planned, request: SliceRequest, settings: Settings
) -> None:
    """Answer with what is computed of *found* as an array: reduced, downsampled, quantised."""
    chosen = choose_format(request.format, exchange.header(b"accept"), FORMATS)
    asked = request.reduction
    check_size(found, settings.max_reduced_bytes, "a reduction")
    plain = asked is None and request.downsample is None
    check_answer(found if plain else outline(found, request), chosen, settings)
    if isinstance(found, LayerSlices):
        over = () if asked is None else dims_over(found, asked)
        apart = asked is not None and by_layer(found, over)
        if not apart or request.quant or chosen is not SliceFormat.NPZ:
            found.check_alike(over if apart else ())
    tag = etag(found.digest, f"{chosen}-{request.how}")
    # Headers of quantised values follow from the values; those of a 304 need not say it.
    if await send_not_modified(exchange, slice_head(found, tag, request)):
        return
    began = perf_counter()
    made = values_of(found) if plain else await run_sync(computed, found, request)
    if isinstance(made, list):
        await send_body(exchange, slice_head(found, tag, request), npz(made), began=began)
        return
    beside: list[tuple[bytes, bytes]] = []
    if request.quant is not None:
        integers = await run_sync(quantised, made, request.quant)
        made = integers.values
        beside = [
            raw_header(SCALE_HEADER, repr(integers.scale)),
            raw_header(OFFSET_HEADER, repr(integers.offset)),
        ]
    head = slice_head(found, tag, request, made)
    head = head._replace(headers=(*head.headers, *beside))
    await send_body(exchange, head, encode(made, chosen), began=began)


async def send_statistics(
    exchange: Exchange,
    found: Planned,
    request: SliceRequest,
    asked: ReductionRequest,
    settings: Settings,
) -> None:
    """Answer with a table of statistics of *found*."""
    chosen = choose_format(request.format, exchange.header(b"accept"), TABLE_FORMATS)
    check_size(found, settings.max_reduced_bytes, "a table of statistics")
    head = slice_head(found, etag(found.digest, f"{chosen}-{request.how}"), request)
    if await send_not_modified(exchange, head):
        return
    began = perf_counter()
    table = await run_sync(statistics_table, found, asked)
    data = await run_sync(encode_table, table, chosen)
    body = Body(MEDIA_TYPES[chosen], len(data), lambda: iter([data]))
    await send_body(exchange, head, body, began=began)


async def send_top(
    exchange: Exchange, found: Planned, request: SliceRequest, wanted: Top, settings: Settings
) -> None:
    """Answer with the largest values of *found*."""
    chosen = choose_format(request.format, exchange.header(b"accept"), TOP_FORMATS)
    if isinstance(found, LayerSlices):
        found.check_alike()
    check_size(found, settings.max_reduced_bytes, "a search for the largest")
    tag = etag(found.digest, f"{chosen}-top-{wanted.count}-{wanted.threshold}")
    head = slice_head(found, tag, request)
    if await send_not_modified(exchange, head):
        return
    began = perf_counter()
    largest = await run_sync(top, found, wanted.count, wanted.threshold)
    await send_body(exchange, head, encode_top(found, largest, chosen), began=began)
