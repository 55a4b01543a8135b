"""One image in three roles, as containers that may do next to nothing: they find each other, and they heal."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import containers
from tests.conftest import require
from tests.containers import LABEL, LIMITS, Cluster, env_options, probe
from tests.engine import Container, Engine
from tests.engines import Images
from tests.workbench import notebook, outputs, until, wheel

CLIENT = "import ipyparallel as ipp; rc = ipp.Client(timeout=60)"


@pytest.fixture(scope="module")
def image(podman: Engine, builder_image: Images, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The builder with a notebook."""
    folder = tmp_path_factory.mktemp("notebooks")
    notebook(
        folder / "cluster.ipynb",
        f"{CLIENT}; rc.wait_for_engines(3, timeout=60, interactive=False); rc.ids",
        "len(set(rc[:].apply_sync(lambda: __import__('socket').gethostname())))",
        "import helpers; helpers.answer, rc[:].apply_sync(lambda: __import__('helpers').answer)",
    )
    (folder / "helpers.py").write_text("answer = 41\n")
    return containers.image_with(podman, builder_image.builder, folder)


@pytest.fixture(scope="module")
def there(podman: Engine, image: str) -> Iterator[Cluster]:
    """A cluster whose controller was the last to come."""
    with containers.cluster(podman, image) as made:
        made.add("one", "engine")
        state = ("--volume", f"{podman.volume()}:/opt/app-root/state")
        made.add("two", "engine", *state, IPYTHON_ENGINES="2")
        made.add("viewer", "viewer")
        for name in ("one", "two"):
            part = made.parts[name]
            made.until(lambda part=part: "engines wait" in part.logs, f"{name} says that it waits")
            assert f"there is no controller at ipcontroller-{LABEL}:10000: nothing listens" in part.logs
            assert probe(part) != 0
            assert probe(part, "live") == 0
        made.add("controller", "controller")
        made.ready("one", "two", "viewer", "controller")
        yield made


def test_a_notebook_computes_on_two_engine_containers(there: Cluster, tmp_path: Path) -> None:
    viewer = there.parts["viewer"]
    said = viewer.exec("ipython-builder", "run", LABEL, "cluster.ipynb", "-o", "/tmp/done.ipynb")
    assert said.rc == 0
    (tmp_path / "done.ipynb").write_text(viewer.exec("cat", "/tmp/done.ipynb").stdout)
    assert outputs(tmp_path / "done.ipynb") == ["[0, 1, 2]", "2", "(41, [41, 41, 41])"]
    status = viewer.exec("ipython-builder", "status").stdout
    assert LABEL in status
    assert viewer.exec("ipython-builder", "password").stdout.strip()
    there.until(
        lambda: "the controller answers" in there.parts["one"].logs, "the log says that waiting is over"
    )


def test_what_a_container_is_allowed(there: Cluster) -> None:
    for part in there.parts.values():
        said = part.exec("sh", "-c", "id -u; id -g; touch /opt/app-root/src/x; grep CapEff /proc/self/status")
        assert said.stdout.split()[:2] == ["1000770000", "0"]
        assert "Read-only file system" in said.stderr
        assert "CapEff:\t0000000000000000" in said.stdout
        zombies = part.exec("sh", "-c", "cat /proc/[0-9]*/stat").stdout.splitlines()
        assert not [line for line in zombies if ") Z " in line]


def test_commands_find_the_cluster(there: Cluster) -> None:
    assert there.ids() == [0, 1, 2]
    options = there.options()
    code = "print('engines', view.apply_sync(lambda: 1))"
    said = there.podman.run(there.image, "console", "--no-banner", "-c", code, options=options)
    assert "engines [1, 1, 1]" in said.stdout
    said = there.podman.run(there.image, "sh", "-c", "exit 7", options=options, check=False)
    assert said.rc == 7
    said = there.podman.run(there.image, "no-such-program", options=options, check=False)
    assert said.rc == 1
    assert "cannot run no-such-program" in said.stderr
    # The same from within a part.
    said = there.parts["viewer"].exec("python", "-c", f"{CLIENT}; print(*rc.ids)")
    assert said.stdout.strip() == "0 1 2"


