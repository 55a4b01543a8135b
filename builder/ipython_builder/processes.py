"""Finding and ending what belongs to a cluster, whoever started it: by the mark in its environment.

Kernels and terminals lead sessions of their own, so killing the viewer's group does not reach them; and after
a supervisor's death nobody has a list. The mark is inherited by everything.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

MARK = "IPYTHON_CLUSTER_HOME"


def of(home: Path) -> list[int]:
    """The processes of the cluster in `home`, without ourselves and those that started us."""
    mark = f"{MARK}={home}".encode()
    spared = _ancestors()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spared:
            continue
        try:
            environ = Path("/proc", entry, "environ").read_bytes()
        except OSError:
            continue  # gone, or somebody else's
        if mark in environ.split(b"\0"):
            found.append(int(entry))
    return found


def sweep(home: Path, grace: float = 2.0) -> int:
    """End every process of the cluster in `home`: SIGTERM, `grace` seconds, SIGKILL; returns their number."""
    first = of(home)
    for pid in first:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    left = first
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = of(home)
    while left:
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.02)
        left = of(home)
    return len(first)


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _signal(pid: int, sig: signal.Signals) -> None:
    try:
        os.kill(pid, sig)
    except (ProcessLookupError, PermissionError):
        return


def _ancestors() -> set[int]:
    """Our own pid and those above us: `down` may be typed in a terminal of the very cluster."""
    pids = set()
    pid = os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            break
    return pids
