"""What containers of a cluster have said, and go on saying."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping

from ipython_builder import commands
from ipython_builder.errors import UsageError
from ipython_builder.platforms.containers import Client
from ipython_builder.platforms.parts import KINDS

LOOK_AGAIN = 0.5


def kinds(role: str | None) -> tuple[str, ...]:
    """The kinds of containers whose logs hold what a role says.

    Raises:
        UsageError: there is no such role.
    """
    if role is None or role == "supervisor":
        return KINDS
    if role in ("controller", "viewer"):
        return (role,)
    if role == "pool" or re.fullmatch(r"engine(-\d+)?", role):
        return ("engine",)
    raise UsageError(f"no log of {role!r}", f"there are logs of {', '.join(KINDS)}")


def lines(client: Client, chosen: Mapping[str, str], *, follow: bool, last: int) -> Iterator[str]:
    """The last lines of containers (kind -> name), then, on `follow`, new ones; several are named."""
    if follow:
        yield from _followed(client, chosen, last)
        return
    for kind, name in chosen.items():
        for line in _log(client, name, "--tail", str(last)):
            yield f"{kind}: {line}" if len(chosen) > 1 else line


def _log(client: Client, name: str, *options: str) -> list[str]:
    found: list[str] = []
    commands.run([client.program, "logs", *options, name], merged=True, on_line=found.append)
    return found


def _followed(client: Client, chosen: Mapping[str, str], last: int) -> Iterator[str]:
    """Ends when all of them are gone. What runs for it ends with this process at the latest."""
    heard: queue.Queue[str | None] = queue.Queue()

    def listen(kind: str, name: str) -> None:
        where = ["--tail", str(last)]
        while client.inspect("container", name):
            began = int(time.time())
            commands.run(
                [client.program, "logs", "--follow", *where, name],
                merged=True,
                on_line=lambda line: heard.put(f"{kind}: {line}"),
            )
            # It ended, and may be started again; what it says meanwhile is asked for then.
            where = ["--since", str(max(began, int(time.time())))]
            time.sleep(LOOK_AGAIN)
        heard.put(None)

    for kind, name in chosen.items():
        threading.Thread(target=listen, args=(kind, name), daemon=True).start()
    for _ in chosen:
        while (line := heard.get()) is not None:
            yield line


def error(text: str) -> str:
    """The message of an error that our own tool has shown on stderr."""
    shown = [line for line in text.splitlines() if line.startswith(("error: ", " next: "))]
    return "\n".join(f"  {line}" for line in shown or text.splitlines()[-4:])
