"""Lets HSDS listen on this machine only: it binds every interface, whatever its flags say.

Python imports a module of this name at its start if it is on PYTHONPATH.
"""

from typing import Any

from aiohttp import web

_run_app = web.run_app


def _on_loopback(app: Any, *, host: Any = None, sock: Any = None, **others: Any) -> None:
    _run_app(app, host="127.0.0.1" if sock is None else host, sock=sock, **others)


web.run_app = _on_loopback