def test_an_engine_that_is_to_go_finishes_its_task(there: Cluster) -> None:
    there.add("three", "engine")
    there.ready("three")
    code = f"""
{CLIENT}
mine = max(rc.ids)
assert mine not in (0, 1, 2)
task = rc.load_balanced_view(targets=[mine]).apply_async(
    lambda: (print("begun", flush=True), __import__("time").sleep(5)) and "finished")
while "begun" not in task.stdout: __import__("time").sleep(.1)
print("begun", flush=True)
print(task.get(timeout=60), flush=True)
while mine in rc.ids: __import__("time").sleep(.1)
print("it is gone", flush=True)
"""
    client = there.client("client", code)
    there.until(lambda: "begun" in client.logs, "the engine works")
    there.podman("stop", "--time", "40", there.parts["three"].id)
    there.until(lambda: "it is gone" in client.logs, "the client knows that it is gone", 10)
    assert "finished" in client.logs
    assert there.parts["three"].inspect()["State"]["ExitCode"] == 0
    assert there.ids() == [0, 1, 2]


def test_the_controller_comes_again(there: Cluster) -> None:
    code = f"""
{CLIENT}
import os, time
rc[:].push(dict(kept=42))
print("first", rc[:].apply_sync(os.getpid), flush=True)
while not os.path.exists("/tmp/go"): time.sleep(.1)
rc.wait_for_engines(3, timeout=60, interactive=False)
print("again", rc[:].apply_sync(os.getpid), rc[:].pull("kept", block=True), flush=True)
"""
    client = there.client("client", code)
    there.until(lambda: "first" in client.logs, "the client works")
    there.kill("controller")
    there.ready("controller", "one", "two")
    there.until(lambda: there.ids() == [0, 1, 2], "new clients see all engines")
    client.exec("touch", "/tmp/go")
    there.until(lambda: "again" in client.logs, "the open client goes on")
    pids = client.logs.splitlines()[0].removeprefix("first ")
    assert f"again {pids} [42, 42, 42]" in client.logs
    assert (
        there.parts["one"].inspect()["State"]["StartedAt"]
        < there.parts["controller"].inspect()["State"]["StartedAt"]
    )


def test_engines_and_viewer_come_again(there: Cluster) -> None:
    there.kill("two")
    there.kill("viewer")
    there.ready("two", "viewer")
    # Its supervisor could say nothing when it died; the next one knows whom it had, and says so. The hub
    # itself would notice after thirty seconds.
    there.until(lambda: len(there.ids()) == 3, "the old engines are forgotten, the new ones are there", 20)
    there.kill("one")
    there.ready("one")
    # Without a volume nobody knows: the controller hears no heartbeat for half a minute.
    there.until(lambda: len(there.ids()) == 3, "the old engine is forgotten, the new one is there", 90)
    code = f"{CLIENT}; print(*rc.load_balanced_view().map_sync(abs, range(-40, 0)))"
    assert len(there.python(code).stdout.split()) == 40
    assert there.parts["viewer"].exec("python", "-c", f"{CLIENT}; print(len(rc.ids))").stdout.strip() == "3"


def test_another_key_is_refused(there: Cluster) -> None:
    with containers.secret(there.podman, "f" * 64) as other:
        part = there.add("stranger", "engine", secret=other)
        words = f"the controller at ipcontroller-{LABEL}:10000 does not answer to this cluster key"
        there.until(lambda: words in part.logs, "the log says it")
        assert probe(part) != 0
        assert probe(part, "live") == 0
        part.rm()
        before = there.ids()
        said = there.python("import ipyparallel as ipp; ipp.Client(timeout=3)", check=False, secret=other)
        assert said.rc
        assert "with another key?" in said.stderr.splitlines()[-1]
        assert there.ids() == before


