"""How a store is reached: what its URL does not say."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from archive_schema.errors import ErrorKind, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES: Final = "TRACE_ARCHIVE_STORE_"
"""What the variables that complete options begin with."""

_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a store needs beside its URL; a path and ``memory://`` need nothing.

    What is None comes from ``TRACE_ARCHIVE_STORE_<NAME>``, and what is None then from the
    environment of the store's kind: ``AWS_*`` and ``~/.aws`` for S3. Who is to be believed
    (a profile, keys, or nobody) is decided as a whole: whoever names one of them here gets
    none of the others from a variable.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for values that contradict one another.
    """

    endpoint_url: str | None = None
    """Of a service that is not Amazon's: ``https://minio.example.org:9000``."""
    region: str | None = None
    path_style: bool | None = None
    """Whether the bucket stands in the path (``host/bucket/key``) or in the host
    (``bucket.host/key``); by default in the path if there is an endpoint URL."""
    profile: str | None = None
    """Of ``~/.aws/config`` and ``~/.aws/credentials``."""
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool | None = None
    """Whether requests are not signed: for public buckets."""
    token: str | None = field(default=None, repr=False)
    """Of a server that gives and takes an archive (``http://``)."""
    request_timeout_s: float = 10.0
    """How long the store may be silent. A put of many bytes gets more time, by their number."""
    patience_s: float = 10.0
    """How long a call that fails is tried again; a reader who waits wants less than a recorder."""

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            given, other = "access_key_id", "secret_access_key"
            if self.access_key_id is None:
                given, other = other, given
            raise invalid(ErrorKind.INVALID_PARAMETER, f"{given} needs {other} beside it")
        if self.session_token is not None and self.access_key_id is None:
            message = "session_token needs access_key_id and secret_access_key beside it"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        named = {
            "profile": self.profile is not None,
            "access_key_id": self.access_key_id is not None,
            "anonymous": self.anonymous is True,
        }
        if sum(named.values()) > 1:
            both = " and ".join(name for name, there in named.items() if there)
            message = f"expected one of profile, keys and anonymous; got {both}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url)
        for name in ("request_timeout_s", "patience_s"):
            if not getattr(self, name) > 0:
                message = f"{name} is more than 0 seconds; got {getattr(self, name)}"
                raise invalid(ErrorKind.INVALID_PARAMETER, message)

    @property
    def says_who(self) -> bool:
        """Return whether these options decide which credentials are used."""
        return self.anonymous is not None or bool(self.profile or self.access_key_id)

    def completed(self, environment: Mapping[str, str] | None = None) -> StoreOptions:
        """Return these options with what is None taken from ``TRACE_ARCHIVE_STORE_*``."""
        there = _from_variables(os.environ if environment is None else environment)
        found = replace(
            self,
            endpoint_url=self.endpoint_url or there.endpoint_url,
            region=self.region or there.region,
            path_style=there.path_style if self.path_style is None else self.path_style,
        )
        if self.says_who:
            return found
        return replace(
            found,
            profile=there.profile,
            access_key_id=there.access_key_id,
            secret_access_key=there.secret_access_key,
            session_token=there.session_token,
            anonymous=there.anonymous,
        )

    def variables(self) -> dict[str, str]:
        """Return the variables that give another process these options, but for the waits."""
        values = {
            "ENDPOINT_URL": self.endpoint_url,
            "REGION": self.region,
            "PATH_STYLE": None if self.path_style is None else str(self.path_style).lower(),
            "PROFILE": self.profile,
            "ACCESS_KEY_ID": self.access_key_id,
            "SECRET_ACCESS_KEY": self.secret_access_key,
            "SESSION_TOKEN": self.session_token,
            "ANONYMOUS": None if self.anonymous is None else str(self.anonymous).lower(),
        }
        return {VARIABLES + name: value for name, value in values.items() if value is not None}


def _from_variables(environment: Mapping[str, str]) -> StoreOptions:
    def text(name: str) -> str | None:
        # An empty variable is how a compose file and a shell say "not set".
        return environment.get(VARIABLES + name) or None

    def flag(name: str) -> bool | None:
        word = text(name)
        if word is None:
            return None
        if word.lower() not in _WORDS:
            message = f"{VARIABLES}{name} is true or false; got {word!r}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        return _WORDS[word.lower()]

    return StoreOptions(
        endpoint_url=text("ENDPOINT_URL"),
        region=text("REGION"),
        path_style=flag("PATH_STYLE"),
        profile=text("PROFILE"),
        access_key_id=text("ACCESS_KEY_ID"),
        secret_access_key=text("SECRET_ACCESS_KEY"),
        session_token=text("SESSION_TOKEN"),
        anonymous=flag("ANONYMOUS"),
    )


def _check_endpoint(url: str) -> None:
    if "@" in url:
        # Not repeated: it holds a secret, and errors are logged.
        message = "an endpoint URL holds no credentials: name them by profile or variables"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"expected an endpoint URL such as https://host:9000; got {url!r}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
