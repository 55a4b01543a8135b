"""Finding and ending what belongs to a cluster, whoever started it: by the mark in its environment.

Kernels and terminals lead sessions of their own, so killing the viewer's group does not reach them; and after
a supervisor's death nobody has a list. The mark is inherited by everything.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Set
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


def consoles(pids: Iterable[int]) -> set[int]:
    """Those of these processes that are consoles which somebody has opened in a terminal."""
    found = set()
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"ipython_cluster.console" in words:
            found.add(pid)
    return found


def sweep(home: Path, grace: float = 2.0, *, spare: Set[int] = frozenset()) -> int:
    """End every process of the cluster in `home`: SIGTERM, `grace` seconds, SIGKILL; returns their number.

    Those in `spare` live on.
    """
    first = _but(of(home), spare)
    for pid in first:
        end(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    left = first
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = _but(of(home), spare)
    while left:
        for pid in left:
            end(pid, signal.SIGKILL)
        time.sleep(0.02)
        left = _but(of(home), spare)
    return len(first)


def _but(pids: list[int], spare: Set[int]) -> list[int]:
    return [pid for pid in pids if pid not in spare]


def end_children() -> None:
    """End all that descends from us, also what threw its environment away, and wait: a port is then free.

    Whoever loses its parent must become our child (see `children`).
    """
    while True:
        for pid in below({os.getpid()}) - {os.getpid()}:
            end(pid)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    return _stat(pid)[:1] not in ([], ["Z"])


def stopped(pid: int) -> bool:
    """Whether somebody has stopped this process: it is there, and does nothing."""
    return _stat(pid)[:1] == ["T"]


def began(pid: int) -> int | None:
    """When a living process began, in clock ticks since the machine started; None for one that is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else None


def parent(pid: int) -> int | None:
    """The parent of a process, or None where it is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def below(roots: set[int]) -> set[int]:
    """All processes that descend from these, themselves included."""
    parents = {int(entry): parent(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    found = set(roots)
    while new := {pid for pid, above in parents.items() if above in found} - found:
        found |= new
    return found


def memory(pids: Iterable[int]) -> dict[int, int]:
    """Bytes of memory by pid, shared pages counted in parts (PSS); those that are gone are left out."""
    found = {}
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith("Pss:"):
                found[pid] = int(line.split()[1]) * 1024
                break
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, from the state on; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def end(pid: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; that a process is gone, or somebody else's, is no error."""
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
        pid = parent(pid) or 0
    return pids
