"""Reading what roles said: the lines that are there, and those that come."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from ipython_builder.errors import UsageError

LIMIT = 5_000_000  # bytes after which a log is put aside; one generation is kept
POLL = 0.2  # seconds between two looks; inotify would save nothing that a person notices


def files(folder: Path, role: str | None) -> list[Path]:
    """The log files of a role (``engine``), of one member (``engine-3``), or of all.

    Raises:
        UsageError: there is no log of that name.
    """
    found = sorted(
        folder.glob("*.log"), key=lambda path: (path.stem.partition("-")[0], len(path.stem), path.stem)
    )
    if role is None:
        return found
    name = {"supervisor": "node"}.get(role, role)
    chosen = [path for path in found if path.stem == name or path.stem.partition("-")[0] == name]
    if not chosen:
        roles = [name for name in names(folder) if "-" not in name]
        near = get_close_matches(role, roles, 1) if role.rstrip("-").isalpha() else []
        said = (
            f"did you mean {near[0]}?" if near else f"there are logs of {', '.join(roles) or 'nothing yet'}"
        )
        raise UsageError(f"no log of {role!r}", said)
    return chosen


def names(folder: Path) -> list[str]:
    """What `files` takes: roles that have a log, and members of those that have several."""
    stems = {path.stem for path in folder.glob("*.log")}
    return sorted({stem.partition("-")[0].replace("node", "supervisor") for stem in stems} | stems - {"node"})


def lines(folder: Path, role: str | None, *, follow: bool = False, last: int = 200) -> Iterator[str]:
    """The last lines of the chosen logs, then, on `follow`, new ones; named where there are several logs."""
    chosen = files(folder, role)
    named = len(chosen) > 1 or follow
    seen: dict[Path, tuple[int, int]] = {}  # inode and size: a log that was put aside is begun anew
    for path in chosen:
        said, seen[path] = _read(path, (0, 0), whole=follow)
        for line in said[-last:] if last else []:
            yield f"{path.stem}: {line}" if named else line
    while follow and folder.is_dir():
        time.sleep(POLL)
        try:
            chosen = files(folder, role)
        except UsageError:
            continue  # its engines have left, and may come back
        for path in chosen:
            said, seen[path] = _read(path, seen.get(path, (0, 0)), whole=True)
            for line in said:
                yield f"{path.stem}: {line}"


def _read(path: Path, seen: tuple[int, int], *, whole: bool) -> tuple[list[str], tuple[int, int]]:
    """What was added to a log since `seen`, and up to where; `whole` leaves a half-written line for later."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            start = seen[1] if seen[0] == found.st_ino and seen[1] <= found.st_size else 0
            file.seek(start)
            data = file.read(found.st_size - start)
    except FileNotFoundError:
        return [], (0, 0)  # put aside a moment ago
    if whole:
        data = data[: data.rfind(b"\n") + 1]
    return data.decode(errors="replace").splitlines(), (found.st_ino, start + len(data))


def open_log(path: Path) -> int:
    """A descriptor to append to `path`. A disk that is full must not stop a role: then it goes nowhere."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


async def rotate(folder: Path, every: float) -> None:
    """Put aside what has grown too large, for ever, looking `every` that many seconds."""
    while True:
        await asyncio.sleep(every)
        for path in folder.glob("*.log"):
            try:
                if path.stat().st_size > LIMIT:
                    await asyncio.to_thread(put_aside, path)
            except OSError:
                continue  # full, or gone: the next look may do better


def put_aside(path: Path) -> None:
    """Copy a log away and empty it: who writes to it has it open, and appends. On a full disk it is lost."""
    try:
        shutil.copyfile(path, path.with_suffix(".log.1"))
    finally:
        os.truncate(path, 0)
