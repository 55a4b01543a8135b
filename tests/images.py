"""Images that the tests need: made once for what they are made of, and moved from podman to docker."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tests.conftest import CHECKOUT
from tests.daemons import locked
from tests.engine import LABEL, Engine

# Images are the machine's, and so is the lock.
LOCK = Path(tempfile.gettempdir()) / f"{LABEL}-{os.getuid()}.lock"


def content_key(*parts: str, root: Path = CHECKOUT) -> str:
    """A digest of the files below `parts` as they are, those that git ignores excepted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *parts],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed)):
        path = root / os.fsdecode(name)
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = bytes([path.stat().st_mode & 0o100 != 0]) + path.read_bytes()
        else:
            continue
        digest.update(name + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def made_once(engine: Engine, names: tuple[str, ...], key: str, make: Callable[[], None]) -> tuple[str, ...]:
    """Each name with a tag of its own for `key`, which another checkout does not move; made if one is not there."""
    tagged = tuple(f"{name}:tests-{key}" for name in names)
    with locked(LOCK):
        _use(key)
        if not all(engine.has(name) for name in tagged):
            make()
            for name, tag in zip(names, tagged, strict=True):
                engine("tag", name, tag)
            _forget(engine, names, kept=3)
    return tagged


_used: list[IO[bytes]] = []  # open, and so locked, as long as this process lives


def _use(key: str) -> None:
    """Tell runs in other checkouts that the images of this key are needed. In `LOCK`."""
    file = LOCK.with_suffix(f".{key}").open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    _used.append(file)


def _forget(engine: Engine, names: tuple[str, ...], kept: int) -> None:
    """Let go of images of old checkout states that no run needs; the newest of each name stay. In `LOCK`."""
    for name in names:
        listed = engine.images("--format", "{{.Repository}}:{{.Tag}}", name)
        for old in [one for one in listed if one.startswith(f"{name}:tests-")][kept:]:
            users = LOCK.with_suffix(f".{old.rpartition('-')[2]}")
            with users.open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                engine("rmi", old, check=False)
                users.unlink()


def into(podman: Engine, docker: Engine, image: str) -> str:
    """The same image in docker, by the same name."""
    with locked(LOCK):
        if not docker.has(image):
            save = [podman.program, "save", "--quiet", "--format", "docker-archive", image]
            with subprocess.Popen(save, env=podman.environ, stdout=subprocess.PIPE) as saved:
                load = [docker.program, "load", "--quiet"]
                subprocess.run(load, env=docker.environ, stdin=saved.stdout, check=True, capture_output=True)
    return image
