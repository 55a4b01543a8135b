"""The engines that other tests stand on: they run containers, share daemons and images, and leave nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import daemons
from tests.conftest import CHECKOUT
from tests.engine import Engine
from tests.engines import Images, Registry, is_registry, start_registry
from tests.images import content_key, into, made_once
from tests.workbench import git, until

# A user of a daemon in a process of its own: says the address, and stays until its input ends.
USER = """
import sys, pathlib
from tests import daemons, test_engines as t
with daemons.kept(pathlib.Path(sys.argv[1]), t.start_listener, t.listens) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def start_listener(runtime: Path) -> tuple[str, list[str]]:
    """A daemon that does nothing but listen at a socket file."""
    address = f"{runtime}/socket"
    code = "import socket, sys, time; s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); time.sleep(600)"
    return address, [sys.executable, "-c", code, address]


def start_failing(runtime: Path) -> tuple[str, list[str]]:
    return f"{runtime}/socket", [sys.executable, "-c", "print('no room for a daemon'); exit(1)"]


def listens(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(address) == 0


def user(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, folder],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_daemon_is_shared_and_ends_with_its_last_user(tmp_path: Path) -> None:
    users = [user(tmp_path) for _ in range(3)]
    addresses = {said(one) for one in users}
    assert len(addresses) == 1
    address = addresses.pop()
    for one in users[:-1]:
        one.communicate(timeout=60)
        assert listens(address)
    users[-1].communicate(timeout=60)
    assert not listens(address)
    assert not Path(address).parent.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_daemon_ends_with_users_that_are_killed(tmp_path: Path, number: signal.Signals) -> None:
    one = user(tmp_path)
    address = said(one)
    os.killpg(one.pid, number)
    one.wait()
    until(lambda: not Path(address).parent.exists(), "the daemon ends")
    assert not listens(address)
    with daemons.kept(tmp_path, start_listener, listens) as again:
        assert again != address
        assert listens(again)


def test_a_daemon_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(daemons.NotStarted, match="no room for a daemon"),
        daemons.kept(tmp_path, start_failing, listens),
    ):
        pass


def test_a_key_is_of_names_contents_and_modes(tmp_path: Path) -> None:
    git(tmp_path, "init")
    file = tmp_path / "part" / "file"
    file.parent.mkdir()
    seen = set()
    for change in (
        lambda: file.write_text("one"),
        lambda: file.write_text("two"),
        lambda: file.chmod(0o755),
        lambda: file.rename(file.with_name("other")),
    ):
        change()
        seen.add(content_key("part", root=tmp_path))
    assert len(seen) == 4
    (tmp_path / "elsewhere").write_text("")
    assert content_key("part", root=tmp_path) in seen


def test_podman_runs_containers_and_leaves_none(podman: Engine, base_image: str) -> None:
    mine = Engine(podman.name, podman.program, podman.env)
    said = mine.run(base_image, "sh", "-c", "id -u; ulimit -n", options=("--user", "1000770000:0"))
    assert said.stdout.split()[0] == "1000770000"
    network = mine.network()
    box = mine.start(
        base_image, "sleep", "600", options=("--network", network, "--volume", f"{mine.volume()}:/v")
    )
    assert box.exec("cat", "/proc/1/comm").stdout == "sleep\n"
    assert box.exec("false", check=False).rc == 1
    assert box.inspect()["State"]["Running"]
    image = mine.build(
        "ARG BASE\nFROM $BASE\nCMD true\n", CHECKOUT / "images", "small", "--build-arg", f"BASE={base_image}"
    )
    assert mine.has(image)
    mine.clean()
    assert not mine.has(image)
    for words in (("ps", "--all", "--quiet"), ("network", "ls", "--quiet"), ("volume", "ls", "--quiet")):
        assert mine(*words, "--filter", f"label={mine.mine}").stdout == ""


def test_an_image_is_made_once_for_a_key(podman: Engine, base_image: str) -> None:
    name = podman.tag("made")
    made = []

    def make() -> None:
        made.append(1)
        podman("tag", base_image, name)

    for key in ("1", "1", "2"):
        assert made_once(podman, (name,), key, make) == (f"{name}:tests-{key}",)
    assert len(made) == 2


def test_docker_has_what_podman_has(podman: Engine, docker: Engine, base_image: str) -> None:
    image = into(podman, docker, base_image)
    box = docker.start(image, "sleep", "600")
    assert box.exec("cat", "/proc/1/comm").stdout == "sleep\n"
    box.rm()
    first = docker.env["PATH"].partition(":")[0]
    assert os.path.samefile(Path(first, "docker"), docker.program)


def test_docker_builds_with_mounts(podman: Engine, docker: Engine, base_image: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    text = f"FROM {into(podman, docker, base_image)}\nRUN --mount=type=secret,id=one cat /run/secrets/one | wc -c > /size\n"
    image = docker.build(text, tmp_path, "mounts", "--secret", f"id=one,src={tmp_path}/secret")
    assert docker.run(image, "cat", "/size").stdout == "6\n"


def test_an_image_goes_through_the_registry(
    podman: Engine, docker: Engine, registry: Registry, base_image: str
) -> None:
    name = registry.name("base")
    with_registry = Engine(podman.name, podman.program, podman.env | registry.env)
    with_registry("push", "--quiet", base_image, name)
    docker("pull", "--quiet", name)
    assert docker.has(name)
    docker("rmi", name)


def test_a_registry_of_ones_own(registry: Registry, tmp_path: Path) -> None:
    with daemons.kept(tmp_path, start_registry, is_registry) as address:
        assert address != registry.address
        assert is_registry(address)
    assert not is_registry(address)


def test_our_images_are_there(podman: Engine, docker: Engine, builder_image: Images) -> None:
    for image in (builder_image.builder, builder_image.scipy):
        assert podman.inspect(image)["Config"]["User"] == "1001"
    assert docker.has(into(podman, docker, builder_image.builder))
