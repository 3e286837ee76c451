"""`trace-archive demo`: the recording example and a server, as two processes over one folder.

The sampler is the very script that users copy from (`examples/record_d3_dna.py`); an
installed package carries it in the folder ``demo`` beside this file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from archive_schema.flags import StorePlace

SCRIPT: Final = "record_d3_dna.py"


def recording_script() -> Path:
    """Return the example that records a real sampler."""
    here = Path(__file__).parent
    places = (here / "demo" / SCRIPT, here.parent / "examples" / SCRIPT)
    return next(place for place in places if place.exists())


def free_run_id(taken: Sequence[str]) -> str:
    """Return the first of ``demo-1``, ``demo-2``, … that is not taken."""
    number = 1
    while f"demo-{number}" in taken:
        number += 1
    return f"demo-{number}"


@contextmanager
def sampler(
    store: StorePlace, run_id: str, arguments: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Record the example into *store*; it is stopped with the ``with`` block."""
    command = [sys.executable, str(recording_script()), store.url, "--run", run_id, *arguments]
    with _process(command, store) as process:
        yield process


@contextmanager
def server(store: StorePlace, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve *store* on the loopback interface; the server is stopped with the ``with`` block."""
    run = "from archive_schema.cli import main; main()"
    command = [sys.executable, "-c", run, "serve", "--store", store.url, "--port", str(port)]
    with _process(command, store) as process:
        yield process


def await_end(process: subprocess.Popen[bytes], server_process: subprocess.Popen[bytes]) -> None:
    """Return when the sampler is done.

    Raises
    ------
    StorageError
        ``writer-failed`` if it failed, or if the server ended meanwhile.
    """
    while True:
        try:
            code = process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if server_process.poll() is None:
                continue
            message = f"the server ended with exit code {server_process.returncode}"
            raise StorageError(ErrorKind.WRITER_FAILED, message) from None
        if code:
            message = f"the sampler ended with exit code {code}"
            raise StorageError(ErrorKind.WRITER_FAILED, message)
        return


@contextmanager
def _process(command: list[str], store: StorePlace) -> Iterator[subprocess.Popen[bytes]]:
    # Our own programs, with arguments that no shell sees.
    environment = {**os.environ, **store.options.variables()}
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
