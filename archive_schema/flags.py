"""The options of a command line that say which store, the same for every command."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, get_type_hints

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
    """What says how a store is reached, as typer reads it."""

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

    def options(self) -> StoreOptions:
        """Return the options; what no flag says is left to variables."""
        return StoreOptions(
            endpoint_url=self.endpoint_url,
            region=self.region,
            path_style=self.path_style,
            profile=self.profile,
            anonymous=True if self.anonymous else None,
        )


_NAMES: Final = tuple(one.name for one in fields(_Flags))
_Store: TypeAlias = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="TRACE_ARCHIVE_STORE",
        help="Where the archive is: a path, s3://bucket/prefix, gs://, az:// or the http:// of a"
        " server.",
    ),
]


def takes_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command*, whose argument ``store`` is a `StorePlace`, the flags that name one.

    A default of the argument becomes the default of ``--store``; its options are not used.
    """
    default = inspect.signature(command).parameters["store"].default
    url = default.url if isinstance(default, StorePlace) else default
    flag = inspect.Parameter(
        "store", inspect.Parameter.KEYWORD_ONLY, default=url, annotation=_Store
    )

    def place(given: dict[str, Any]) -> StorePlace:
        return StorePlace(given.pop("store"), _options(given))

    return _replacing("store", command, [flag], place)


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command*, whose argument ``options`` is `StoreOptions`, the flags that make them.

    For a command that finds its store elsewhere.
    """
    return _replacing("options", command, [], _options)


def _replacing(
    name: str,
    command: Callable[..., None],
    flags: list[inspect.Parameter],
    made: Callable[[dict[str, Any]], object],
) -> Callable[..., None]:
    """Replace the argument *name* by *flags* and those of `_Flags`, from which it is *made*."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[key], kind=inspect.Parameter.KEYWORD_ONLY)
        for key, parameter in inspect.signature(command).parameters.items()
        if key != name
    ]
    flag_hints = get_type_hints(_Flags, include_extras=True)
    shared = [
        parameter.replace(annotation=flag_hints[key])
        for key, parameter in inspect.signature(_Flags).parameters.items()
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        value = made(given)
        command(**{name: value}, **given)

    # What typer reads; `wraps` has handed over the command's own.
    every = [*own, *flags, *shared]
    vars(run)["__signature__"] = inspect.Signature(every)
    run.__annotations__ = {one.name: one.annotation for one in every}
    return run


def _options(given: dict[str, Any]) -> StoreOptions:
    """Take the flags' values out of *given*."""
    return _Flags(**{name: given.pop(name) for name in _NAMES}).options()
