"""A cluster of containers, each of them allowed next to nothing: what OpenShift grants, and a bit less."""

from __future__ import annotations

import secrets
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipython_builder.platforms.parts import Address
from tests.conftest import Said
from tests.engine import Container, Engine
from tests.workbench import until

# A user that nobody knows, a root that nobody writes to, and a folder for what is made at run time.
LIMITS = (
    *("--user", "1000770000:0", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp"),
    *("--tmpfs", "/run/secrets"),  # podman mounts secrets into a folder that has to be writable
    *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
)
LABEL = "tt"


def env_options(env: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(word for name, value in env.items() for word in ("--env", f"{name}={value}"))


@dataclass
class Cluster:
    """Parts of one cluster in podman, on a network of their own.

    Attributes:
        key: the cluster's key; `secret` is its name in podman.
        address: the controller's, since the names of Debian 12's podman fail for a minute when a container goes.
        parts: name -> container.
    """

    podman: Engine
    image: str
    network: str
    secret: str
    key: str
    address: Address
    parts: dict[str, Container] = field(default_factory=dict)

    def options(
        self, kind: str | None = None, *more: str, secret: str | None = None, label: str = LABEL, **env: str
    ) -> tuple[str, ...]:
        """Of a container of a kind; of one that runs a command without one."""
        given = {"IPYTHON_CLUSTER_LABEL": label} | ({"IPYTHON_CONTAINER_TYPE": kind} if kind else {}) | env
        key = f"{secret or self.secret},target=/run/secrets/ipython-cluster-key,uid=0,gid=0,mode=0440"
        name = f"ipcontroller-{label}"
        if kind == "controller":
            where: tuple[str, ...] = ("--network-alias", name)
            where += ("--ip", self.address.ip, "--mac-address", self.address.mac)
        else:
            where = ("--add-host", f"{name}:{self.address.ip}") if label == LABEL else ()
        return (*LIMITS, "--network", self.network, "--secret", key, *where, *env_options(given), *more)

    def add(self, name: str, kind: str, *more: str, image: str = "", **given: str) -> Container:
        """Start a part."""
        made = self.podman.start(image or self.image, options=self.options(kind, *more, **given))
        self.parts[name] = made
        return made

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Wait for something that must become true; the parts' logs are shown if it does not."""
        try:
            return until(condition, what, seconds)
        except AssertionError as problem:
            for name, part in self.parts.items():
                problem.add_note(f"-- the log of {name}:\n{part.logs}")
            raise

    def ready(self, *names: str) -> None:
        """Wait until these parts say that they are."""
        for name in names:
            self.until(lambda part=self.parts[name]: probe(part) == 0, f"{name} is ready", 90)

    def client(self, name: str, code: str) -> Container:
        """Start a program with the cluster behind it."""
        self.parts[name] = self.podman.start(self.image, "python", "-c", code, options=self.options())
        return self.parts[name]

    def kill(self, name: str) -> None:
        """End a part as a lack of memory would, and start it again."""
        self.podman("kill", "--signal", "KILL", self.parts[name].id)
        self.podman("wait", self.parts[name].id)
        self.podman("start", self.parts[name].id)

    def python(self, code: str, check: bool = True, **given: str) -> Said:
        """What a program says that runs in a container with the cluster behind it."""
        return self.podman.run(self.image, "python", "-c", code, options=self.options(**given), check=check)

    def ids(self) -> list[int]:
        """The engines, as a new client sees them."""
        said = self.python("import ipyparallel as ipp; print(*ipp.Client(timeout=60).ids)")
        return [int(word) for word in said.stdout.split()]


def probe(part: Container, what: str = "ready") -> int:
    """What the health check says: 0 for well."""
    return part.exec("ipython-builder", "s2i", "probe", what, check=False).rc


@contextmanager
def secret(podman: Engine, text: str) -> Iterator[str]:
    """A secret of podman's with this content; it goes at the end."""
    name = f"ipython-builder-tests-{uuid.uuid4().hex[:8]}"
    with tempfile.NamedTemporaryFile("w", prefix="ipb-secret-") as file:
        file.write(text)
        file.flush()
        podman("secret", "create", name, file.name)
    try:
        yield name
    finally:
        podman("secret", "rm", name, check=False)


@contextmanager
def cluster(podman: Engine, image: str) -> Iterator[Cluster]:
    """A cluster that has a key and a network, and no parts yet."""
    key = secrets.token_hex(32)
    with secret(podman, f"{key}\n") as name:
        network = podman.network()
        address = Address.last_of(podman.inspect(network, "network"))
        assert address is not None
        made = Cluster(podman, image, network, name, key, address)
        try:
            yield made
        finally:
            podman.rm(*(part.id for part in made.parts.values()))


def image_with(podman: Engine, builder: str, folder: Path) -> str:
    """The builder with these notebooks, as somebody's own Containerfile would have it."""
    return podman.build(f"FROM {builder}\nCOPY --chown=1001:0 . /opt/app-root/src/\n", folder, "notebooks")
