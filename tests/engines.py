"""Real container engines for the tests: podman, Docker's, a registry, and the images that the tests run.

A pytest plugin. What is missing is named: on somebody's machine the test is skipped, with CI=true it fails. Nothing
below ``/etc`` is written, and what is started ends with the last test process that uses it (`tests.daemons`).
A test that takes one of these fixtures is marked `container` and `slow` by itself.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import daemons
from tests.conftest import CACHE, CHECKOUT, missing, require
from tests.daemons import locked
from tests.dockerd import docker_client, is_docker, running_docker, start_docker
from tests.engine import Engine
from tests.images import LOCK, content_key, made_once

BASE = "localhost/debian:trixie"
# What an image of ours is made of; a change of anything else leaves it as it is.
PARTS = (
    "images",
    "s2i",
    "builder",
    "templates",
    "setup.cfg",
    "pyproject.toml",
    "Makefile",
    ".containerignore",
)
IMAGES = ("localhost/ipython-builder", "localhost/ipython-builder-scipy")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs an engine. Whoever comes first makes images, which is longer than a test may take."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if used & {"podman", "docker", "registry"}:
            item.add_marker(pytest.mark.container)
            item.add_marker(pytest.mark.slow)
        if used & {"builder_image", "base_image"} and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


# -- podman -----------------------------------------------------------------------------------------


def containers_conf() -> str:
    """What podman and buildah as root need to know of this machine; empty where their own is right."""
    if os.getuid():
        return ""
    containers, engine = [], []
    # More than the caller has may only be asked for with CAP_SYS_RESOURCE; podman lowers its own nproc to pid_max.
    most = {
        "nofile": {resource.getrlimit(resource.RLIMIT_NOFILE)[1]},
        "nproc": {
            resource.getrlimit(resource.RLIMIT_NPROC)[1],
            int(Path("/proc/sys/kernel/pid_max").read_text()),
        },
    }
    most = {name: min(values - {resource.RLIM_INFINITY}, default=1048576) for name, values in most.items()}
    if lower := [f'"{name}={n}:{n}"' for name, n in most.items() if n < 1048576]:
        containers.append(f"default_ulimits = [{', '.join(lower)}]")
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and shutil.which("runc"):
        engine.append('runtime = "runc"')  # crun refuses hybrid cgroups
    if not Path("/run/systemd/system").is_dir():
        engine += ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
    if not containers and not engine:
        return ""
    network = ['network_backend = "netavark"', f'default_subnet = "{free_subnet()}"']
    return "\n".join(["[containers]", *containers, "[engine]", *engine, "[network]", *network, ""])


def free_subnet() -> str:
    """The network of podman's containers, or one beside it where somebody else has that.

    An older podman, or one that CNI serves, leaves a bridge with these addresses, and to that all answers go then.
    """
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    taken = {socket.inet_ntoa(bytes.fromhex(to)[::-1]) for bridge, to, *_ in routes if bridge != "podman0"}
    return next(f"10.{n}.0.0/16" for n in (88, *range(70, 88)) if f"10.{n}.0.0" not in taken)


def common(factory: pytest.TempPathFactory) -> Path:
    """The folder of this run that all its workers share."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """podman, with a configuration for this machine; its `env` is for buildah and for our own tool too."""
    env = {}
    if text := containers_conf():
        conf = tmp_path_factory.mktemp("podman") / "containers.conf"
        conf.write_text(text)
        env["CONTAINERS_CONF"] = str(conf)
    engine = Engine("podman", require("podman"), env)
    said = engine("info", check=False)
    if said.rc:
        missing(f"a podman that works ({said.stderr.strip()})")
    yield engine
    engine.clean()


# -- Docker -----------------------------------------------------------------------------------------


@contextmanager
def docker_engine(env: dict[str, str], bin_folder: Path) -> Iterator[Engine]:
    """The command that speaks to the engine at DOCKER_HOST; `docker` on the PATH of its `env` is the same."""
    program = docker_client(env)
    if program is None:
        missing("a docker command that speaks to the Docker engine")
    assert program is not None
    (bin_folder / "docker").symlink_to(program)
    env |= {"PATH": f"{bin_folder}:{os.environ.get('PATH', os.defpath)}", "DOCKER_BUILDKIT": "1"}
    engine = Engine("docker", program, env)
    yield engine
    engine.clean()


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """docker and an engine: one that runs already, or else, for root, one of our own."""
    bin_folder = tmp_path_factory.mktemp("docker")
    if address := running_docker():
        with docker_engine({"DOCKER_HOST": address}, bin_folder) as engine:
            yield engine
        return
    require("dockerd")
    if os.getuid():
        missing("a running Docker engine, which only root can start,")
    try:
        with (
            daemons.kept(CACHE / "dockerd", start_docker, is_docker) as address,
            docker_engine({"DOCKER_HOST": address}, bin_folder) as engine,
        ):
            yield engine
    except daemons.NotStarted as error:
        missing(f"a Docker engine that starts ({error})")


# -- a registry -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registry:
    """A registry without passwords, on loopback unless it says otherwise.

    Attributes:
        address: host and port, with which the names of its images begin.
        env: what podman, buildah and our tool need to know that it speaks no TLS. docker knows by the address.
    """

    address: str
    env: dict[str, str]

    def name(self, stem: str) -> str:
        """A name for an image in it that nobody has."""
        return f"{self.address}/{stem}-{uuid.uuid4().hex[:8]}"


def start_registry(runtime: Path, host: str = "127.0.0.1") -> tuple[str, list[str]]:
    with socket.socket() as free:
        free.bind((host, 0))
        address = f"{host}:{free.getsockname()[1]}"
    conf = runtime / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(runtime / "images")}, "delete": {"enabled": True}}
    conf.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    return address, [require("docker-registry"), "serve", str(conf)]


def is_registry(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def registry_at(host: str, folder: Path) -> Iterator[Registry]:
    """A real registry that listens there, and is shared by those who name the same folder."""
    require("docker-registry")
    start = functools.partial(start_registry, host=host)
    with daemons.kept(folder, start, is_registry) as address:
        conf = folder / f"registries-{uuid.uuid4().hex[:8]}.conf"
        conf.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
        yield Registry(address, {"CONTAINERS_REGISTRIES_CONF": str(conf)})


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry, empty at the start of the run."""
    with registry_at("127.0.0.1", common(tmp_path_factory) / "registry") as found:
        yield found