def test_nobody_on_the_way_reads_the_data(there: Cluster, tmp_path: Path) -> None:
    network = there.podman.inspect(there.network, "network")
    file = tmp_path / "capture"
    secret, plain = (uuid.uuid4().hex for _ in range(2))
    words = [require("tcpdump"), "-i", network["network_interface"], "-w", file, "-U", "-s", "0", "tcp"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as capture:
        assert capture.stderr is not None
        while "listening on" not in (line := capture.stderr.readline()):
            assert line, "tcpdump has ended"
        code = f"""
{CLIENT}
import urllib.request, urllib.error
assert rc[:].apply_sync(lambda text: text[::-1], {secret!r}) == [{secret[::-1]!r}] * len(rc)
try: urllib.request.urlopen("http://viewer.of.tests:8080/api?{plain}")
except urllib.error.HTTPError: pass
"""
        viewer = there.parts["viewer"].inspect()["NetworkSettings"]["Networks"][there.network]["IPAddress"]
        there.podman.run(
            there.image, "python", "-c", code.replace("viewer.of.tests", viewer), options=there.options()
        )
        there.until(lambda: plain.encode() in file.read_bytes(), "the capture has what is not encrypted")
        capture.terminate()
        capture.communicate()
    captured = file.read_bytes()
    assert len(captured) > 10_000
    for text in (secret, secret[::-1], there.key):
        assert text.encode() not in captured


# -- alone, with odd environments -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "rc", "words"),
    [
        ({"IPYTHON_CONTAINER_TYPE": "enigne"}, 2, "did you mean engine?"),
        ({"IPYTHON_CONTAINER_TYPE": "database"}, 2, "it is one of viewer, controller, engine"),
        ({"IPYTHON_CONTAINER_TYPE": "engine"}, 2, "this engine has no cluster label"),
        (
            {"IPYTHON_CONTAINER_TYPE": "controller", "IPYTHON_CLUSTER_LABEL": "tt"},
            2,
            "this controller has no cluster key",
        ),
        ({"IPYTHON_CLUSTER_LABEL": "Not a label"}, 2, "Not a label"),
        ({"IPYTHON_CLUSTER_LABEL": "tt", "IPYTHON_CLUSTER_KEY": "short"}, 2, "key"),
        ({"IPYTHON_CLUSTER_KEY_FILE": "/nowhere"}, 2, "there is no such file"),
        ({"IPYTHON_ENGINES": "many"}, 2, "IPYTHON_ENGINES=many"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_meant(podman: Engine, image: str, env: dict[str, str], rc: int, words: str) -> None:
    said = podman.run(image, options=(*LIMITS, "--network", "none", *env_options(env)), check=False)
    assert said.rc == rc
    first, *rest = said.stderr.strip().splitlines()
    assert first.startswith("error: ")
    assert words in said.stderr
    assert rest[-1].startswith(" next: ")
    assert "Traceback" not in said.stderr


def test_a_root_that_nobody_can_write_to_at_all(podman: Engine, image: str) -> None:
    at = LIMITS.index("/tmp")
    limits = LIMITS[: at - 1] + LIMITS[at + 1 :]
    said = podman.run(image, options=(*limits, "--network", "none"), check=False)
    assert said.rc == 1
    assert "--tmpfs /tmp" in said.stderr.splitlines()[-1]


def test_a_label_that_nobody_serves(podman: Engine, image: str) -> None:
    with containers.cluster(podman, image) as alone:
        part = alone.add("engine", "engine", label="nobody")
        words = "there is no controller at ipcontroller-nobody:10000: the name is not known (yet)"
        until(lambda: words in part.logs, "the log says it")
        assert probe(part) == 69
        assert probe(part, "live") == 0
        said = alone.python("import ipyparallel as ipp; ipp.Client(timeout=2)", check=False, label="nobody")
        assert said.rc
        words = "there is no controller at ipcontroller-nobody:10000: the name is not known"
        assert said.stderr.splitlines()[-1].endswith(words)
        podman("stop", "--time", "20", part.id)
        assert part.inspect()["State"]["ExitCode"] == 0, "it ends when it is told to, whatever it waits for"


def test_as_many_engines_as_the_container_has_processors(podman: Engine, image: str) -> None:
    with containers.cluster(podman, image) as alone:
        one = alone.add("one", "engine", "--cpus", "1", IPYTHON_ENGINES="auto")
        all_ = alone.add("all", "engine", IPYTHON_ENGINES="auto")
        until(lambda: "of cluster" in one.logs, "it says how many")
        assert one.logs.startswith("1 engine of cluster tt")
        until(lambda: "of cluster" in all_.logs, "it says how many")
        assert all_.logs.startswith(f"{len(os.sched_getaffinity(0))} engine")


def viewer(podman: Engine, image: str, *options: str, **env: str) -> Container:
    """A viewer without a cluster, when it is ready."""
    made = podman.start(image, options=(*LIMITS, "--network", "none", *env_options(env), *options))
    until(lambda: probe(made) == 0, "the viewer is ready", 90)
    return made


def run_cells(made: Container, folder: Path, *cells: str) -> list[str]:
    """What these cells print in the viewer; `folder` is mounted into it as ``/given``."""
    notebook(folder / "given.ipynb", *cells)
    words = ["ipython-builder", "run", "notebook", "/given/given.ipynb", "-o", "/tmp/done.ipynb"]
    said = made.exec(*words, "--allow-errors", check=False)
    assert said.rc in (0, 1), said.stderr
    (folder / "done.ipynb").write_text(made.exec("cat", "/tmp/done.ipynb").stdout)
    return outputs(folder / "done.ipynb")


def test_a_volume_keeps_password_and_packages(podman: Engine, image: str, tmp_path: Path) -> None:
    wheel(tmp_path, "tinyone", "1.0", tinyone="answer = 41\n")
    os.chmod(tmp_path, 0o755)
    volume = podman.volume()
    mounts = ("--volume", f"{volume}:/opt/app-root/state", "--volume", f"{tmp_path}:/given:ro")
    first = viewer(podman, image, *mounts)
    password = first.exec("ipython-builder", "password").stdout
    assert len(password) > 20
    mode = first.exec("stat", "-c", "%a %u", "/opt/app-root/state/password").stdout
    assert mode.split() == ["600", "1000770000"]
    assert password.strip() not in first.logs
    install = "%pip install --no-index /given/tinyone-1.0-py3-none-any.whl"
    run_cells(first, tmp_path, install, "import tinyone; tinyone.answer")
    first.rm()
    second = viewer(podman, image, *mounts)
    assert second.exec("ipython-builder", "password").stdout == password
    assert run_cells(second, tmp_path, "import tinyone; tinyone.answer") == ["41"]
    second.rm()
    # Without a volume there is another password, and what is installed goes with the container.
    third = viewer(podman, image, "--volume", f"{tmp_path}:/given:ro")
    assert third.exec("ipython-builder", "password").stdout != password
    said = run_cells(third, tmp_path, install, "import tinyone; tinyone.answer")
    assert said[-1] == "41"
    third.rm()


def test_what_kubernetes_says_of_services_is_harmless(podman: Engine, image: str) -> None:
    links = {"PORT": "tcp://10.0.0.1:8888", "SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8888"}
    names = ("JUPYTER", "JUPYTERLAB", "IPYTHON", "IPCONTROLLER_TT", "IPYTHON_BUILDER", "NOTEBOOK")
    env = {f"{name}_{key}": value for name in names for key, value in links.items()}
    made = viewer(podman, image, **env)
    assert "8080" in made.logs
    made.rm()


def test_a_password_of_ones_own(podman: Engine, image: str, tmp_path: Path) -> None:
    with containers.secret(podman, "correct horse\n") as name:
        where = f"{name},target=/run/secrets/ipython-user-password,uid=0,gid=0,mode=0440"
        made = viewer(podman, image, "--secret", where)
        assert made.exec("ipython-builder", "password").stdout == "correct horse\n"
        assert "correct horse" not in made.logs
        made.rm()


def test_notebooks_go_to_an_empty_volume_once(podman: Engine, image: str) -> None:
    volume = podman.volume()
    mount = ("--volume", f"{volume}:/work:U")
    listing = ("ls", "-A", "--ignore=.ipython-builder-image.json", "/work")
    first = viewer(podman, image, *mount, IPYTHON_NOTEBOOK_DIR="/work")
    assert first.exec(*listing).stdout.split() == ["cluster.ipynb", "helpers.py"]
    first.exec("sh", "-c", "echo mine > /work/helpers.py; rm /work/cluster.ipynb")
    first.rm()
    second = viewer(podman, image, *mount, IPYTHON_NOTEBOOK_DIR="/work")
    assert second.exec(*listing).stdout.split() == ["helpers.py"]
    assert second.exec("cat", "/work/helpers.py").stdout == "mine\n"
    second.rm()


def test_a_folder_of_notebooks_that_cannot_be_written_to(podman: Engine, image: str) -> None:
    volume = podman.volume()
    podman.run(image, "true", options=("--user", "0", "--volume", f"{volume}:/work"))
    options = (
        *LIMITS,
        "--network",
        "none",
        "--volume",
        f"{volume}:/work",
        "--env",
        "IPYTHON_NOTEBOOK_DIR=/work",
    )
    said = podman.run(image, options=options, check=False)
    assert said.rc == 1
    assert "/work" in said.stderr
    assert "IPYTHON_NOTEBOOK_DIR" in said.stderr.splitlines()[-1]
