"""What can go wrong, grouped by what a caller can do about it.

::

    ArchiveError
    ├── NotFoundError        ask for something else      (also a LookupError)
    ├── ConflictError        re-read, then decide again
    ├── InvalidInputError    fix the argument            (also a ValueError)
    │   └── TooLargeError    ask for less at once
    ├── FormatError          the stored bytes are not ours, or damaged
    ├── StorageError         the environment failed; the same call may work later
    │   └── StoreRefusedError    change keys, bucket or URL first
    ├── AccessError          show another token
    └── ServerError          the server has a fault; tell who runs it

*Absent* and *unreadable* are never the same error: a reader may treat an absent
tile as not recorded, and must never treat an unreadable one so. No class here
knows an HTTP status; `server.problems` owns that table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final


class ErrorKind(StrEnum):
    """Stable codes on the wire. Append only: clients match on the text."""

    RUN_NOT_FOUND = "run-not-found"
    FIELD_NOT_FOUND = "field-not-found"
    LAYER_NOT_FOUND = "layer-not-found"
    STEP_NOT_RECORDED = "step-not-recorded"
    NOT_RECORDED = "not-recorded"
    OBJECT_NOT_FOUND = "object-not-found"
    RUN_EXISTS = "run-exists"
    RUN_SEALED = "run-sealed"
    RUN_DIFFERS = "run-differs"
    FIELD_DIFFERS = "field-differs"
    TILE_DIFFERS = "tile-differs"
    COORDINATE_DIFFERS = "coordinate-differs"
    OBJECT_EXISTS = "object-exists"
    OUTPUT_EXISTS = "output-exists"
    WRITER_REPLACED = "writer-replaced"
    WRITER_ACTIVE = "writer-active"
    INVALID_NAME = "invalid-name"
    INVALID_SELECTION = "invalid-selection"
    SELECTION_OUT_OF_BOUNDS = "selection-out-of-bounds"
    UNKNOWN_PARAMETER = "unknown-parameter"
    INVALID_PARAMETER = "invalid-parameter"
    FORMAT_NOT_ACCEPTABLE = "format-not-acceptable"
    SHAPE_MISMATCH = "shape-mismatch"
    DTYPE_MISMATCH = "dtype-mismatch"
    TILE_MISALIGNED = "tile-misaligned"
    VALUE_OUT_OF_RANGE = "value-out-of-range"
    PATTERN_UNMATCHED = "pattern-unmatched"
    STORE_URL_INVALID = "store-url-invalid"
    FILE_INVALID = "file-invalid"
    ANSWER_TOO_LARGE = "answer-too-large"
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable"
    FORMAT_VERSION_UNSUPPORTED = "format-version-unsupported"
    RECORD_DAMAGED = "record-damaged"
    TILE_LOST = "tile-lost"
    TILE_DAMAGED = "tile-damaged"
    STORE_UNREACHABLE = "store-unreachable"
    STORE_FULL = "store-full"
    STORE_READ_ONLY = "store-read-only"
    WRITER_FAILED = "writer-failed"
    DEADLINE_PASSED = "deadline-passed"
    ROUTE_NOT_FOUND = "route-not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    INTERNAL_ERROR = "internal-error"
    REQUEST_TOO_LARGE = "request-too-large"
    PART_TAKEN = "part-taken"
    SPOOLED = "spooled"
    STORE_BUSY = "store-busy"
    TOKEN_REQUIRED = "token-required"  # noqa: S105  no secret
    TOKEN_REFUSED = "token-refused"  # noqa: S105  no secret
    BODY_DAMAGED = "body-damaged"
    STORE_REFUSED = "store-refused"
    RUN_NOT_SEALED = "run-not-sealed"
    RUN_COMPACTED = "run-compacted"
    PRECONDITION_FAILED = "precondition-failed"
    NOTHING_MATCHES = "nothing-matches"
    UNKNOWN = "unknown"
    """A code from a newer server; the message is still worth showing."""


class ArchiveError(Exception):
    """Base of every error this project raises on purpose."""

    retryable: ClassVar[bool] = False
    """Whether the same call, unchanged, may succeed later."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotFoundError(ArchiveError, LookupError):
    """The named run, field, layer, step or object does not exist."""


class ConflictError(ArchiveError):
    """The archive changed, or already holds something else in that place."""


class InvalidInputError(ArchiveError, ValueError):
    """An argument breaks a rule that the caller could have checked."""


class TooLargeError(InvalidInputError):
    """The answer would exceed the limit; the message says how to split it."""


class FormatError(ArchiveError):
    """Stored bytes exist and do not mean what this version understands."""


class StorageError(ArchiveError):
    """The store did not answer or did not take the bytes; nothing is known about the data."""

    retryable = True
    retry_after_s: float | None = None
    """How long the store asks to be left alone, if it says."""


