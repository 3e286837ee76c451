"""How the service runs: `TRACE_ARCHIVE_*` variables and arguments of `trace-archive serve`."""

import ipaddress
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.store import StoreOptions

PREFIX: Final = "TRACE_ARCHIVE_"
LARGEST_ANSWER_NBYTES: Final = 2_000_000_000
"""Below 2 GiB, so that an `.npz` answer needs no ZIP64 records and its length is known."""


class Settings(BaseSettings):
    """Everything that an operator can choose; an argument wins over a variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,  # how a compose file says that a variable is not set
    )

    store: str
    """URL of the store: a path, ``file://``, ``s3://``, ``gs://``, ``az://``, ``memory://``."""
    store_endpoint_url: str | None = None
    """Of an S3 service that is not Amazon's."""
    store_region: str | None = None
    store_path_style: bool | None = None
    """Whether a bucket stands in the path or in the host; in the path if there is an endpoint."""
    store_profile: str | None = None
    """Of ``~/.aws``. Keys are no settings: `StoreOptions` takes them from variables."""
    store_anonymous: bool | None = None
    """Read public buckets without credentials."""
    store_request_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    """How long the store may be silent."""
    store_patience_s: Annotated[float, Field(gt=0)] = 2.0
    """How long the store is asked again before the answer is 503; whoever asked waits."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes any free port."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that answer."""
    public: bool = False
    """Allow a host that other machines can reach: whoever reaches it reads every run."""
    tokens_file: str | None = None
    """File of the tokens that may be used, as `trace-archive token` writes it."""
    private: bool = False
    """Ask for a token to read, too."""
    allow_push: bool = False
    """Let this machine write without a token, where there are none."""
    root_path: str = ""
    """The path below which a proxy shows the service: ``/traces``."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may read answers, with commas between them; ``*`` for all."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 << 20
    """Decoded blocks kept in memory, in each worker."""
    recent_bytes: Annotated[int, Field(ge=0)] = 32 << 20
    """Small answers kept whole in memory, in each worker."""
    reads_in_flight: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Byte ranges asked of the store at once, in each worker; by default 1 of a folder, else 64."""
    read_gap_bytes: Annotated[int, Field(ge=0)] | None = None
    """Read in vain to save a request; by default nothing of a folder, else 32 KiB."""
    read_ahead_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    """Values on their way from a remote store before they are sent, in each worker; one answer
    has a quarter of it at most."""
    max_answer_bytes: Annotated[int, Field(ge=1, le=LARGEST_ANSWER_NBYTES)] = 1 << 30
    """Values in one binary answer."""
    max_text_bytes: Annotated[int, Field(ge=1)] = 64 << 20
    """Values (as stored in memory, not as text) in one answer as JSON, CSV or tidy Arrow."""
    max_reduced_bytes: Annotated[int, Field(ge=1)] = 4 << 30
    """Values that one reduction may read."""
    max_object_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    """One object that is written or read as a whole: a tile, or a document."""
    max_inflight_bytes: Annotated[int, Field(ge=1)] = 2 << 30
    """Bodies of writes, and objects, held in memory at once in each worker; beyond, 503."""
    upload_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """How long the body of one write may take to come."""
    push_durability: Literal["process", "disk"] = "disk"
    """What a value that was acknowledged survives in a folder: the process, or a power cut too."""
    push_patience_s: Annotated[float, Field(gt=0)] = 10.0
    """How long a value waits for a store that does not answer, before 503."""
    push_idle_s: Annotated[float, Field(gt=0)] = 60.0
    """How long after its last value a run is taken for being recorded."""
    catalogue: str | None = None
    """Path of the file that keeps the list of runs between starts; None keeps it in memory."""
    access_log: bool = False

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("root_path")
    @classmethod
    def _rooted(cls, value: str) -> str:
        if value and (not value.startswith("/") or value.endswith("/")):
            message = f"expected a path such as /traces, got {value!r}"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if not (self.public or self.private or is_loopback(self.host)):
            message = (
                f"host {self.host!r} can be reached from other machines, and there is no login:"
                " whoever reaches it reads every run. Say --private with a file of tokens, or"
                f" --public ({PREFIX}PUBLIC=true) if that is meant, or keep 127.0.0.1"
            )
            raise ValueError(message)
        if self.private and self.tokens_file is None:
            message = f"a private service needs tokens: say --tokens or set {PREFIX}TOKENS_FILE"
            raise ValueError(message)
        if self.allow_push and not (self.tokens_file is None and is_loopback(self.host)):
            message = (
                f"allow_push is for a service without tokens at 127.0.0.1; this one has host"
                f" {self.host!r} and tokens_file {self.tokens_file!r}"
            )
            raise ValueError(message)
        if self.workers > 1 and not self.port:
            message = f"{self.workers} workers need a port to share; port 0 is one for each"
            raise ValueError(message)
        if self.workers > 1 and self.store.startswith("memory:"):
            message = (
                f"{self.workers} workers cannot share {self.store!r}:"
                " each process would have a store of its own"
            )
            raise ValueError(message)
        return self

    @property
    def store_options(self) -> StoreOptions:
        """What the store needs beside its URL."""
        return StoreOptions(
            endpoint_url=self.store_endpoint_url,
            region=self.store_region,
            path_style=self.store_path_style,
            profile=self.store_profile,
            anonymous=self.store_anonymous,
            request_timeout_s=self.store_request_timeout_s,
            patience_s=self.store_patience_s,
        )


def load_settings(**given: Any) -> Settings:
    """Return the settings: *given* where it is not None, else the environment's.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``, naming the setting, for a value or a combination that is refused.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        reasons = "; ".join(_reason(one) for one in error.errors(include_url=False))
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, reasons) from error


def _reason(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if error["type"] == "missing":
        return f"{name} is missing: say --{name} or set {PREFIX}{name.upper()}"
    return f"{name} ({PREFIX}{name.upper()}): {message}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches *host*, a name or an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
