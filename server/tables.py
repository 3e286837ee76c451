"""Runs and fields as tables for people, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.table import Table

from archive_schema.wire import ranges_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archive_schema.wire import FieldDocument, RunDocument, RunPage
    from server.tokens import Token


def run_table(page: RunPage) -> Table:
    """Return a page of runs."""
    table = Table("run", "system", "status", "steps", "samples", "stored", "created", box=None)
    for column in table.columns[3:6]:
        column.justify = "right"
    for run in page.runs:
        table.add_row(
            run.id,
            run.system,
            run.status.value,
            str(run.steps),
            str(run.samples),
            decimal(run.stored_bytes),
            f"{run.created:%Y-%m-%d %H:%M}",
        )
    if page.next is not None:
        table.caption = f"there are more: --cursor {page.next}"
    return table


def token_table(tokens: Iterable[Token]) -> Table:
    """Return the tokens that there are."""
    table = Table("name", "may", "created", box=None)
    for token in tokens:
        table.add_row(token.name, token.scope, f"{token.created:%Y-%m-%d %H:%M}")
    return table


def head_table(run: RunDocument) -> Table:
    """Return what is known of a run as a whole."""
    table = Table(show_header=False, box=None)
    rows: dict[str, Any] = {
        "run": run.id,
        "system": run.system,
        "status": run.status.value,
        "created": f"{run.created:%Y-%m-%d %H:%M:%S %Z}",
        "steps": f"{run.steps} ({ranges_text(run.step_ranges) or 'none'})",
        "samples": run.samples,
        "stored": decimal(run.stored_bytes),
        "tags": ", ".join(run.tags),
        **({"note": run.note} if run.note else {}),
        "step coordinates": ", ".join(run.step_coordinates),
        "sample coordinates": ", ".join(run.sample_coordinates),
        **{f"metadata.{key}": value for key, value in run.metadata.items()},
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def writer_table(run: RunDocument) -> Table:
    """Return every writer of a run that is not sealed."""
    table = Table(
        "writer", "state", "host", "process", "samples", "tiles", "last heard of", "why", box=None
    )
    for one in run.writers:
        table.add_row(
            one.name,
            one.state,
            one.host,
            str(one.process),
            "any" if one.samples is None else f"{one.samples[0]}:{one.samples[1]}",
            str(one.tiles),
            f"{one.heard:%Y-%m-%d %H:%M:%S %Z}",
            one.reason,
        )
    return table


def field_table(run: RunDocument) -> Table:
    """Return every field of a run."""
    table = Table(
        "place", "field", "dims", "shape", "dtype", "values", "stored", "complete", box=None
    )
    layered = [field for layer in run.layers for field in layer.fields]
    for field in (*run.inputs, *run.fields, *layered, *run.outputs):
        table.add_row(*_field_row(field))
    return table


def _field_row(field: FieldDocument) -> list[str]:
    name = field.name if field.layer is None else f"{field.layer} {field.name}"
    shape = ", ".join("?" if length is None else str(length) for length in field.shape)
    return [
        field.place,
        name,
        ", ".join(field.dims),
        shape,
        field.dtype,
        decimal(field.bytes),
        decimal(field.stored_bytes),
        "yes" if field.complete else "no",
    ]
