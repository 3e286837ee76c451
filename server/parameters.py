"""From the text after ``?`` to checked values: nothing unknown, nothing twice, nothing vague."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.selection import axis_of_parameter, parse_selector, plural
from server.query import REDUCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from archive_schema.selection import Selector
    from server.query import Reduction

OPTIONS: Final = ("format", "missing", "reduce", "over", "top", "threshold")
"""What a slice takes beside the names of its dimensions."""
MOST_TRIPLETS: Final = 1_000_000
"""What `top` may be at most, and what a threshold alone gives at most."""
_MOST_PARAMETERS: Final = 64
_LONGEST_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Top:
    """Ask for the largest values of matrices as (…, row, column, value)."""

    count: int
    threshold: float | None


@dataclass(frozen=True, slots=True)
class SliceRequest:
    """What the parameters of a slice say."""

    selectors: Mapping[str, Selector]
    named: Mapping[str, str]
    """What is neither a dimension nor an option: coordinates of steps and samples, or unknown."""
    format: str | None = None
    missing: Literal["error", "mask"] = "error"
    reduce: Reduction | None = None
    over: tuple[str, ...] | None = None
    """Dimensions to reduce; None for all."""
    top: Top | None = None


def query_parameters(query_string: bytes) -> dict[str, str]:
    """Return the parameters of a request by name.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a name that comes twice, or for too many of them.
    """
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("latin-1"),
            keep_blank_values=True,
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as error:
        message = f"expected at most {_MOST_PARAMETERS} parameters"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message) from error
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        message = f"parameter {twice!r} is given {names.count(twice)} times; expected once"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return parameters


def refuse_unknown(given: Iterable[str], allowed: Sequence[str]) -> None:
    """Check that only *allowed* parameters are given.

    Raises
    ------
    InvalidInputError
        ``unknown-parameter``, naming those that are allowed.
    """
    for name in given:
        if name not in allowed:
            expected = ", ".join(allowed) if allowed else "none"
            message = f"unknown parameter {name!r}; expected {expected}"
            raise InvalidInputError(ErrorKind.UNKNOWN_PARAMETER, message)


def slice_request(
    query_string: bytes, dims: tuple[str, ...], fixed: tuple[str, ...] = ()
) -> SliceRequest:
    """Read the parameters of a slice.

    Whoever walks through the steps of a run asks the same of each, so that what was read lately
    is kept; a long text is not.

    Parameters
    ----------
    dims
        Dimensions of the field.
    fixed
        Those that the path selects already; they cannot be selected again.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` or ``invalid-selection``, and ``unknown-parameter`` for a dimension
        that is *fixed*.
    """
    read = _kept_request if len(query_string) <= _LONGEST_KEPT else _slice_request
    return read(query_string, dims, fixed)


def _slice_request(
    query_string: bytes, dims: tuple[str, ...], fixed: tuple[str, ...]
) -> SliceRequest:
    selectors, options, named = select(query_parameters(query_string), free(dims, fixed), OPTIONS)
    for name in named:
        if axis_of_parameter(name, fixed) is not None:
            refuse_unknown([name], parameter_names(dims, fixed))
    missing = options.get("missing", "error")
    if missing not in ("error", "mask"):
        raise _expected("missing", "error or mask", missing)
    reduce, over = _reduction(options, dims)
    return SliceRequest(
        selectors,
        named,
        options.get("format"),
        "mask" if missing == "mask" else "error",
        reduce,
        over,
        _top(options),
    )


_kept_request = lru_cache(maxsize=1024)(_slice_request)


def free(dims: Sequence[str], fixed: Sequence[str]) -> list[str]:
    """Return the dimensions that parameters may select."""
    return [dim for dim in dims if dim not in fixed]


def parameter_names(dims: Sequence[str], fixed: Sequence[str] = ()) -> list[str]:
    """Return the names of what a slice takes, beside coordinates."""
    return [*(plural(dim) for dim in free(dims, fixed)), *OPTIONS]


def select(
    parameters: Mapping[str, str], dims: Sequence[str], options: Sequence[str]
) -> tuple[dict[str, Selector], dict[str, str], dict[str, str]]:
    """Split *parameters* into selectors by dimension, *options*, and what is neither.

    Only who knows the run can tell whether the latter are coordinates.

    Raises
    ------
    InvalidInputError
        ``invalid-selection``, or ``invalid-parameter`` for a dimension that is selected by its
        name and its plural at once.
    """
    selectors: dict[str, Selector] = {}
    chosen: dict[str, str] = {}
    named: dict[str, str] = {}
    for name, text in parameters.items():
        if name in options:
            chosen[name] = text
            continue
        dim = axis_of_parameter(name, dims)
        if dim is None:
            named[name] = text
        elif dim in selectors:
            message = f"{dim!r} is selected twice, as {dim!r} and as {plural(dim)!r}"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        else:
            selectors[dim] = parse_selector(text, name)
    return selectors, chosen, named


def _reduction(
    options: Mapping[str, str], dims: Sequence[str]
) -> tuple[Reduction | None, tuple[str, ...] | None]:
    name, over = options.get("reduce"), options.get("over")
    reduce = next((one for one in REDUCTIONS if one == name), None)
    if name is None:
        if over is not None:
            raise _expected("reduce", f"one of {', '.join(REDUCTIONS)} beside over", None)
        return None, None
    if reduce is None:
        raise _expected("reduce", f"one of {', '.join(REDUCTIONS)}", name)
    if "top" in options or "threshold" in options:
        raise _expected("reduce", "either reduce, or top and threshold", reduce)
    if over is None:
        return reduce, None
    names = tuple(axis_of_parameter(part.strip(), dims) or part.strip() for part in over.split(","))
    unknown = [name for name in names if name not in dims]
    if unknown or len(set(names)) < len(names):
        raise _expected("over", f"distinct names of {', '.join(dims) or 'no dimension'}", over)
    return reduce, names


def _top(options: Mapping[str, str]) -> Top | None:
    count, threshold = options.get("top"), options.get("threshold")
    if count is None and threshold is None:
        return None
    limit = None
    if threshold is not None:
        try:
            limit = float(threshold)
        except ValueError:
            limit = float("nan")
        if limit != limit:  # noqa: PLR0124  NaN compares with nothing
            raise _expected("threshold", "a number", threshold)
    return Top(MOST_TRIPLETS if count is None else _positive("top", count, MOST_TRIPLETS), limit)


def _positive(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:12]) <= most:
        raise _expected(name, f"an integer from 1 to {most}", text)
    return int(text)


def _expected(name: str, expected: str, got: str | None) -> InvalidInputError:
    shown = "nothing" if got is None else repr(got[:200])
    message = f"parameter {name!r}: expected {expected}, got {shown}"
    return InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
