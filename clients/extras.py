"""What needs a package that not everybody installs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def labelled() -> ModuleType:
    """Return `clients.labelled`, which is imported when somebody asks for it.

    Raises
    ------
    ModuleNotFoundError
        If xarray is not installed, telling what to install.
    """
    try:
        return import_module("clients.labelled")
    except ModuleNotFoundError as error:
        message = "to_xarray needs xarray: pip install 'trace-archive[xarray]'"
        raise ModuleNotFoundError(message, name=error.name) from error
