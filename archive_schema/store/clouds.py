"""Stores in the clouds: a URL and options become clients of obstore with bounded patience."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from obstore.exceptions import BaseError
from obstore.store import S3Store, from_url

from archive_schema.errors import ErrorKind, InvalidInputError, invalid
from archive_schema.store.objects import ObjectsStore
from archive_schema.store.s3 import S3Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from archive_schema.store.options import StoreOptions

_CONNECT_TIMEOUT_S: Final = 5.0
_LONGEST_READ: Final = 64
"""So many times the time that a store may be silent, a read may take while bytes come."""
_PUT_NBYTES: Final = 16 << 20
"""A put of so many bytes has twice the time of a small one, and so on."""
_ONLY_S3: Final = ("region", "path_style", "profile", "access_key_id", "session_token")


def open_s3(url: str, options: StoreOptions) -> ObjectsStore:
    """Open a bucket of S3, or of a service that speaks its protocol.

    The prefix is taken literally, as by other tools for S3: ``%20`` is three characters.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        message = f"expected s3://bucket/prefix, got {url!r}"
        raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message)
    access = S3Access.resolved(bucket, options)
    credentials = access.credentials()

    def opened(client: ClientConfig, retry: RetryConfig, *, putting: bool) -> ObjectStore:
        config = access.config()
        if putting:
            # The store compares what it got, and keeps the sum.
            config["checksum_algorithm"] = "SHA256"
        return S3Store(
            prefix=prefix.strip("/") or None,
            config=config,
            client_options=client,
            retry_config=retry,
            credential_provider=credentials,
        )

    return _opened(url, _Waits(access.options, access.endpoint_url), opened)


def open_cloud(url: str, options: StoreOptions) -> ObjectsStore:
    """Open a bucket of Google's (``gs://``) or a container of Azure's (``az://``).

    Who asks, and for Azure the account, comes from the environment of Google's and Azure's
    own tools.
    """
    for name in _ONLY_S3:
        if getattr(options, name) is not None:
            raise invalid(ErrorKind.INVALID_PARAMETER, f"{name} is for s3:// stores; got {url!r}")
    config: dict[str, Any] = {}
    if options.endpoint_url is not None:
        config["base_url" if url.startswith("gs:") else "endpoint"] = options.endpoint_url
    if options.anonymous:
        config["skip_signature"] = True
    # Its overloads name one config type for each scheme; here the scheme is known at run time.
    open_url: Any = from_url

    def opened(client: ClientConfig, retry: RetryConfig, *, putting: bool) -> ObjectStore:
        del putting
        store: ObjectStore = open_url(
            url.rstrip("/"), config=config, client_options=client, retry_config=retry
        )
        return store

    return _opened(url, _Waits(options, options.endpoint_url), opened)


@dataclass(frozen=True, slots=True)
class _Waits:
    """How long clients wait, and how often they ask."""

    options: StoreOptions
    endpoint_url: str | None

    def reading(self) -> tuple[ClientConfig, RetryConfig]:
        """Return the waits of a read: it ends when nothing comes any more, not when it is long."""
        silence_s = self.options.request_timeout_s
        client = self._client(_LONGEST_READ * silence_s)
        client["read_timeout"] = timedelta(seconds=silence_s)
        patience = timedelta(seconds=self.options.patience_s)
        return client, {
            # Time decides, not the count.
            "max_retries": 100,
            "retry_timeout": patience,
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        }

    def putting(self, doublings: int) -> tuple[ClientConfig, RetryConfig]:
        """Return the waits of a put.

        The client does not repeat it: it would take its own put, which landed unanswered, for
        somebody else's.
        """
        client = self._client(self.options.request_timeout_s * 2**doublings)
        return client, {"max_retries": 0}

    def _client(self, timeout_s: float) -> ClientConfig:
        connect_s = min(self.options.request_timeout_s, _CONNECT_TIMEOUT_S)
        return {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=connect_s),
            "allow_http": (self.endpoint_url or "").startswith("http://"),
        }


def _opened(url: str, waits: _Waits, opened: Callable[..., ObjectStore]) -> ObjectsStore:
    @cache
    def putting(doublings: int) -> ObjectStore:
        return opened(*waits.putting(doublings), putting=True)

    try:
        reading = opened(*waits.reading(), putting=False)
        putting(0)
    except (BaseError, ValueError) as error:
        text = str(error).partition("\n\nDebug source:")[0]
        message = f"cannot open {url!r} as a store: {text}"
        raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message) from error
    return ObjectsStore(
        url,
        reading,
        putting=lambda nbytes: putting((nbytes // _PUT_NBYTES).bit_length()),
        patience_s=waits.options.patience_s,
        endpoint_url=waits.endpoint_url,
    )
