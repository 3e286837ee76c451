"""Runs that are recorded, sealed and removed through the service, by whoever has no store.

Each request may be repeated when its answer is lost: the same values are nothing new, and an
equal run is the run.
"""

from __future__ import annotations

import zipfile
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np
from numpy.lib import format as npy
from pydantic import ValidationError

from archive_schema.errors import ErrorKind, invalid
from archive_schema.models import check_name
from archive_schema.wire import (
    DTYPE_HEADER,
    MEDIA_TYPES,
    SHAPE_HEADER,
    AnnotationsPatch,
    FieldDeclarationDocument,
    RunDeclaration,
    RunDocument,
    SliceFormat,
)
from clients.documents import DocumentT, opened, parsed, run_path
from clients.exchange import Request
from clients.retry import fetched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from clients.exchange import Operation, Reply
    from clients.options import Options

_NPY: Final = MEDIA_TYPES[SliceFormat.NPY]
_NPZ: Final = MEDIA_TYPES[SliceFormat.NPZ]
_RAW: Final = MEDIA_TYPES[SliceFormat.RAW]
_JSON: Final = MEDIA_TYPES[SliceFormat.JSON]


def created(
    run_id: str,
    *,
    system: str,
    steps: int | Sequence[int] | None,
    samples: int | None,
    metadata: Mapping[str, Any],
    tags: Iterable[str],
    options: Options,
) -> Operation[RunDocument]:
    """Declare a run, or find the equal one that is there."""
    declaration = _checked(
        RunDeclaration,
        {
            "id": run_id,
            "system": system,
            "steps": steps if steps is None or isinstance(steps, int) else tuple(steps),
            "samples": samples,
            "metadata": dict(metadata),
            "tags": tuple(tags),
        },
    )
    request = _json_request("runs", "POST", declaration.model_dump_json(exclude_none=True))
    return (yield from fetched(request, options.retry, partial(parsed, RunDocument)))


def pushed(
    run_id: str,
    step: int,
    values: Mapping[str, Any],
    *,
    samples: slice | range | None,
    layer: str | None,
    options: Options,
) -> Operation[bool]:
    """Record values of one step, as `Run.push` says; return whether anything was new."""
    scalars, arrays = _sorted(values)
    at = f"steps/{step}" if layer is None else f"steps/{step}/layers/{quote(layer, safe='')}"
    # What NumPy's files cannot hold comes by itself, and so does what has no axes.
    alone = {n for n, a in arrays.items() if layer is not None or not a.shape or _is_foreign(a)}
    together = {name: array for name, array in arrays.items() if name not in alone}
    requests = []
    if scalars or len(together) > 1:
        body = _npz({**scalars, **together})
        requests.append(_put(run_id, f"steps/{step}", samples, body, {"Content-Type": _NPZ}))
    else:
        alone |= together.keys()
    requests += [
        _array_request(run_id, f"{at}/{name}", samples, array)
        for name, array in arrays.items()
        if name in alone
    ]
    return (yield from _each(requests, options))


def pushed_whole(
    run_id: str,
    place: str,
    samples: slice | range | None,
    values: Mapping[str, Any],
    options: Options,
) -> Operation[bool]:
    """Record inputs or outputs; return whether anything was new."""
    requests = [
        _array_request(run_id, f"{place}/{check_name(name)}", samples, _array(name, value))
        for name, value in values.items()
    ]
    return (yield from _each(requests, options))


def pushed_samples(
    run_id: str, samples: slice | range | None, values: Mapping[str, Any], options: Options
) -> Operation[bool]:
    """Record sample coordinates; return whether anything was new."""
    body = _npz({name: _array(name, value) for name, value in values.items()})
    request = _put(run_id, "samples", samples, body, {"Content-Type": _NPZ})
    return (yield from _each([request], options))


