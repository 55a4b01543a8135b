"""Clusters in podman and docker, end to end: real engines, a real image, what `down` leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ipython_builder import cluster, ports
from ipython_builder.cli import overview
from ipython_builder.errors import BuilderError, Transient
from ipython_builder.platforms import merged, parts, said
from ipython_builder.platforms.containers import KINDS
from ipython_builder.platforms.elsewhere import Elsewhere, Elsewheres
from tests.conftest import CHECKOUT, LOOPBACK, Cli, Home, require
from tests.engine import Engine
from tests.engines import Images
from tests.images import into
from tests.workbench import console, notebook, outputs, until

MADE = Elsewhere("x7k2q", "podman", "ada", "/repo", "ipython-builder", "127.0.0.1", 8080, 2, image="1" * 64)


@dataclass
class Place:
    """An engine with a builder image, and a repository for clusters of one label.

    Attributes:
        name: what `--on` is given.
    """

    name: str
    engine: Engine
    builder: str
    cli: Cli
    root: Path
    label: str

    def __call__(self, *words: str | Path, **options: Any) -> Any:
        return self.cli(*words, env=self.engine.env, **options)

    def up(self, *words: str, **options: Any) -> Any:
        more = ("--on", self.name, "--label", self.label, "--builder", self.builder, *words)
        return self("up", self.root, *more, **options)

    def status(self) -> Any:
        return self("status", self.label, "--json").json

    def left(self) -> dict[str, list[str]]:
        """What the engine has of the cluster, by kind."""
        mine = ("--filter", f"label={parts.mark(self.label)}")
        found = {"container": self.engine("ps", "--all", "--quiet", *mine).stdout.split()}
        for kind in ("network", "volume"):
            found[kind] = self.engine(kind, "ls", *mine, "--format", "{{.Name}}").stdout.split()
        listed = self.engine.images("--format", "{{.Repository}}")
        found["image"] = [name for name in listed if name.endswith(f"/{self.label}")]
        if self.name == "podman":
            secrets = self.engine("secret", "ls", "--format", "{{.Name}}").stdout.split()
            found["secret"] = [name for name in secrets if f"-{self.label}-" in name]
        return {kind: names for kind, names in found.items() if names}

    def kill(self, name: str) -> None:
        """As the kernel would for want of memory: its PID 1, and with it all that is in it."""
        pid = self.engine.inspect(name, "container")["State"]["Pid"]
        os.kill(pid, signal.SIGKILL)


def place_in(engine: Engine, builder: str, home: Home, cli: Cli) -> Place:
    root = home.path / "repository"
    cells = (
        "import helper, ipyparallel as ipp",
        "rc = ipp.Client(); len(rc)",
        "rc[:].map_sync(helper.double, [1, 2])",
    )
    notebook(root / "a.ipynb", *cells)
    (root / "helper.py").write_text("def double(n):\n    return 2 * n\n")
    return Place(engine.name, engine, builder, cli, root, cluster.random_label())


@pytest.fixture(params=["podman", "docker"])
def place(
    request: pytest.FixtureRequest, podman: Engine, builder_image: Images, home: Home, cli: Cli
) -> Iterator[Place]:
    engine = podman if request.param == "podman" else request.getfixturevalue("docker")
    builder = builder_image.builder if engine is podman else into(podman, engine, builder_image.builder)
    made = place_in(engine, builder, home, cli)
    yield made
    made("down", made.label, "--discard")


@pytest.fixture
def in_podman(podman: Engine, builder_image: Images, home: Home, cli: Cli) -> Iterator[Place]:
    made = place_in(podman, builder_image.builder, home, cli)
    yield made
    made("down", made.label, "--discard")


def test_a_cluster_from_its_first_to_its_last_day(place: Place, tmp_path: Path) -> None:
    made = place.up("-n", "2", "--user", "ada", "--json", check=True).json
    label = place.label
    assert made["engines"] == {"requested": 2, "registered": 2}
    assert made["viewer"]["name"] == f"nbviewer-ada-{label}"
    # What it is confined to, and who can read the key.
    for name in (f"nbviewer-ada-{label}", f"ipcontroller-{label}", f"ipengine-{label}"):
        known = place.engine.inspect(name, "container")
        assert known["HostConfig"]["ReadonlyRootfs"]
        assert known["Config"]["Labels"]["ipython-cluster"] == label
        assert made["password"] not in json.dumps(known)
    key = "/run/secrets/ipython-cluster-key" if place.name == "podman" else "/run/secrets/ipython-cluster/key"
    seen = place.engine("exec", f"ipengine-{label}", "stat", "--format=%a %g", key).stdout.split()
    assert seen == ["440", "0"]
    # A notebook computes on both engines.
    place("run", label, "a.ipynb", "-o", tmp_path / "done.ipynb", check=True)
    assert outputs(tmp_path / "done.ipynb") == ["2", "[2, 4]"]
    # Engines that stay keep what they have, whatever comes and goes.
    code = "rc[:]['x'] = rc.ids"
    home = place.cli.home
    ours = Cli(Home(home.path, home.settings, home.environ | place.engine.env))
    console(ours, label, code)
    place("scale", label, "4", check=True)
    assert console(ours, label, "print(len(rc), rc[[0, 1]]['x'])") == "4 [[0, 1], [0, 1]]"
    place("scale", label, "1", check=True)
    assert console(ours, label, "print(rc.ids, rc[0]['x'])") == "[0] [0, 1]"
    assert place("password", label, check=True).stdout.strip() == made["password"]
    assert "engine: " in place("logs", label, check=True).stdout
    assert place("logs", label, "nobody").rc == 2
    listed = place("ls", "--json", check=True).json
    assert [(one["label"], one["state"], one["engines"]["registered"]) for one in listed] == [
        (label, "ready", 1)
    ]
    # Whatever dies comes again, engines in the number that was asked for last.
    place("scale", label, "3", check=True)
    for name in (f"ipengine-{label}", f"ipcontroller-{label}"):
        place.kill(name)

    def well() -> bool:
        now = place.status()
        again = [role["restarts"] for role in now["roles"] if role["role"] in ("controller", "engine")]
        return now["state"] == "ready" and now["engines"]["registered"] == 3 and all(again)

    until(well, "it is as it was", 120)
    # A container that somebody has removed is made again, and a second `up` changes nothing else.
    place.engine.rm(f"nbviewer-ada-{label}")
    again = place.up("--json", check=True).json
    assert {name: again[name] for name in ("url", "password", "engines")} == {
        "url": made["url"],
        "password": made["password"],
        "engines": {"requested": 3, "registered": 3},
    }
    place("down", label, check=True)
    assert place.left() == {}
    assert place("ls", "--json").json == []


def test_changed_notebooks_outlive_the_cluster(in_podman: Place) -> None:
    place = in_podman
    (place.root.parent / "password").write_text("correct horse\n")
    place.up("-n", "1", "--password-file", str(place.root.parent / "password"), check=True)
    assert place("password", place.label).stdout.strip() == "correct horse"
    place("run", place.label, "a.ipynb")  # its outputs are in the workspace
    kept = f"ipython-{place.label}-workspace"
    assert kept in place("down", place.label, check=True).stderr
    assert place.left() == {"volume": [kept]}
    other = place("up", place.root.parent, "--on", "podman", "--label", place.label)
    assert other.rc == 2
    assert kept in other.stderr
    said = place.up("-n", "0", check=True)
    assert "going on with the notebooks" in said.stderr
    place("scale", place.label, "1", check=True)
    seen = place.engine("exec", f"ipengine-{place.label}", "cat", "a.ipynb").stdout
    assert '"output_type"' in seen
    place("down", place.label, "--discard", check=True)
    assert place.left() == {}


@pytest.mark.parametrize("moment", ["making containers", "starting the notebook"])
def test_an_interrupted_up_leaves_nothing(in_podman: Place, moment: str) -> None:
    place = in_podman
    words = ("--on", "podman", "--label", place.label, "--builder", place.builder, "-n", "1")
    process = place.cli.start("up", place.root, *words, env=place.engine.env)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"… {moment}"):
            break
    time.sleep(0.5)  # somewhere in it
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert place.left() == {}
    assert place("ls", "--json").json == []


# -- what cannot be --------------------------------------------------------------------------------


def test_an_engine_that_is_not_there_is_named(cli: Cli, home: Home, tmp_path: Path) -> None:
    notebook(tmp_path / "r/a.ipynb", "1")
    said = cli("up", tmp_path / "r", "--on", "podman", env={"PATH": str(tmp_path)})
    assert said.rc == 69
    assert "podman is not on PATH" in said.stderr
    assert cli("ls", "--json").json == []


def test_a_daemon_that_is_down_is_named(cli: Cli, tmp_path: Path) -> None:
    require("docker")
    notebook(tmp_path / "r/a.ipynb", "1")
    env = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "PATH": f"/usr/bin:{os.environ['PATH']}"}
    said = cli("up", tmp_path / "r", "--on", "docker", env=env)
    assert said.rc == 69
    assert "ocker" in said.stderr
    assert cli("ls", "--json").json == []


def test_an_image_or_a_port_that_cannot_be_had(podman: Engine, cli: Cli, tmp_path: Path) -> None:
    notebook(tmp_path / "r/a.ipynb", "1")
    label = cluster.random_label()
    with socket.create_server((LOOPBACK, 0)) as server:
        port = str(server.getsockname()[1])
        words = ("up", tmp_path / "r", "--on", "podman", "--label", label)
        taken = cli(*words, "--port", port, env=podman.env)
    assert taken.rc == 1
    assert f"port {port} on {LOOPBACK} is in use" in taken.stderr
    missing = cli(*words, "--builder", "localhost/nobody-made-this", env=podman.env)
    assert missing.rc == 69
    assert "nobody-made-this" in missing.stderr
    assert not podman("volume", "ls", "--quiet", "--filter", f"label={parts.mark(label)}").stdout
    assert cli("ls", "--json").json == []


@pytest.mark.parametrize(
    "words", [("--on", "podman", "--python", "3.12"), ("--on", "docker", "--no-fork"), ("--builder", "x")]
)
def test_what_has_no_meaning_there_is_refused(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    notebook(tmp_path / "r/a.ipynb", "1")
    assert cli("up", tmp_path / "r", *words).rc == 2


def test_a_label_is_one_platforms(cli: Cli, home: Home, tmp_path: Path) -> None:
    Elsewheres(home.settings.state_dir / "elsewhere").save(MADE)
    notebook(tmp_path / "r/a.ipynb", "1")
    refused = cli("up", tmp_path / "r", "--label", MADE.label)
    assert refused.rc == 2
    assert "already a cluster in podman" in refused.stderr
    near = cli("status", "x7k2")
    assert near.rc == 2
    assert f"did you mean {MADE.label}?" in near.stderr


# -- parts -----------------------------------------------------------------------------------------


def test_the_record_is_private_and_one_that_is_damaged_is_named(tmp_path: Path) -> None:
    store = Elsewheres(tmp_path / "elsewhere")
    assert store.labels() == []
    store.save(MADE)
    assert (tmp_path / "elsewhere/x7k2q.json").stat().st_mode & 0o777 == 0o600
    assert store.load("x7k2q") == MADE
    with store.locked("x7k2q"), pytest.raises(Transient), store.locked("x7k2q"):
        pass
    (tmp_path / "elsewhere/x7k2q.json").write_text("[")
    assert store.all() == []
    with pytest.raises(BuilderError, match="is damaged"):
        store.load("x7k2q")


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_only_who_needs_it_gets_it(engine: str) -> None:
    lines = {kind: parts.container(MADE, kind, KINDS[engine], ["key", "password"]) for kind in parts.KINDS}
    for kind, argv in lines.items():
        assert set(parts.CONFINED) < set(argv)
        assert argv[-1] == MADE.image
        assert any("ipython-x7k2q-key" in word for word in argv)
        assert any("ipython-x7k2q-password" in word for word in argv) == (kind == "viewer")
        assert ("--publish" in argv) == (kind == "viewer")


def test_the_controller_is_found_where_names_fail() -> None:
    network = {"subnets": [{"subnet": "fd00::/64"}, {"subnet": "10.89.3.0/24", "gateway": "10.89.3.1"}]}
    address = parts.Address.last_of(network)
    assert address == parts.Address("10.89.3.254", "02:69:0a:59:03:fe")
    assert parts.Address.last_of({}) is None
    lines = {
        kind: " ".join(parts.container(MADE, kind, KINDS["podman"], [], address)) for kind in parts.KINDS
    }
    assert "--ip 10.89.3.254 --mac-address 02:69:0a:59:03:fe" in lines["controller"]
    assert "--add-host ipcontroller-x7k2q:10.89.3.254" in lines["viewer"]
    assert "--add-host ipcontroller-x7k2q:10.89.3.254" in lines["engine"]


def test_state_is_told_from_what_is_left() -> None:
    def found(status: str) -> dict[str, Any]:
        return {"State": {"Status": status, "Running": status == "running"}, "RestartCount": 1}

    nothing = merged.state(MADE, {}, {})
    assert nothing["state"] == "stopped"
    assert [role["reason"] for role in nothing["roles"]] == ["there is no container"] * 3
    half = merged.state(MADE, {"viewer": found("running"), "engine": found("exited")}, {})
    assert half["state"] == "failing"
    said = overview.lines(half, 1e9, 50)
    assert "  wrong      engine: the container is exited" in said
    assert f"  next       ipython-builder up --label {MADE.label} {MADE.source}" in said
    ended = {"State": {"Status": "exited", "Running": False, "FinishedAt": "2026-11-25T17:50:14.543422347Z"}}
    gone = merged.state(MADE, {"viewer": found("running"), "engine": ended}, {})
    row = "  wrong      engine: the container is exited, for 2 min"
    assert row in overview.lines(gone, 1795629134.5, 50)
    starting = merged.state(MADE, {kind: found("running") for kind in parts.KINDS}, {})
    assert (starting["state"], starting["wrong"]) == ("starting", [])
    assert merged.state(Elsewhere(**(vars(MADE) | {"image": ""})), {}, {})["state"] == "incomplete"


def test_every_role_has_its_log() -> None:
    assert said.kinds(None) == parts.KINDS
    assert [said.kinds(one) for one in ("viewer", "pool", "engine-3")] == [
        ("viewer",),
        ("engine",),
        ("engine",),
    ]


# -- compose ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["podman-compose", "docker-compose"])
def test_compose(
    program: str, podman: Engine, builder_image: Images, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tool = require("podman-compose") if program == "podman-compose" else shutil.which(program)
    if tool is None:
        pytest.skip("the older of two programs that do the same; `docker compose` is in no package here")
    engine = podman if program == "podman-compose" else request.getfixturevalue("docker")
    image = builder_image.builder if engine is podman else into(podman, engine, builder_image.builder)
    folder = tmp_path / "compose"
    shutil.copytree(CHECKOUT / "templates/compose", folder)
    project = f"ipb-{cluster.random_label()}"
    port = ports.viewer("127.0.0.1", range(8080, 8200))  # podman takes no port 0
    env = engine.environ | {"IMAGE": image, "ENGINE_CONTAINERS": "2", "PORT": f"127.0.0.1:{port}"}
    text = (folder / "compose.yaml").read_text()
    key = next(line for line in text.splitlines() if "openssl" in line).lstrip("# ")
    subprocess.run(["sh", "-c", key.replace("templates/compose", str(folder))], check=True)

    def compose(*words: str) -> str:
        argv = [tool, "-p", project, "-f", folder / "compose.yaml", *words]
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def inside(*words: str) -> str:
        return engine("exec", f"{project}_viewer_1", "ipython-builder", *words).stdout

    try:
        compose("up", "-d", *([] if engine is podman else ["--scale", "engine=2"]))
        for part in ("controller_1", "engine_1", "engine_2", "viewer_1"):
            engine("exec", f"{project}_{part}", "ipython-builder", "s2i", "probe", "ready", "--wait", "60")
        assert inside("console", "compose", "--no-banner", "-c", "print(len(rc))").strip() == "2"
        assert inside("password").strip()
        known = engine.inspect(f"{project}_engine_1", "container")
        assert known["HostConfig"]["ReadonlyRootfs"]
    finally:
        compose("down", "-v")
        engine("network", "rm", f"{project}_cluster", check=False)
        for volume in ("workspace", "state"):
            engine("volume", "rm", f"{project}_{volume}", check=False)
