"""A bar on the terminal while a file arrives."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clients.download import Report


@contextmanager
def shown(label: str, *, progress: bool | Report | None) -> Iterator[Report | None]:
    """Give what a download reports to.

    Parameters
    ----------
    progress
        Whether to show a bar; None: if somebody looks at standard error. A function is told
        instead: the bytes that are there, and those that there will be.
    """
    if callable(progress):
        yield progress
        return
    console = Console(stderr=True)
    if not (console.is_terminal if progress is None else progress):
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield report