def declared(
    run_id: str, layer: str | None, name: str, document: Mapping[str, Any], options: Options
) -> Operation[bool]:
    """Declare a field; return whether it was not declared before."""
    wanted = _checked(FieldDeclarationDocument, document)
    at = "fields" if layer is None else f"layers/{quote(layer, safe='')}"
    path = f"{run_path(run_id)}/tiles/{at}/{check_name(name)}"
    request = _json_request(path, "PUT", wanted.model_dump_json(exclude_defaults=True))
    return (yield from _each([request], options))


def sealed(run_id: str, *, force: bool, options: Options) -> Operation[RunDocument]:
    """Finish a run."""
    request = Request(f"{run_path(run_id)}/seal", "POST", (("force", str(force).lower()),))
    return (yield from fetched(request, options.retry, partial(parsed, RunDocument)))


def annotated(run_id: str, patch: Mapping[str, Any], options: Options) -> Operation[RunDocument]:
    """Change tags or note of a run; return its document."""
    text = _checked(AnnotationsPatch, patch).model_dump_json(exclude_unset=True)
    yield from fetched(_json_request(run_path(run_id), "PATCH", text), options.retry, _done)
    return (yield from opened(run_id, options))


def removed(run_id: str, *, force: bool, options: Options) -> Operation[None]:
    """Remove a run and everything in it."""
    params = (("confirm", run_id), ("force", str(force).lower()))
    yield from fetched(Request(run_path(run_id), "DELETE", params), options.retry, _done)


def _checked(model: type[DocumentT], values: Mapping[str, Any]) -> DocumentT:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one.get('input')!r:.100}"
            for one in error.errors(include_url=False)
        )
        raise invalid(ErrorKind.INVALID_PARAMETER, told) from error


def _each(requests: Iterable[Request], options: Options) -> Operation[bool]:
    new = False
    for request in requests:
        new |= yield from fetched(request, options.retry, _is_new)
    return new


def _is_new(reply: Reply) -> bool:
    return reply.status == HTTPStatus.CREATED


def _done(_: Reply) -> None:
    """Take any answer that is no error."""


def _json_request(path: str, method: str, text: str) -> Request:
    return Request(path, method, headers={"Content-Type": _JSON}, body=text.encode())


def _put(
    run_id: str,
    path: str,
    samples: slice | range | None,
    body: bytes,
    headers: Mapping[str, str],
) -> Request:
    params = () if samples is None else (("samples", _samples_text(samples)),)
    return Request(f"{run_path(run_id)}/tiles/{path}", "PUT", params, headers, body)


def _array_request(
    run_id: str, path: str, samples: slice | range | None, array: NDArray[Any]
) -> Request:
    if _is_foreign(array):
        headers = {
            "Content-Type": _RAW,
            DTYPE_HEADER: array.dtype.name,
            SHAPE_HEADER: ",".join(map(str, array.shape)),
        }
        return _put(run_id, path, samples, array.tobytes(), headers)
    stream = BytesIO()
    npy.write_array(stream, array, allow_pickle=False)
    return _put(run_id, path, samples, stream.getvalue(), {"Content-Type": _NPY})


def _samples_text(samples: slice | range) -> str:
    if samples.step not in (None, 1) or samples.stop is None:
        message = f"expected samples as slice(start, stop), got {samples!r:.100}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    return f"{samples.start or 0}:{samples.stop}"


def _sorted(
    values: Mapping[str, Any],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return the scalars, which are coordinates, and the arrays, which are fields."""
    scalars: dict[str, NDArray[Any]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in values.items():
        single = isinstance(value, bool | int | float | str | np.generic)
        (scalars if single else arrays)[check_name(name)] = _array(name, value)
    return scalars, arrays


def _array(name: str, value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.hasobject:
        message = f"{name!r}: expected numbers or text, got {type(value).__name__} of objects"
        raise invalid(ErrorKind.DTYPE_MISMATCH, message)
    return array


def _is_foreign(array: NDArray[Any]) -> bool:
    """Return whether the dtype is another library's, such as bfloat16 of ml_dtypes."""
    return array.dtype.isbuiltin == 2  # noqa: PLR2004  NumPy's word for it


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    # numpy.savez would take arrays called "file" for its own argument.
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)
    return stream.getvalue()