# -- images -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """Our images in podman."""

    builder: str
    scipy: str


@pytest.fixture(scope="session")
def builder_image(podman: Engine) -> Images:
    """Our images as this checkout makes them; ``into(podman, docker, builder_image.builder)`` for docker."""

    def make() -> None:
        done = subprocess.run(
            ["make", "--no-print-directory", "images"],
            cwd=CHECKOUT,
            env=podman.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=False).stdout
            rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
            pytest.fail(
                f"make images ended with {done.returncode}:\n{done.stdout[-4000:]}\n{routes}\n{rules[:4000]}"
            )

    return Images(*made_once(podman, IMAGES, content_key(*PARTS), make))


@pytest.fixture(scope="session")
def base_image(podman: Engine) -> str:
    """A small Debian with Python, tar and sh, of Debian's packages, since images cannot be fetched everywhere."""
    with locked(LOCK):
        if not podman.has(BASE):
            words = [
                "--quiet",
                "--variant=minbase",
                "--include=python3,python3-venv,ca-certificates,git,tini",
            ]
            with tempfile.TemporaryDirectory(prefix="ipb-base-") as folder:
                root = f"{folder}/base.tar"
                subprocess.run(
                    [require("mmdebstrap"), *words, "trixie", root], check=True, capture_output=True
                )
                podman("import", root, BASE)
    return BASE
