"""Pickles of arrays and numbers, read without running anything that they name.

A pickle is first gone through opcode by opcode: what could make it do more than build containers,
arrays and tensors is refused, and so is every length that the file does not have. Then it is read
with stand-ins for the few names that NumPy and torch write, which only collect what they are given;
arrays are made of that when everything was checked.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tree: TypeAlias = "dict[str, Tree] | NDArray[Any] | int | float | bool | str | None"
"""Names and numbers of an object; sequences are dicts by position."""
StorageReader: TypeAlias = Callable[[object], "NDArray[Any]"]
"""From a persistent id to the flat values of a storage."""

_OPCODES: Final = re.compile(
    r"PROTO|FRAME|STOP|MARK|POP|POP_MARK|DUP|MEMOIZE|PUT|BINPUT|LONG_BINPUT|GET|BINGET|"
    r"LONG_BINGET|NONE|NEWTRUE|NEWFALSE|INT|BININT|BININT1|BININT2|LONG|LONG1|FLOAT|BINFLOAT|"
    r"STRING|BINSTRING|SHORT_BINSTRING|BINBYTES|SHORT_BINBYTES|BINBYTES8|BYTEARRAY8|UNICODE|"
    r"SHORT_BINUNICODE|BINUNICODE|BINUNICODE8|READONLY_BUFFER|EMPTY_TUPLE|TUPLE|TUPLE1|TUPLE2|"
    r"TUPLE3|EMPTY_LIST|LIST|APPEND|APPENDS|EMPTY_DICT|DICT|SETITEM|SETITEMS|GLOBAL|STACK_GLOBAL|"
    r"REDUCE|BUILD|BINPERSID"
)
_MOST_OPCODES: Final = 1_000_000
_MOST_ENTRIES: Final = 100_000
_DEEPEST: Final = 8
_KINDS: Final = frozenset("biuf")
_ARRAY_STATE: Final = 5


@dataclass(slots=True)
class _Dtype:
    """Stands in for a dtype."""

    dtype: np.dtype[Any]

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise _refused(f"expected the byte order of a dtype, found {state!r:.80}")
        self.dtype = self.dtype.newbyteorder(order)


@dataclass(slots=True)
class _Array:
    """Stands in for an array, or for the flat values of a storage.

    NumPy's own take a state from whoever unpickles, and would trust it.
    """

    values: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != _ARRAY_STATE:
            raise _refused(f"expected the state of an array, found {type(state).__name__}")
        _, shape, dtype, fortran, data = state
        self.values = _array(data, dtype, shape, "F" if fortran is True else "C").values


class _Name:
    """Stands in for a function or a class; nothing can be set on it.

    Parameters
    ----------
    call
        What it gives when it is called.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise _refused("it sets a state where there is none")


def _array(data: object, dtype: object, shape: object, order: object) -> _Array:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray | memoryview):
        raise _refused(f"expected the bytes of an array of numbers, found {type(data).__name__}")
    lengths = _lengths(shape)
    if dtype.dtype.itemsize * math.prod(lengths) != len(data):
        raise _refused(f"{len(data)} bytes are no {dtype.dtype} of shape {lengths!r:.80}")
    values = np.frombuffer(data, dtype.dtype).reshape(lengths, order="F" if order == "F" else "C")
    return _Array(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(lengths))


def _lengths(given: object) -> tuple[int, ...]:
    lengths = given if isinstance(given, tuple) else (given,)
    if not all(type(length) is int and length >= 0 for length in lengths):
        raise _refused(f"expected the lengths of an array, found {given!r:.80}")
    return lengths


def _dtype(name: object, align: object = None, copy: object = None) -> _Dtype:
    del align, copy
    known = np.dtype(name) if isinstance(name, str) and len(name) <= 8 else None  # noqa: PLR2004  the longest is "float64"
    if known is None or known.kind not in _KINDS:
        raise _refused(f"expected an array of numbers, found dtype {name!r:.80}")
    return _Dtype(known)


def _reconstruct(*arguments: object) -> _Array:
    del arguments
    return _Array()


def _scalar(dtype: object, data: object = b"") -> _Array:
    return _array(data, dtype, (), "C")


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Stand in for `_codecs.encode`, by which bytes come through protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _refused("expected bytes as Latin-1 text")
    return text.encode("latin-1")


def _mapping(*arguments: object) -> dict[Any, Any]:
    """Stand in for an ordered dict, also in the protocols that list its items at once."""
    pairs = arguments[0] if arguments else ()
    return dict(pairs) if isinstance(pairs, list | tuple) else {}


def _bytes(*arguments: object) -> bytes:
    data = arguments[0] if arguments else b""
    return _encode(*arguments) if isinstance(data, str) else bytes(_checked_bytes(data))


def _checked_bytes(data: object) -> bytes | bytearray:
    if not isinstance(data, bytes | bytearray):
        raise _refused(f"expected bytes, found {type(data).__name__}")
    return data


@dataclass(frozen=True, slots=True)
class StorageType:
    """Stands in for the type of a torch storage: ``FloatStorage``."""

    name: str


