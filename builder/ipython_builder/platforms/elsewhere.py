"""Clusters that run elsewhere than in processes of this machine: where each one is, as one small file.

The file holds no secret. What belongs to the cluster has its label; this says in which engine to look for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ipython_builder import cluster, ports
from ipython_builder.errors import BuilderError
from ipython_builder.platforms.public import UNSAID, Public
from ipython_builder.platforms.turns import turn
from ipython_builder.record import write_private


@dataclass(frozen=True)
class Elsewhere:
    """A cluster that is elsewhere.

    Attributes:
        platform: where, as `up --on` names it.
        source: without credentials; a folder by its whole path. ref and context_dir narrow it.
        builder: the image that its own one stands on.
        image: the id of its image; empty until it has been made.
        host, port: where the viewer is published on this machine, where it is.
        extra: requirement lines beside the repository's.
        namespace, context: where in which Kubernetes.
        public: its public host name in Kubernetes, as it was last asked for.
        address: the viewer's public URL, where it has one that is not made of host and port.
        joined: whether only the viewer is ours, at a cluster of somebody else.
    """

    label: str
    platform: str
    user: str
    source: str
    builder: str
    host: str
    port: int
    engines: int
    ref: str | None = None
    context_dir: str | None = None
    commit: str | None = None
    image: str = ""
    extra: tuple[str, ...] = ()
    namespace: str = ""
    context: str = ""
    public: Public = UNSAID
    address: str = ""
    joined: bool = False

    @property
    def url(self) -> str:
        """The viewer's address as a browser wants it; empty where it has none."""
        return self.address or (ports.url(self.host, self.port) if self.port else "")


class Elsewheres:
    """Those of this user, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def labels(self) -> list[str]:
        names = [path.stem for path in self.folder.glob("*.json")]
        return sorted(name for name in names if cluster.LABEL.fullmatch(name))

    def load(self, label: str) -> Elsewhere | None:
        """The one of this label, if there is one.

        Raises:
            BuilderError: its file is not what we wrote.
        """
        path = self.path(label)
        known = {field.name for field in fields(Elsewhere)}
        try:
            values = json.loads(path.read_text())
            values = {name: value for name, value in values.items() if name in known}
            values["public"] = Public(**values.get("public", {}))
            found = Elsewhere(**values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BuilderError(
                f"{path} is damaged: {error}",
                f"remove it, and with podman or docker what has the label ipython-cluster={label}",
            ) from error
        return replace(found, extra=tuple(found.extra))

    def all(self) -> list[Elsewhere]:
        """Those whose files can be read."""
        found = []
        for label in self.labels():
            try:
                if one := self.load(label):
                    found.append(one)
            except BuilderError:
                continue  # who asks for that one is told
        return found

    def save(self, one: Elsewhere) -> None:
        write_private(self.path(one.label), json.dumps(asdict(one), indent=1) + "\n")

    def remove(self, label: str) -> None:
        self.path(label).unlink(missing_ok=True)

    @contextmanager
    def locked(self, label: str) -> Iterator[None]:
        """One `up`, `scale` or `down` of a label at a time; freed by the kernel when that process is killed.

        Raises:
            Transient: another one is under way.
            BuilderError: nothing can be written there.
        """
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                stack.enter_context(turn(label, self.folder, self.path(label), "up, scale or down"))
            except OSError as error:
                raise BuilderError(
                    f"{error.filename or self.folder} cannot be made: {error.strerror}",
                    "set IPYTHON_BUILDER_STATE_DIR to another folder",
                ) from error
            yield

    def path(self, label: str) -> Path:
        """The file of a label."""
        return self.folder / f"{label}.json"
