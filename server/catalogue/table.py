"""The table of runs in SQLite, in a file or in memory."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

import orjson

from archive_schema.models import RunStatus
from archive_schema.wire import RunPage, RunSummary
from server.catalogue.filter import labels_of, write_cursor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.catalogue.filter import RunFilter

_VERSION: Final = 1
_SCHEMA: Final = """
create table about (version integer, store text);
create table runs (
    id text primary key, system text, status text, created integer, steps integer,
    samples integer, bytes integer, words text, document blob
) without rowid;
create index runs_created on runs (created, id, words);
create index runs_system on runs (system, created, id);
create index runs_status on runs (status, created, id);
create index runs_steps on runs (steps, id);
create index runs_samples on runs (samples, id);
create index runs_bytes on runs (bytes, id);
create table labels (
    name text, value text, id text, primary key (name, value, id)
) without rowid;
create index labels_id on labels (id);
"""
_FEW: Final = 2000
"""Runs with a label that are faster looked up by the label than found on the way."""
_BUSY_S: Final = 10.0
"""How long one worker waits for another that writes to the same file."""


class RunTable:
    """Rows of runs, from any number of threads.

    Parameters
    ----------
    path
        Of the file; None for a table in memory.
    store : str
        URL of the store. The rows of another store in the same file are dropped.
    """

    def __init__(self, path: str | None, store: str) -> None:
        self._lock = threading.Lock()
        # Autocommit by default; `put` groups its statements itself.
        self._database = sqlite3.connect(
            path or ":memory:", check_same_thread=False, isolation_level=None, timeout=_BUSY_S
        )
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        self._prepare(store)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def statuses(self) -> dict[str, RunStatus]:
        """Return the status of every run, by id."""
        rows = self._database_rows("select id, status from runs")
        return {run_id: RunStatus(status) for run_id, status in rows}

    def put(self, runs: Iterable[RunSummary]) -> None:
        """Add or replace rows."""
        with self._lock, self._database:
            self._database.execute("begin immediate")
            for run in runs:
                self._drop(run.id)
                labels = labels_of(run.tags, run.metadata)
                words = "\n".join((run.id, *sorted({value for _, value in labels}))).casefold()
                self._database.execute(
                    "insert into runs values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        run.id,
                        run.system,
                        run.status.value,
                        round(run.created.timestamp() * 1e6),
                        run.steps,
                        run.samples,
                        run.stored_bytes,
                        words,
                        run.model_dump_json().encode(),
                    ),
                )
                self._database.executemany(
                    "insert into labels values (?, ?, ?)",
                    [(name, value, run.id) for name, value in labels],
                )

    def remove(self, run_ids: Iterable[str]) -> None:
        """Remove the rows of runs that are gone."""
        with self._lock, self._database:
            self._database.execute("begin immediate")
            for run_id in run_ids:
                self._drop(run_id)

    def page(self, asked: RunFilter, *, pending: int = 0) -> RunPage:
        """Return the page of runs that *asked* describes; errors as `RunFilter.sql`."""
        rows = self._database_rows(*asked.sql(self._rare(asked)))
        shown = rows[: asked.limit]
        following = None
        if len(rows) > asked.limit:
            value, run_id, _ = shown[-1]
            following = write_cursor(asked.sort, value, run_id)
        runs = tuple(RunSummary.model_validate(orjson.loads(document)) for *_, document in shown)
        return RunPage(runs=runs, next=following, pending=pending)

    def _rare(self, asked: RunFilter) -> set[str]:
        """Return the names of labels in *asked* that few runs have."""
        statement = (
            "select count(*) from (select 1 from labels where name = ? and value in (?, ?) limit ?)"
        )
        return {
            name
            for name, *values in asked.labels()
            if self._database_rows(statement, (name, *values, _FEW))[0][0] < _FEW
        }

    def _database_rows(
        self, statement: str, parameters: Iterable[object] = ()
    ) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(statement, tuple(parameters)).fetchall()

    def _drop(self, run_id: str) -> None:
        self._database.execute("delete from runs where id = ?", (run_id,))
        self._database.execute("delete from labels where id = ?", (run_id,))

    def _prepare(self, store: str) -> None:
        found = self._database.execute(
            "select name from sqlite_master where type = 'table' and name = 'about'"
        ).fetchone()
        about = self._database.execute("select * from about").fetchone() if found else None
        if about == (_VERSION, store):
            return
        # Only what the store says counts: a table of another store or version is made anew.
        for table in ("about", "runs", "labels"):
            self._database.execute(f"drop table if exists {table}")
        self._database.executescript(_SCHEMA)
        self._database.execute("insert into about values (?, ?)", (_VERSION, store))
