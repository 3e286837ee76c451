"""Ports for servers that cannot be given a socket, or that come back where they were."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

_CLIENTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST: Final = 20_000
_CHANCE: Final = random.SystemRandom()
"""Not the generator that tests seed: workers would all draw the same."""


def unused_port() -> int:
    """Return a port of this machine that nobody listens at, and that no client is given."""
    return unused_ports(1)[0]


def unused_ports(count: int) -> list[int]:
    """Return so many of them.

    They lie below those from which the system takes the local ends of connections: one of these
    may go to any client of any test while a server starts, or is away and to come back.
    """
    end = int(_CLIENTS.read_text().split()[0]) if _CLIENTS.exists() else 32_768
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        while len(sockets) < count:
            one = stack.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", _CHANCE.randrange(_FIRST, max(end, _FIRST + 5000))))
            except OSError:  # taken
                continue
            sockets.append(one)
        return [int(one.getsockname()[1]) for one in sockets]
