"""Whether the kernel killed something for want of memory just now: it does not say whom.

What counts is how many it killed in the last moments. The number since the machine's, or an engine's, start
would blame a lack of memory that somebody else had an hour ago.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

RECENT = 2.0  # seconds, in which a process of many gigabytes comes to its end


class Kills:
    """Looked at once a second, and when something has died."""

    def __init__(self) -> None:
        self.looks: deque[tuple[float, int]] = deque([(time.monotonic(), count())], maxlen=16)

    def look(self) -> None:
        self.looks.append((time.monotonic(), count()))

    def recent(self) -> bool:
        """Whether there was such a kill a moment ago."""
        edge = time.monotonic() - RECENT
        older = [killed for when, killed in self.looks if when <= edge]
        return count() > (older[-1] if older else self.looks[0][1])


def count() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


KILLS = Kills()
