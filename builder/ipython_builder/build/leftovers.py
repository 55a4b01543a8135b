"""What a build that was killed leaves in the store of podman and buildah: its container, and what runs in it.

Neither program puts it away when it is interrupted (seen with podman 4.3 and buildah 1.28). Every build gets
a mark of its own, a name for its loopback address, which is kept with its containers and is in no image.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable
from json import JSONDecodeError, loads
from pathlib import Path


def mark() -> str:
    """A name that no other build has."""
    return f"ipython-builder-{secrets.token_hex(8)}"


def remove(mark: str, store: Path, remove_container: Callable[[str], None]) -> None:
    """End what runs in the containers of the build with this mark, and remove them."""
    for path in store.glob("*-containers/*/userdata/buildah.json"):
        try:
            text = path.read_text(encoding="utf-8")
            if mark not in text:
                continue
            mounted = str(loads(text).get("mountpoint") or "")
        except (OSError, UnicodeDecodeError, JSONDecodeError):
            continue  # another build's, which is being put away just now
        if mounted:
            _end(Path(mounted).parent)
        remove_container(path.parent.parent.name)
    for folder in {Path("/var/tmp"), Path(tempfile.gettempdir())}:  # noqa: S108
        for path in folder.glob("buildah*/hosts"):
            _remove(path.parent, mark)


def _remove(bundle: Path, mark: str) -> None:
    """Delete the folder that describes a step's container, if it is ours and nothing is mounted in it."""
    try:
        ours = mark in (bundle / "hosts").read_text()
        mounts = [line.split(" ", 5)[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        return  # another user's, or gone
    if ours and not any(f"{point}/".startswith(f"{bundle}/") for point in mounts):
        shutil.rmtree(bundle, ignore_errors=True)


def _end(layer: Path) -> None:
    """Kill all processes whose root is written to this layer."""
    wanted = f"upperdir={layer}/"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            root = next(
                (
                    line
                    for line in (process / "mountinfo").read_text().splitlines()
                    if line.split(" ", 5)[4] == "/"
                ),
                "",
            )
            if wanted in root:
                os.kill(int(process.name), signal.SIGKILL)
        except (OSError, IndexError):
            continue  # it has ended, or is somebody else's