def _rebuild_tensor(
    storage: object, offset: object, size: object, stride: object, *_: object
) -> Any:
    """Stand in for ``torch._utils._rebuild_tensor_v2``: a view of a storage."""
    flat = storage.values if isinstance(storage, _Array) else None
    if not isinstance(flat, np.ndarray):
        raise _refused("expected a tensor with its storage")
    shape, steps = _lengths(size), _lengths(stride)
    if type(offset) is not int or len(shape) != len(steps):
        found = f"{offset!r:.40}, {shape!r:.80} and {steps!r:.80}"
        raise _refused(f"expected the place and shape of a tensor, found {found}")
    values = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    # A stride of 0 would make any length of a few bytes.
    if offset < 0 or (values and last >= flat.size) or values > flat.size:
        raise _refused(f"a storage of {flat.size} has no tensor of {shape!r:.80} at {offset}")
    view = np.lib.stride_tricks.as_strided(
        flat[offset:], shape, tuple(step * flat.itemsize for step in steps), writeable=False
    )
    return _Array(np.ascontiguousarray(view).reshape(shape))


_NUMPY: Final[Mapping[str, _Name]] = {
    "numpy.dtype": _Name(_dtype),
    "numpy.ndarray": _Name(_reconstruct),
    "collections.OrderedDict": _Name(_mapping),
    "_codecs.encode": _Name(_encode),
    **{
        f"{module}.{name}": _Name(_bytes)
        for module in ("builtins", "__builtin__")
        for name in ("bytes", "bytearray")
    },
    **{
        f"numpy.{core}.{name}": _Name(stand_in)
        for core in ("core", "_core")
        for name, stand_in in (
            ("numeric._frombuffer", _array),
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _scalar),
        )
    },
}
_TORCH: Final = {
    "torch._utils._rebuild_tensor_v2": _Name(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Name(lambda tensor, *_: tensor),
}


class _Unpickler(pickle.Unpickler):
    """Knows no names but those."""

    def __init__(self, stream: IO[bytes], storages: StorageReader | None) -> None:
        super().__init__(stream)
        self._storages = storages

    def find_class(self, module: str, name: str, /) -> Any:
        whole = f"{module}.{name}"
        if whole in _NUMPY:
            return _NUMPY[whole]
        if self._storages is not None:
            if whole in _TORCH:
                return _TORCH[whole]
            if module in ("torch", "torch.storage") and name.endswith("Storage"):
                return StorageType(name)
        raise _refused(f"it names {whole[:100]}: only arrays and numbers are read, nothing is run")

    def persistent_load(self, pid: object, /) -> Any:
        if self._storages is None:
            raise _refused("it refers to what lies outside of it")
        return _Array(self._storages(pid))


def read_pickle(stream: IO[bytes], storages: StorageReader | None = None) -> Tree:
    """Return the arrays and numbers that *stream* holds, from where it stands.

    Parameters
    ----------
    storages
        Reads what the pickle of a torch file refers to.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for a pickle that holds anything else, saying what.
    """
    start = stream.tell()
    try:
        _check_opcodes(stream)
        stream.seek(start)
        return _tree(_Unpickler(stream, storages).load(), [0])
    except InvalidInputError:
        raise
    # Whatever a pickle does, this is what of it may reach the caller.
    except Exception as error:
        raise _refused(f"expected a pickle: {type(error).__name__}: {error}") from error


def _check_opcodes(stream: IO[bytes]) -> None:
    memo = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name == "NEXT_BUFFER":
            raise _refused("its arrays lie outside of it (they were pickled out of band)")
        if not _OPCODES.fullmatch(opcode.name):
            raise _refused(f"it holds {opcode.name}: only arrays and numbers are read")
        memo += opcode.name == "MEMOIZE" or opcode.name.endswith("PUT")
        if count > _MOST_OPCODES:
            raise _refused(f"expected at most {_MOST_OPCODES} opcodes")
        # A memo is as long as its largest index.
        if opcode.name.endswith("PUT") and int(argument or 0) > count:
            raise _refused(f"it remembers {argument} things after {count} opcodes")


def _tree(found: object, entries: list[int], depth: int = 0) -> Tree:
    """Return what was built as names, arrays and numbers; parts may be shared, within bounds."""
    entries[0] += 1
    if entries[0] > _MOST_ENTRIES or depth > _DEEPEST:
        raise _refused(f"expected at most {_MOST_ENTRIES} values in {_DEEPEST} levels")
    if isinstance(found, _Array) and isinstance(found.values, np.ndarray):
        return found.values
    if found is None or isinstance(found, bool | int | float | str):
        return found
    if isinstance(found, list | tuple):
        found = dict(enumerate(found))
    if isinstance(found, dict):
        odd = next((key for key in found if not isinstance(key, str | int)), None)
        if odd is not None:
            raise _refused(f"expected names or numbers as keys, found {type(odd).__name__}")
        return {str(key): _tree(value, entries, depth + 1) for key, value in found.items()}
    raise _refused(f"it holds a {type(found).__name__.lstrip('_')}: expected arrays and numbers")


def _refused(reason: str) -> InvalidInputError:
    return InvalidInputError(ErrorKind.FILE_INVALID, reason)
