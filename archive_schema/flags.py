"""The options of a command line that say which store, the same for every command."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from archive_schema.errors import ErrorKind, StoreRefusedError
from archive_schema.store import LocalStore, StoreOptions, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from archive_schema.store import Store


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store as a command line names it."""

    url: str
    options: StoreOptions = field(default_factory=StoreOptions)

    def open(self) -> Store:
        """Open the store; a folder that is not there is made by the first write."""
        return open_store(self.url, self.options)

    def open_existing(self) -> Store:
        """Open the store to read it.

        Raises
        ------
        StoreRefusedError
            If it is a folder that is not there: a mistyped path is no empty archive.
        """
        store = self.open()
        if isinstance(store, LocalStore) and not store.root.is_dir():
            message = f"there is no folder {store.root}, and so no archive"
            raise StoreRefusedError(ErrorKind.STORE_REFUSED, message)
        return store


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flags:
    """The options, as typer reads them."""

    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="TRACE_ARCHIVE_STORE",
            help="Where the archive is: a path, s3://bucket/prefix, gs://, az:// or the"
            " http:// of a server.",
        ),
    ]
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="Of an S3 service that is not Amazon's.")
    ] = None
    region: Annotated[str | None, typer.Option("--region", help="Of the S3 bucket.")] = None
    path_style: Annotated[
        bool | None,
        typer.Option(
            "--path-style/--virtual-host",
            help="Whether an S3 bucket stands in the path or in the host's name; in the path"
            " if there is an endpoint URL.",
            show_default=False,
        ),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Of ~/.aws, for keys, region and endpoint."),
    ] = None
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Use no keys, for a public bucket.")
    ] = False

    def place(self) -> StorePlace:
        """Return the store; what no option says is left to variables."""
        options = StoreOptions(
            endpoint_url=self.endpoint_url,
            region=self.region,
            path_style=self.path_style,
            profile=self.profile,
            anonymous=True if self.anonymous else None,
        )
        return StorePlace(self.store, options)


_NAMES: Final = tuple(one.name for one in fields(_Flags))


def takes_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command*, whose argument ``store`` is a `StorePlace`, the options that name one.

    A default of the argument becomes the default of ``--store``; its options are not used.
    """
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name != "store"
    ]
    default = signature.parameters["store"].default
    flags = _parameters(default.url if isinstance(default, StorePlace) else default)

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = _Flags(**{name: given.pop(name) for name in _NAMES})
        command(store=chosen.place(), **given)

    # What typer reads; `wraps` has handed over the command's own.
    vars(run)["__signature__"] = inspect.Signature([*own, *flags])
    run.__annotations__ = {one.name: one.annotation for one in (*own, *flags)}
    return run


def _parameters(store: object) -> list[inspect.Parameter]:
    hints = get_type_hints(_Flags, include_extras=True)
    defaults = {name: one.default for name, one in inspect.signature(_Flags).parameters.items()}
    defaults["store"] = store
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hints[name]
        )
        for name in _NAMES
    ]