class StoreRefusedError(StorageError):
    """The store answered, and will answer the same until somebody changes keys, bucket or URL."""

    retryable = False


class AccessError(ArchiveError):
    """The server does not let the caller do this: it wants a token, or another one."""


class ServerError(ArchiveError):
    """The server failed in a way that nobody foresaw; the message names its log entry."""


_CLASS_OF: Final[dict[ErrorKind, type[ArchiveError]]] = {
    ErrorKind.RUN_NOT_FOUND: NotFoundError,
    ErrorKind.FIELD_NOT_FOUND: NotFoundError,
    ErrorKind.LAYER_NOT_FOUND: NotFoundError,
    ErrorKind.STEP_NOT_RECORDED: NotFoundError,
    ErrorKind.NOT_RECORDED: NotFoundError,
    ErrorKind.OBJECT_NOT_FOUND: NotFoundError,
    ErrorKind.RUN_EXISTS: ConflictError,
    ErrorKind.RUN_SEALED: ConflictError,
    ErrorKind.RUN_DIFFERS: ConflictError,
    ErrorKind.FIELD_DIFFERS: ConflictError,
    ErrorKind.TILE_DIFFERS: ConflictError,
    ErrorKind.COORDINATE_DIFFERS: ConflictError,
    ErrorKind.OBJECT_EXISTS: ConflictError,
    ErrorKind.OUTPUT_EXISTS: ConflictError,
    ErrorKind.WRITER_REPLACED: ConflictError,
    ErrorKind.WRITER_ACTIVE: ConflictError,
    ErrorKind.INVALID_NAME: InvalidInputError,
    ErrorKind.INVALID_SELECTION: InvalidInputError,
    ErrorKind.SELECTION_OUT_OF_BOUNDS: InvalidInputError,
    ErrorKind.UNKNOWN_PARAMETER: InvalidInputError,
    ErrorKind.INVALID_PARAMETER: InvalidInputError,
    ErrorKind.FORMAT_NOT_ACCEPTABLE: InvalidInputError,
    ErrorKind.SHAPE_MISMATCH: InvalidInputError,
    ErrorKind.DTYPE_MISMATCH: InvalidInputError,
    ErrorKind.TILE_MISALIGNED: InvalidInputError,
    ErrorKind.VALUE_OUT_OF_RANGE: InvalidInputError,
    ErrorKind.PATTERN_UNMATCHED: InvalidInputError,
    ErrorKind.STORE_URL_INVALID: InvalidInputError,
    ErrorKind.FILE_INVALID: InvalidInputError,
    ErrorKind.ANSWER_TOO_LARGE: TooLargeError,
    ErrorKind.RANGE_NOT_SATISFIABLE: InvalidInputError,
    ErrorKind.FORMAT_VERSION_UNSUPPORTED: FormatError,
    ErrorKind.RECORD_DAMAGED: FormatError,
    ErrorKind.TILE_LOST: FormatError,
    ErrorKind.TILE_DAMAGED: FormatError,
    ErrorKind.STORE_UNREACHABLE: StorageError,
    ErrorKind.STORE_FULL: StorageError,
    ErrorKind.STORE_READ_ONLY: StorageError,
    ErrorKind.WRITER_FAILED: StorageError,
    ErrorKind.DEADLINE_PASSED: StorageError,
    ErrorKind.ROUTE_NOT_FOUND: NotFoundError,
    ErrorKind.METHOD_NOT_ALLOWED: InvalidInputError,
    ErrorKind.INTERNAL_ERROR: ServerError,
    ErrorKind.REQUEST_TOO_LARGE: TooLargeError,
    ErrorKind.PART_TAKEN: ConflictError,
    ErrorKind.SPOOLED: StorageError,
    ErrorKind.STORE_BUSY: StorageError,
    ErrorKind.TOKEN_REQUIRED: AccessError,
    ErrorKind.TOKEN_REFUSED: AccessError,
    ErrorKind.BODY_DAMAGED: StorageError,
    ErrorKind.STORE_REFUSED: StoreRefusedError,
    ErrorKind.RUN_NOT_SEALED: ConflictError,
    ErrorKind.RUN_COMPACTED: ConflictError,
    ErrorKind.PRECONDITION_FAILED: ConflictError,
    ErrorKind.NOTHING_MATCHES: NotFoundError,
    ErrorKind.UNKNOWN: ArchiveError,
}


def from_kind(kind: str, message: str) -> ArchiveError:
    """Rebuild the error that was sent as *kind*, on the other side of a wire."""
    known = ErrorKind(kind) if kind in set(ErrorKind) else ErrorKind.UNKNOWN
    return _CLASS_OF[known](known, message)


def invalid(kind: ErrorKind, message: str) -> InvalidInputError:
    """Return the `InvalidInputError` of *kind*, for the many places that refuse an argument."""
    return InvalidInputError(kind, message)
