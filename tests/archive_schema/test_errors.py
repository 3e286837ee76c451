"""Codes are a contract: each has a class, and a newer server's code is still an error."""

import pytest

from archive_schema.errors import ArchiveError, ErrorKind, NotFoundError, StorageError, from_kind


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_belongs_to_a_class(kind: ErrorKind) -> None:
    error = from_kind(kind.value, "what happened")

    assert error.kind is kind
    assert str(error) == "what happened"
    assert type(error) is not ArchiveError or kind is ErrorKind.UNKNOWN


def test_an_unknown_kind_keeps_its_message() -> None:
    error = from_kind("from-the-future", "what happened")

    assert error.kind is ErrorKind.UNKNOWN
    assert str(error) == "what happened"


def test_classes_say_what_a_caller_can_do() -> None:
    assert isinstance(from_kind("run-not-found", ""), NotFoundError | LookupError)
    assert isinstance(from_kind("invalid-selection", ""), ValueError)
    assert StorageError.retryable
    assert not NotFoundError.retryable
