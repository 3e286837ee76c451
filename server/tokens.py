"""Tokens: who may write, and, in a private service, who may read.

A token is a random text that is shown once. The file that the service reads holds only its
SHA-256, with a name, a scope and the time of creation; the text is long and random, so that a
slow hash would add nothing. The file is read again whenever it has changed: a token that is
revoked is refused by every worker from its next request on.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AwareDatetime, Field, ValidationError

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from archive_schema.models import Document, Name

PREFIX: Final = "ta_"
"""What every token begins with, so that scanners of leaked secrets know one when they see it."""
_RANDOM_NBYTES: Final = 32

Scope: TypeAlias = Literal["read", "write"]


class Token(Document):
    """One token, without the text that whoever holds it knows."""

    name: Name
    scope: Scope
    created: AwareDatetime
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @property
    def writes(self) -> bool:
        """Whether it may be used to write; every token may be used to read."""
        return self.scope == "write"


class _Tokens(Document):
    tokens: tuple[Token, ...] = ()


class TokenFile:
    """The tokens in a file, as they are now.

    Parameters
    ----------
    path
        Of the file, which need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()

    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens, by age; none if there is no file.

        Raises
        ------
        StorageError
            ``store-unreachable`` if the file cannot be read.
        InvalidInputError
            ``invalid-parameter`` if it is no file of tokens.
        """
        try:
            status = self.path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._tokens = _parsed(self.path.read_bytes(), self.path)
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._tokens = None, ()
        except OSError as error:
            message = f"cannot read the tokens in {self.path}: {error.strerror}"
            raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from error
        return self._tokens

    def find(self, text: str) -> Token | None:
        """Return the token with this text, or None."""
        digest = _digest(text)
        found = None
        # All of them, and in constant time: how long it takes tells nothing about any.
        for token in self.tokens():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def add(self, name: str, scope: Scope) -> str:
        """Make a token and return its text, which is kept nowhere.

        Raises
        ------
        ConflictError
            ``output-exists`` if there is a token of this name.
        InvalidInputError
            ``invalid-name``.
        """
        known = self.tokens()
        if any(token.name == name for token in known):
            message = f"{self.path} has a token {name!r} already; revoke it first"
            raise ConflictError(ErrorKind.OUTPUT_EXISTS, message)
        text = PREFIX + secrets.token_urlsafe(_RANDOM_NBYTES)
        created = datetime.now(UTC).replace(microsecond=0)
        token = Token(name=name, scope=scope, created=created, sha256=_digest(text))
        self._write((*known, token))
        return text

    def revoke(self, name: str) -> None:
        """Remove a token.

        Raises
        ------
        NotFoundError
            ``object-not-found``.
        """
        known = self.tokens()
        kept = tuple(token for token in known if token.name != name)
        if len(kept) == len(known):
            message = f"{self.path} has no token {name!r}; it has {_names(known)}"
            raise NotFoundError(ErrorKind.OBJECT_NOT_FOUND, message)
        self._write(kept)

    def _write(self, tokens: tuple[Token, ...]) -> None:
        """Replace the file, so that a service reads the old one or the new one."""
        partial = self.path.with_name(f"{self.path.name}.partial-{secrets.token_hex(4)}")
        data = _Tokens(tokens=tokens).model_dump_json(indent=2).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as target:
                    target.write(data)
                    target.flush()
                    os.fsync(target.fileno())
                partial.replace(self.path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            message = f"cannot write the tokens to {self.path}: {error.strerror}"
            raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from error


def _parsed(data: bytes, path: Path) -> tuple[Token, ...]:
    try:
        return _Tokens.model_validate_json(data).tokens
    except (ValidationError, InvalidInputError) as error:
        message = f"{path} is no file of tokens (`trace-archive token` writes one): {error}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _names(tokens: tuple[Token, ...]) -> str:
    return ", ".join(token.name for token in tokens) or "none"
