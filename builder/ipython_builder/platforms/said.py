"""What containers of a cluster have said, and go on saying."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from ipython_builder import commands
from ipython_builder.errors import UsageError
from ipython_builder.platforms.containers import Client
from ipython_builder.platforms.parts import KINDS

LOOK_AGAIN = 0.5
Say = Callable[[str], None]


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

    def listen(kind: str, say: Say) -> None:
        where = ["--tail", str(last)]
        while client.inspect("container", chosen[kind]):
            began = int(time.time())
            commands.run(
                [client.program, "logs", "--follow", *where, chosen[kind]],
                merged=True,
                on_line=lambda line: say(f"{kind}: {line}"),
            )
            # It ended, and may be started again; what it says meanwhile is asked for then.
            where = ["--since", str(max(began, int(time.time())))]
            time.sleep(LOOK_AGAIN)

    yield from together(chosen, listen)


def together(chosen: Iterable[str], listen: Callable[[str, Say], None]) -> Iterator[str]:
    """The lines of several at once, as they come; `listen` says those of one, until there will be no more."""
    heard: queue.Queue[str | None] = queue.Queue()
    count = 0

    def one(name: str) -> None:
        try:
            listen(name, heard.put)
        finally:
            heard.put(None)

    for name in chosen:
        count += 1
        threading.Thread(target=one, args=(name,), daemon=True).start()
    while count:
        if (line := heard.get()) is None:
            count -= 1
        else:
            yield line


def error(text: str) -> str:
    """The message of an error that our own tool has shown on stderr."""
    shown = [line for line in text.splitlines() if line.startswith(("error: ", " next: "))]
    return "\n".join(f"  {line}" for line in shown or text.splitlines()[-4:])
