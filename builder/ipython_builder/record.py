"""A cluster's record: what it is made of, as one JSON file, and the names of the files beside it.

The folder is all that a cluster leaves on a machine, so removing it removes the cluster.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ipython_builder import ports
from ipython_builder.errors import BuilderError

NAME = "cluster.json"
BEGUN = "begun.json"


@dataclass(frozen=True)
class Home:
    """Where things are in a cluster's folder. Everything in it is readable by its owner alone."""

    path: Path

    @property
    def label(self) -> str:
        return self.path.name

    @property
    def key(self) -> Path:
        return self.path / "key"

    @property
    def kept(self) -> Path:
        """What outlives everything else: in a container a volume, here a folder like the others."""
        return self.path / "kept"

    @property
    def password(self) -> Path:
        return self.kept / "password"

    @property
    def scaled(self) -> Path:
        """How many engines a part of a cluster was told to have since it was made."""
        return self.kept / "engines.json"

    @property
    def registered(self) -> Path:
        """Which engines a container had, for its next life."""
        return self.kept / "registered.json"

    @property
    def thin(self) -> Path:
        """The cluster's own environment, over the shared one."""
        return self.kept / "env"

    @property
    def ipython(self) -> Path:
        return self.path / "ipython"

    @property
    def security(self) -> Path:
        return self.ipython / "profile_default" / "security"

    @property
    def jupyter(self) -> Path:
        """Settings of JupyterLab, the server's and the user's."""
        return self.kept / "jupyter"

    @property
    def runtime(self) -> Path:
        """Where Jupyter says which servers and kernels run."""
        return self.path / "runtime"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def socket(self) -> Path:
        return self.path / "node.sock"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.path / "node.lock"


@dataclass(frozen=True)
class Record:
    """What a cluster is made of.

    Attributes:
        source: what it came from, without credentials; ref, context_dir and commit narrow it.
        checkout: the working copy; `in_place` when that is the user's own folder.
        notebooks: the folder where viewer, engines and console start.
        environment: key of the shared environment; `python` its version.
        viewer_environment: key of the viewer's, or None where the repository's own jupyterlab serves.
        engines: how many are wanted.
        first_port: of the controller's block; `viewer_port` is the viewer's.
        extra: requirement lines beside the repository's.
        preload: modules that engines have imported before they start, in order.
        preload_timeout: seconds that the import of one of them may take.
        fork: whether engines are forked from a process that has imported those.
        fork_asked: what `up` was told about that; None: nothing, the repository's word holds.
        roles: which roles run here; the others are elsewhere.
        controller: the name or address at which the controller is reached, and `bind` where it listens.
        curve: whether traffic is encrypted; on where it leaves this machine.
        engines_asked: how many a part of a cluster was made for, before it was told another number.
        grace: seconds that an engine has to finish its task when it is to stop.
    """

    label: str
    user: str
    source: str
    ref: str | None
    context_dir: str | None
    commit: str | None
    checkout: str
    in_place: bool
    notebooks: str
    environment: str
    environment_path: str
    python: str
    viewer_environment: str | None
    viewer_python: str
    viewer_module: str
    viewer_host: str
    viewer_port: int
    first_port: int
    engines: int
    extra: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    preload_timeout: float = 30.0
    fork: bool = True
    fork_asked: bool | None = None
    roles: tuple[str, ...] = ("controller", "pool", "viewer", "engine")
    controller: str = "127.0.0.1"
    bind: str = "127.0.0.1"
    curve: bool = False
    engines_asked: int = 0
    grace: float = 30.0

    @property
    def url(self) -> str:
        """The viewer's address as this machine's browser wants it."""
        return ports.url(self.viewer_host, self.viewer_port)

    @property
    def contained(self) -> bool:
        """Whether this is a part of a cluster, in a container of its own."""
        return self.curve

    def with_engines(self, count: int) -> Record:
        return replace(self, engines=count)

    def substance(self) -> Record:
        """What running processes are made of: two records that agree in it need no restart between them.

        The number of engines, and what they have imported or how they start, are for those that start next.
        """
        return replace(self, engines=0, preload=(), preload_timeout=0.0, fork=True, fork_asked=None)

    def pool(self) -> tuple[tuple[str, ...], float, bool]:
        """What engines have imported beforehand, the seconds for one module, and whether they are forked."""
        return self.preload, self.preload_timeout, self.fork


@dataclass(frozen=True)
class Begun:
    """What an `up` makes a cluster of, noted before it fetches anything: if it is killed, this tells of it.

    Attributes:
        source: without credentials.
        in_place: whether it is the user's own folder.
        commit: that a clone of ours was made at; None until it is there.
    """

    source: str
    in_place: bool
    commit: str | None = None


def begin(home: Home, begun: Begun) -> None:
    """Note it, whole or not at all."""
    write_private(home.path / BEGUN, json.dumps(asdict(begun), indent=1) + "\n")


def begun(home: Home) -> Begun | None:
    """What was noted, if anything was."""
    try:
        return Begun(**json.loads((home.path / BEGUN).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def save(home: Home, record: Record) -> None:
    """Write the record whole or not at all."""
    write_private(home.path / NAME, json.dumps(asdict(record), indent=1) + "\n")


def load(home: Home) -> Record | None:
    """The record, or None where an `up` was cut off before it wrote one.

    Raises:
        BuilderError: it is not what we wrote.
    """
    path = home.path / NAME
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        known = {field.name for field in fields(Record)}
        record = Record(**{k: v for k, v in values.items() if k in known})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BuilderError(
            f"{path} is damaged: {error}", f"remove the cluster with `ipython-builder down {home.label}`"
        ) from error
    return replace(
        record, extra=tuple(record.extra), preload=tuple(record.preload), roles=tuple(record.roles)
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically; its folder is made the same way if needed.

    A file that says that already is left alone: on a full disk nothing could be put in its place.
    """
    try:
        if path.read_text() == text and path.stat().st_mode & 0o777 == 0o600:
            return
    except (OSError, ValueError):
        pass  # not there, or not ours
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise
