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

OPTIONS: Final = (
    "format",
    "missing",
    "reduce",
    "over",
    "keep",
    "then",
    "downsample",
    "quant",
    "top",
    "threshold",
)
"""What a slice takes beside the names of its dimensions."""
STATISTICS: Final = "stats"
"""What `reduce` is for a table of statistics instead of one number."""
QUANTS: Final = ("u8", "u16")
LAST_TWO: Final = "*"
"""Stands for the last two dimensions, whatever they are called."""
MOST_PARTS: Final = 1 << 20
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
class ReductionRequest:
    """How the values of a slice are reduced."""

    operation: Reduction | None
    """None for a table of statistics."""
    over: tuple[str, ...] | None
    """Dimensions to reduce; None for all, or all but *keep*."""
    keep: tuple[str, ...] | None
    then: Reduction | None
    """What is done to the rest after that, but for *keep*."""

    def __str__(self) -> str:
        """Return a text that tells it from others."""
        dims = (".".join(names or ()) for names in (self.over, self.keep))
        return "-".join((self.operation or STATISTICS, *dims, self.then or ""))


@dataclass(frozen=True, slots=True)
class SliceRequest:
    """What the parameters of a slice say."""

    selectors: Mapping[str, Selector]
    named: Mapping[str, str]
    """What is neither a dimension nor an option: coordinates of steps and samples, or unknown."""
    format: str | None = None
    missing: Literal["error", "mask"] = "error"
    reduction: ReductionRequest | None = None
    downsample: Mapping[str, int] | None = None
    """Parts at most, by dimension; those of the last two by `LAST_TWO`."""
    quant: Literal["u8", "u16"] | None = None
    top: Top | None = None

    @property
    def how(self) -> str:
        """What is computed of the slice, for tags: equal where the answers are."""
        parts = ".".join(f"{dim}:{most}" for dim, most in (self.downsample or {}).items())
        return f"{self.reduction or ''}~{parts}~{self.quant or ''}"


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
    request = SliceRequest(
        selectors,
        named,
        options.get("format"),
        "mask" if missing == "mask" else "error",
        _reduction(options, dims),
        _downsample(options, dims),
        _quant(options),
        _top(options),
    )
    _check_together(request, options)
    return request


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


def _reduction(options: Mapping[str, str], dims: Sequence[str]) -> ReductionRequest | None:
    name = options.get("reduce")
    expected = f"one of {', '.join((*REDUCTIONS, STATISTICS))}"
    if name is None:
        for beside in ("over", "keep", "then"):
            if beside in options:
                raise _expected("reduce", f"{expected} beside {beside}", None)
        return None
    operation = next((one for one in REDUCTIONS if one == name), None)
    if operation is None and name != STATISTICS:
        raise _expected("reduce", expected, name)
    over, keep = (_dims(options, one, dims) for one in ("over", "keep"))
    text = options.get("then")
    then = next((one for one in REDUCTIONS if one == text), None)
    if text is not None and (then is None or over is None or operation is None):
        what = f"one of {', '.join(REDUCTIONS)}, after a reduce= over= some dimensions"
        raise _expected("then", what, text)
    if over is not None and keep is not None and (then is None or set(over) & set(keep)):
        raise _expected("keep", "either over or keep, or with then what is left of it", None)
    return ReductionRequest(operation, over, keep, then)


def _dims(options: Mapping[str, str], option: str, dims: Sequence[str]) -> tuple[str, ...] | None:
    """Return the dimensions that an option names, by their names or plurals."""
    text = options.get(option)
    if text is None:
        return None
    names = tuple(axis_of_parameter(part.strip(), dims) or part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in dims]
    if unknown or len(set(names)) < len(names):
        raise _expected(option, f"distinct names of {', '.join(dims) or 'no dimension'}", text)
    return names


def _downsample(options: Mapping[str, str], dims: Sequence[str]) -> dict[str, int] | None:
    text = options.get("downsample")
    if text is None:
        return None
    if ":" not in text:
        return {LAST_TWO: _positive("downsample", text, MOST_PARTS)}
    pairs = [part.partition(":") for part in text.split(",")]
    names = _dims({"downsample": ",".join(name for name, _, _ in pairs)}, "downsample", dims)
    counts = [_positive("downsample", count.strip(), MOST_PARTS) for _, _, count in pairs]
    return dict(zip(names or (), counts, strict=True))


def _quant(options: Mapping[str, str]) -> Literal["u8", "u16"] | None:
    text = options.get("quant")
    if text not in (None, *QUANTS):
        raise _expected("quant", " or ".join(QUANTS), text)
    return "u8" if text == "u8" else "u16" if text == "u16" else None


def _check_together(request: SliceRequest, options: Mapping[str, str]) -> None:
    """Refuse options of which each asks for another kind of answer."""
    computed = [name for name in ("reduce", "downsample", "quant") if name in options]
    if computed and request.top is not None:
        raise _expected(computed[0], f"either {computed[0]}, or top and threshold", None)
    if request.reduction and request.reduction.operation is None and computed[1:]:
        raise _expected(computed[1], f"none beside reduce={STATISTICS}", options[computed[1]])
    if request.missing == "mask" and request.quant is not None:
        raise _expected("quant", "either quant or missing=mask", request.quant)


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
