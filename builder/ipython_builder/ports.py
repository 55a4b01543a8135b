"""Free ports on this machine: a block for a controller, one for a viewer."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable

from ipython_builder.cluster import FIRST_PORT, PORT_COUNT, VIEWER_PORT
from ipython_builder.errors import BuilderError, UsageError

# Below what the kernel hands out for outgoing connections (32768 on Linux), so that a block stays free.
LAST_PORT = 30000


def free(host: str, port: int) -> bool:
    """Whether `port` can be bound now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As a server would: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def reached_at(host: str) -> str:
    """The address at which this machine reaches what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def url(host: str, port: int) -> str:
    """The address of a viewer that listens there, as this machine's browser wants it."""
    host = reached_at(host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def check_host(host: str) -> None:
    """Raises UsageError for an address that is not one of this machine's."""
    try:
        free(host, 0)
    except OSError as error:
        raise UsageError(
            f"nothing can listen on {host!r}: {error.strerror}", "name an address of this machine"
        ) from error


# Ports that this process has chosen and that nobody listens on yet.
_reserved: list[socket.socket] = []


def reserve(port: int) -> bool:
    """Keep `port` for this process until it ends; False if another `up` on this machine keeps it.

    Between choosing a port and a role's listening on it lie seconds. An abstract socket's name is the
    machine's, needs no file, and is gone with its process.
    """
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0ipython-builder-port-{port}")
    except OSError:
        mark.close()
        return False
    _reserved.append(mark)
    return True


def block(taken: Iterable[int]) -> int:
    """The first port of a free block for a controller on loopback.

    Args:
        taken: first ports of the blocks that other clusters have been given, running or not.

    Raises:
        BuilderError: there is none.
    """
    starts = list(range(FIRST_PORT, LAST_PORT - PORT_COUNT, PORT_COUNT + 1))
    # Not in order: another network namespace (a container) may share the host's ports and not our marks.
    random.shuffle(starts)
    held = set(taken)
    for start in starts:
        ports = range(start, start + PORT_COUNT)
        if start not in held and all(free("127.0.0.1", port) for port in ports) and reserve(start):
            return start
    raise BuilderError(
        f"no {PORT_COUNT} free ports in a row between {FIRST_PORT} and {LAST_PORT}", "stop a cluster"
    )


def viewer(host: str, taken: Iterable[int], wanted: int | None = None) -> int:
    """The port `wanted` for a viewer, else a free one: 8080, or the next that is not another cluster's.

    Raises:
        BuilderError: the one wanted is in use, or none is free.
    """
    if wanted is not None:
        if not free(host, wanted) or not reserve(wanted):
            raise BuilderError(
                f"port {wanted} on {host} is in use", "name another with --port, or none for a free one"
            )
        return wanted
    held = set(taken)
    for port in range(VIEWER_PORT, VIEWER_PORT + 1000):
        if port not in held and free(host, port) and reserve(port):
            return port
    raise BuilderError(f"no free port for the viewer from {VIEWER_PORT} on", "name one with --port")
