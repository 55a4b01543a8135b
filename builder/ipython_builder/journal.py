"""Who lives, for the next supervisor: a file of pids, with their start times since pids come again.

A supervisor that was killed leaves its roles running; the next one takes them over instead of starting them
anew. What a role says when it reaches the new supervisor completes the picture.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ipython_builder import processes
from ipython_builder.record import write_private

NAME = "members.json"
ROOM = 1 << 15  # bytes: the file has at least so many, and twice what it needs, for when the disk is full


@dataclass(frozen=True)
class Life:
    """One process of a role: its pid, and when it began in the kernel's own count, which no clock moves."""

    role: str
    number: int
    pid: int
    began: int
    restarts: int


def write(home: Path, lives: list[Life]) -> None:
    """Replace the list; on a full disk, in the room that it has already.

    Where even that is too small the next supervisor knows less, and the cluster goes on.
    """
    path = home / NAME
    text = json.dumps([asdict(life) for life in lives])
    try:
        write_private(path, text.ljust(max(ROOM, 2 * len(text))) + "\n")
    except OSError:
        try:
            room = path.stat().st_size
            if len(text) <= room:
                with path.open("r+") as file:
                    file.write(text.ljust(room))
        except OSError:
            return


def living(home: Path) -> list[Life]:
    """Those on the list that still live."""
    try:
        found = [Life(**entry) for entry in json.loads((home / NAME).read_text())]
    except (OSError, ValueError, TypeError):
        return []  # none, or not one of ours
    return [life for life in found if processes.began(life.pid) == life.began]
