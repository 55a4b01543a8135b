"""Asking a supervisor: one JSON line out, one back, over a unix socket that only its owner can open.

Also the one place that knows how to bind and reach a socket whose path is longer than the 107 bytes that a
socket address holds.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipython_builder.errors import BuilderError, Transient


class NoSupervisor(BuilderError):
    """Nobody listens: the supervisor was stopped, killed, or never started."""


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name for the socket at `path` that is short enough: through an open descriptor of its folder."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """A listening socket at `path` that only its owner can open."""
    path.unlink(missing_ok=True)
    line = socket.socket(socket.AF_UNIX)
    # Born 0600. Nothing may be started meanwhile: the umask is the whole process's, and children inherit it.
    previous = os.umask(0o177)
    try:
        with reachable(path) as name:
            line.bind(name)
    finally:
        os.umask(previous)
    line.listen()
    return line


def ask(path: Path, do: str, *, timeout: float = 30.0, **arguments: Any) -> dict[str, Any]:
    """Send one request to the supervisor at `path` and return its answer.

    Raises:
        NoSupervisor: nobody listens there.
        Transient: no answer within `timeout` seconds.
        BuilderError: the supervisor's own refusal.
    """
    try:
        with reachable(path) as name, socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout)
            line.connect(name)
            line.sendall(json.dumps({"do": do} | arguments).encode() + b"\n")
            with line.makefile("rb") as reader:
                answer = json.loads(reader.readline() or b"null")
    except TimeoutError:
        raise Transient(f"the supervisor did not answer within {timeout:.0f} s", "try again") from None
    except (OSError, ValueError) as error:
        raise NoSupervisor(f"no supervisor listens at {path}") from error
    if not isinstance(answer, dict):
        raise NoSupervisor(f"the supervisor at {path} ended while it was asked")
    if "error" in answer:
        raise BuilderError(str(answer["error"]))
    return answer
