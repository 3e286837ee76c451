"""Where an S3 bucket is and who asks for it, for every client of ours.

Found in this order: the options, ``TRACE_ARCHIVE_STORE_*``, and what every tool for S3 reads:
``AWS_*``, the profile, the machine's own role. botocore knows the last three, with all their
ways to get and to renew credentials; neither obstore nor s3fs is left to look for itself, so
that both reach the same place as the same user.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError
from botocore.session import Session

from archive_schema.errors import ErrorKind, StorageError, StoreRefusedError, invalid

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

    from archive_schema.store.options import StoreOptions

_DEFAULT_REGION: Final = "us-east-1"
"""What signatures are made for where a service has no regions, or nobody says which."""
_BELIEVED: Final = timedelta(minutes=10)
"""How long credentials are said to last: botocore renews them before they last less. obstore
asks again when five minutes are left, so that not every request does."""
_CONNECT_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class S3Access:
    """How a bucket is reached."""

    bucket: str
    options: StoreOptions
    """Completed from the environment."""
    endpoint_url: str | None
    region: str
    path_style: bool

    @classmethod
    def resolved(cls, bucket: str, options: StoreOptions) -> S3Access:
        """Return how *bucket* is reached with *options* and this process's environment.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` if the options contradict one another or name an unknown profile.
        """
        completed = options.completed()
        session = Session(profile=completed.profile)
        try:
            session.get_scoped_config()  # a profile that is not there is a mistake in any case
            endpoint_url = completed.endpoint_url or _configured_endpoint(session)
            region = (
                completed.region
                or os.environ.get("AWS_REGION")
                or session.get_config_variable("region")
                or _DEFAULT_REGION
            )
        except BotoCoreError as error:
            raise invalid(ErrorKind.INVALID_PARAMETER, str(error)) from error
        path_style = completed.path_style
        if path_style is None:
            # A bucket's dots would be taken for host names, which no certificate is made for.
            path_style = endpoint_url is not None or "." in bucket
        return cls(bucket, completed, endpoint_url, region, path_style)

    def config(self) -> S3Config:
        """Return obstore's configuration: every value that it would take from ``AWS_*`` itself."""
        config: S3Config = {
            "bucket": self.bucket,
            "region": self.region,
            "virtual_hosted_style_request": not self.path_style,
            "skip_signature": self.options.anonymous is True,
            "conditional_put": "etag",
            # One delete at a time, by a request that every service knows.
            "disable_bulk_delete": True,
        }
        if self.endpoint_url is not None:
            # Of the two names of an endpoint, the first would win over the other.
            config["aws_endpoint_url_s3"] = config["endpoint"] = self._bucket_endpoint()
        return config

    def credentials(self) -> Credentials | None:
        """Return what gives obstore credentials; None if nothing is signed."""
        return None if self.options.anonymous else Credentials(self)

    def fsspec_arguments(self) -> dict[str, Any]:
        """Return the arguments of an `s3fs.S3FileSystem` that reaches the same place."""
        arguments: dict[str, Any] = {
            "anon": self.options.anonymous is True,
            # An instance that was made before knows the environment of then.
            "skip_instance_cache": True,
            "client_kwargs": {"region_name": self.region},
            "config_kwargs": {
                "s3": {"addressing_style": "path" if self.path_style else "virtual"},
                "connect_timeout": min(self.options.request_timeout_s, _CONNECT_TIMEOUT_S),
                "read_timeout": self.options.request_timeout_s,
                # s3fs itself tries five times; both together would take minutes to give up.
                "retries": {"total_max_attempts": 1},
            },
        }
        if self.endpoint_url is not None:
            arguments["endpoint_url"] = self.endpoint_url
        if self.options.profile is not None:
            arguments["profile"] = self.options.profile
        if self.options.access_key_id is not None:
            arguments |= {
                "key": self.options.access_key_id,
                "secret": self.options.secret_access_key,
                "token": self.options.session_token,
            }
        return arguments

    def _bucket_endpoint(self) -> str:
        """Return the endpoint as obstore wants it: with the bucket, where it is in the host."""
        url = (self.endpoint_url or "").rstrip("/")
        if self.path_style:
            return url
        parts = urlsplit(url)
        return parts._replace(netloc=f"{self.bucket}.{parts.netloc}").geturl()


class Credentials:
    """Gives obstore the keys of a request, when it is made and not before."""

    def __init__(self, access: S3Access) -> None:
        self._options = access.options
        self._session = Session(profile=access.options.profile)

    def __call__(self) -> S3Credential:
        """Return keys and how long they may be used.

        Raises
        ------
        StoreRefusedError
            If there are none.
        StorageError
            If whoever gives them does not. obstore tells both in an error of its own.
        """
        options = self._options
        if options.access_key_id is not None and options.secret_access_key is not None:
            return {
                "access_key_id": options.access_key_id,
                "secret_access_key": options.secret_access_key,
                "token": options.session_token,
                "expires_at": None,
            }
        try:
            found = self._session.get_credentials()
            keys = None if found is None else found.get_frozen_credentials()
        except BotoCoreError as error:
            message = f"no credentials: {error}"
            raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from error
        if keys is None:
            raise StoreRefusedError(
                ErrorKind.STORE_REFUSED,
                "no credentials: name a profile, set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, or say --anonymous if the bucket is public",
            )
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + _BELIEVED,
        }


def _configured_endpoint(session: Session) -> str | None:
    """Return the endpoint that the environment or the profile names, as AWS's tools find it."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if url := os.environ.get(name):
            return url
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    url = services.get("s3", {}).get("endpoint_url") or profile.get("endpoint_url")
    return None if url is None else str(url)
