"""Reading what roles said: the lines that are there, and those that come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ipython_builder.errors import UsageError

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
        there = sorted({path.stem.partition("-")[0].replace("node", "supervisor") for path in found})
        raise UsageError(f"no log of {role!r}", f"there are logs of {', '.join(there) or 'nothing yet'}")
    return chosen


def lines(folder: Path, role: str | None, *, follow: bool = False, last: int = 200) -> Iterator[str]:
    """The last lines of the chosen logs, then, on `follow`, new ones; named where there are several logs."""
    chosen = files(folder, role)
    named = len(chosen) > 1 or follow
    offsets: dict[Path, int] = {}
    for path in chosen:
        data = path.read_bytes()
        offsets[path] = len(data)
        for line in data.decode(errors="replace").splitlines()[-last:]:
            yield f"{path.stem}: {line}" if named else line
    while follow and folder.is_dir():
        time.sleep(POLL)
        for path in files(folder, role):
            size = path.stat().st_size
            start = offsets.get(path, 0)
            if size < start:
                start = 0  # put aside and begun anew
            if size > start:
                with path.open("rb") as file:
                    file.seek(start)
                    data = file.read(size - start)
                # A line that is still being written is shown when it is whole.
                whole = data[: data.rfind(b"\n") + 1]
                offsets[path] = start + len(whole)
                for line in whole.decode(errors="replace").splitlines():
                    yield f"{path.stem}: {line}"
