"""The templates on a real node, in a project whose pods get a user of its range and may do what ``restricted`` allows.

There is no OpenShift: `tests.instances` says whose work is done here. The service CA's is: its Secrets are written by
the tests, when they say so.
"""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipython_builder import cluster
from tests import containers, instances
from tests.daemons import locked
from tests.engine import Engine
from tests.engines import Images
from tests.instances import Instance, restarts
from tests.kubernetes.fixtures import Kubernetes, Project
from tests.kubernetes.place import NODE
from tests.manifests import Object
from tests.workbench import notebook, outputs, until

pytestmark = pytest.mark.timeout(900)

NOTEBOOKS = "/opt/app-root/state/notebooks"
CLIENT = "import ipyparallel as ipp; rc = ipp.Client(timeout=60)"
# Of what was given, what must be found nowhere.
PASSWORD = f"given-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def image(
    podman: Engine, builder_image: Images, kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """What a build of a repository would have made: a notebook that asks all engines, and a module beside it."""
    folder = tmp_path_factory.mktemp("repository")
    notebook(
        folder / "cluster.ipynb",
        f"{CLIENT}; rc.wait_for_engines(2, timeout=60, interactive=False); len(rc.ids)",
        "len(set(rc[:].apply_sync(lambda: __import__('socket').gethostname())))",
        "rc[:].apply_sync(lambda: __import__('helpers').answer)",
    )
    (folder / "helpers.py").write_text("answer = 41\n")
    return kubernetes.load(containers.image_with(podman, builder_image.builder, folder))


def computes(there: Instance, tmp_path: Path, user: str = "ada") -> None:
    """The notebook finds two engines, each in a pod of its own, and what the notebook has they have."""
    (tmp_path / "done.ipynb").write_text(there.run("cluster.ipynb", user))
    assert outputs(tmp_path / "done.ipynb") == ["2", "2", "[41, 41]"]


@dataclass
class There:
    """A cluster with two engines, and a notebook that was there before it.

    Attributes:
        first: the notebook's pod when it was alone; `user`, `password`, `files` and `log` are what it had then.
        waited: of the pods of the cluster before the service CA had done anything: reason -> how many.
    """

    instance: Instance
    first: Object
    user: str
    password: str
    files: set[str]
    log: str
    waited: dict[str, int]


@pytest.fixture(scope="module")
def there(kubernetes: Kubernetes, image: str) -> Iterator[There]:
    with instances.project(kubernetes) as project:
        made = Instance(kubernetes, project, image, instances.random_label(), "repository", {}, [])
        made.make("notebook")
        (first,) = made.ready("viewer")
        user = made.shell(first, "id -u; id -g")
        password = made.inside(first, "ipython-builder", "password").stdout.strip()
        files = set(made.shell(first, f"ls {NOTEBOOKS}").split())
        log = made.log(first)
        made.make("cluster")

        def refused() -> bool:
            """The kubelet has said of each of the three pods what it waits for."""
            words = ("--field-selector", "reason=FailedMount", "--output", "json")
            events = made.kubectl("get", "events", *words).json["items"]
            missing = f'secret "ipcontroller-{made.label}-key" not found'
            return len({one["involvedObject"]["name"] for one in events if missing in one["message"]}) == 3

        made.until(refused, "the cluster waits for the service CA")
        waited: dict[str, int] = {}
        for pod in made.pods("controller") + made.pods("engine"):
            (state,) = (one["state"] for one in pod["status"]["containerStatuses"])
            reason = state["waiting"]["reason"]
            waited[reason] = waited.get(reason, 0) + 1
        made.certify()
        made.settled()
        yield There(made, first, user, password, files, log, waited)


@pytest.fixture(scope="module")
def opened(there: There) -> There:
    """The same when the notebook has the key, which the kubelet brings within a minute or two; nothing restarts for it.

    Whoever ends a pod of it takes this one.
    """
    made = there.instance
    words = f"the cluster key has come: cluster {made.label}, controller at ipcontroller-{made.label}"
    made.until(lambda: words in made.log(there.first), "the notebook has the key", 240)
    now = made.pod("viewer", "ada")
    assert (now["metadata"]["uid"], restarts(now)) == (there.first["metadata"]["uid"], 0)
    return there


def test_a_notebook_alone(there: There) -> None:
    assert there.user.split() == [str(there.instance.project.user), "0"]
    assert len(there.password) >= 20, "none was given, so it has made one"
    assert there.files == {"cluster.ipynb", "helpers.py"}
    assert "cluster:  none, since there is no cluster key here" in there.log
    assert there.password not in there.log


def test_the_cluster_waits_for_the_service_ca(there: There) -> None:
    assert there.waited == {"ContainerCreating": 3}
    for pod in there.instance.pods("controller") + there.instance.pods("engine"):
        assert there.instance.shell(pod, "id -u; id -g").split() == [str(there.instance.project.user), "0"]


def test_a_secret_of_ones_own(kubernetes: Kubernetes, project: Project, image: str) -> None:
    """The service CA's key is there too, and is not taken for it."""
    values = {"IPYTHON_CLUSTER_SECRET": "mine", "IPYTHON_ENGINE_COUNT": "1"}
    made = Instance(kubernetes, project, image, instances.random_label(), "repository", values, [])
    made.make("cluster")
    made.certify()

    def everybody_says(words: str) -> None:
        def do() -> bool:
            pods = made.pods("controller") + made.pods("engine")
            return len(pods) == 2 and all(words in made.log(one) for one in pods)

        made.until(do, f"controller and engine say: {words}")

    def begin_anew() -> None:
        """Sooner than they would by themselves, who wait longer each time."""
        made.kubectl("delete", "pods", "--all", "--grace-period=1")

    nothing = "IPYTHON_CLUSTER_SECRET=mine: there is no such Secret here, or it has no entry `key`"
    everybody_says(nothing)
    kubernetes.apply(project.name, instances.secret("mine", other=secrets.token_hex(32)))
    begin_anew()
    everybody_says(nothing)
    kubernetes.apply(project.name, instances.secret("mine", key="12345"))
    begin_anew()
    everybody_says("the cluster key has 5 bytes; it needs at least 32")
    key = secrets.token_hex(32)
    kubernetes.apply(project.name, instances.secret("mine", key=key))
    begin_anew()
    made.settled(1)
    made.make("notebook")
    made.settled(1)
    assert made.python(f"{CLIENT}; print(rc[:].apply_sync(lambda: 41))") == "[41]"
    held = made.shell(made.pod("engine"), "cat /run/secrets/ipython-cluster/key")
    assert held == key


def test_an_empty_workspace(kubernetes: Kubernetes, project: Project, builder_image: Images) -> None:
    """The other two templates, whose image is the builder's; the cluster comes first."""
    image = kubernetes.load(builder_image.builder)
    values = {"IPYTHON_ENGINE_COUNT": "1"}
    made = Instance(kubernetes, project, image, instances.random_label(), "workspace", values, [])
    made.make("cluster")
    made.certify()
    made.make("notebook")
    made.settled(1)
    viewer = made.pod("viewer")
    assert made.shell(viewer, f"ls -A {NOTEBOOKS}") == ""
    assert "cluster:  none" not in made.log(viewer)
    assert made.python(f"{CLIENT}; print(rc[:].apply_sync(lambda: 41))") == "[41]"


def test_an_open_notebook_finds_its_cluster(opened: There, tmp_path: Path) -> None:
    made = opened.instance
    made.settled()
    computes(made, tmp_path)


def test_several_notebooks_at_one_cluster(there: There, tmp_path: Path) -> None:
    made = there.instance
    made.make("notebook", IPYTHON_USER_LABEL="bob", IPYTHON_USER_PASSWORD=PASSWORD)
    made.settled()
    bob = made.pod("viewer", "bob")
    assert made.inside(bob, "ipython-builder", "password").stdout.strip() == PASSWORD
    # Its viewer is asked with the password.
    computes(made, tmp_path, "bob")
    made.shell(bob, f"echo mine > {NOTEBOOKS}/bob.txt")
    assert "bob.txt" not in made.shell(made.pod("viewer", "ada"), f"ls {NOTEBOOKS}")


def test_scale(there: There) -> None:
    made = there.instance
    for count in (1, 4, 2):
        made.kubectl("scale", f"deployment/ipengine-{made.label}", f"--replicas={count}")
        made.settled(count)
        code = f"{CLIENT}; print(len(set(rc[:].apply_sync(lambda: __import__('socket').gethostname()))))"
        assert made.inside(made.pod("controller"), "python", "-c", code).stdout.strip() == str(count)


def test_each_part_is_killed(opened: There, tmp_path: Path) -> None:
    made = opened.instance
    made.settled()
    before = made.all()
    password = made.inside(made.pod("viewer", "ada"), "ipython-builder", "password").stdout
    made.shell(made.pod("viewer", "ada"), f"echo mine > {NOTEBOOKS}/helpers.py")
    made.python(f"{CLIENT}; rc[:].push(dict(kept=42), block=True)")

    def kill(pod: Object) -> None:
        made.kubectl("delete", f"pod/{pod['metadata']['name']}", "--grace-period=0", "--force")
        made.settled()
        assert pod["metadata"]["uid"] not in made.all()

    kill(made.pod("controller"))
    assert made.python(f"{CLIENT}; print(rc[:].pull('kept', block=True))") == "[42, 42]"
    kill(made.pods("engine")[0])
    kept = f"{CLIENT}; print(sorted(rc[:].apply_sync(lambda: globals().get('kept', 0))))"
    assert made.python(kept) == "[0, 42]", "the other engine is as it was"
    kill(made.pod("viewer", "ada"))
    viewer = made.pod("viewer", "ada")
    assert made.inside(viewer, "ipython-builder", "password").stdout == password
    assert made.shell(viewer, f"cat {NOTEBOOKS}/helpers.py") == "mine"
    made.inside(viewer, "cp", "/opt/app-root/src/helpers.py", f"{NOTEBOOKS}/helpers.py")
    computes(made, tmp_path)
    assert len(before.keys() - made.all().keys()) == 3
    assert all(restarts(one) == 0 for uid, one in made.all().items() if uid not in before)


def test_a_node_is_drained(opened: There, tmp_path: Path) -> None:
    """With one node there is nowhere to go: who is moved waits until it is back.

    The budget of disruptions holds the second engine until then, because the first one's successor is not there. It
    goes when that is, without anybody's help: the drain ends by itself, and half of the engines were always there.
    """
    made = opened.instance
    made.settled()
    made.shell(made.pod("viewer", "ada"), f"echo work > {NOTEBOOKS}/mine.txt")
    before = made.all()
    words = ("--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector=ipython-cluster={made.label}")
    argv = [str(made.kubernetes.place.programs / "kubectl"), "drain", NODE, *words, "--timeout=240s"]
    said = tmp_path / "said"
    fewest = 2
    # Other tests use the node too.
    with locked(made.kubernetes.place.runtime / "drained.lock"), said.open("w") as file:
        drain = subprocess.Popen(argv, env=made.kubernetes.environ, stdout=file, stderr=subprocess.STDOUT)
        try:
            held = "Cannot evict pod as it would violate the pod's disruption budget"
            until(lambda: held in said.read_text() or drain.poll() is not None, "an engine is held")
            assert held in said.read_text()
            new = until(
                lambda: [one for uid, one in made.all().items() if uid not in before], "it has a successor"
            )
            engines = made.pods("engine")
            made.kubectl("uncordon", NODE)
            assert {one["status"]["phase"] for one in new} == {"Pending"}
            assert sum(one["metadata"]["uid"] in before for one in engines) == 1
            while drain.poll() is None:
                fewest = min(fewest, sum(map(instances.is_ready, made.pods("engine"))))
        finally:
            made.kubectl("uncordon", NODE)
            drain.kill()
            drain.wait()
    assert drain.returncode == 0, said.read_text()
    assert fewest == 1
    made.settled()
    assert not before.keys() & made.all().keys()
    assert made.shell(made.pod("viewer", "ada"), f"cat {NOTEBOOKS}/mine.txt") == "work"
    computes(made, tmp_path)


def test_the_service_ca_renews_the_key(opened: There, tmp_path: Path) -> None:
    made = opened.instance
    made.settled()
    before = {uid: restarts(one) for uid, one in made.all().items()}
    roles = {uid: one["metadata"]["labels"]["ipython-role"] for uid, one in made.all().items()}
    made.certify()
    wanted = {uid: count + (roles[uid] != "viewer") for uid, count in before.items()}

    def renewed() -> bool:
        return {uid: restarts(one) for uid, one in made.all().items()} == wanted

    made.until(renewed, "controller and engines have begun anew, once, and no notebook has", 300)
    made.settled()
    computes(made, tmp_path)
    assert renewed()
    held = made.shell(made.pod("viewer", "ada"), "cat /run/secrets/ipython-cluster/tls.key")
    assert held == made.keys[-1].strip()


def test_nobody_sees_a_secret(there: There) -> None:
    """Neither in objects, nor in logs, nor in the command lines and environments of processes."""
    made = there.instance
    made.make("notebook", IPYTHON_USER_LABEL="eve", IPYTHON_USER_PASSWORD=PASSWORD)
    made.settled()
    texts = {"the given password": PASSWORD, "the made password": there.password}
    for number, text in enumerate(made.keys):
        key = cluster.read_key(text.encode())
        link = cluster.Link(made.label, key, f"ipcontroller-{made.label}", cluster.FIRST_PORT)
        texts |= {
            f"the service CA's key {number}": text,
            f"the cluster key {number}": key.hex(),
            f"the session key {number}": cluster.session_key(link),
            f"the CURVE key {number}": cluster.curve_keys(link)[1],
        }
    hidden = {what: max(text.splitlines(), key=len) for what, text in texts.items()}
    hidden |= {f"{what} in base64": base64.b64encode(text.encode()).decode() for what, text in texts.items()}

    def found(where: str) -> list[str]:
        return [what for what, text in hidden.items() if text in where]

    objects = made.kubectl("get", "all,configmap,persistentvolumeclaim,event", "--output", "yaml").stdout
    assert f"ipengine-{made.label}" in objects
    assert found(objects) == []
    looked = 0
    for pod in made.all().values():
        log = made.log(pod, "--all-containers") + made.log(pod, "--previous")
        processes = made.shell(pod, "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'")
        assert f"IPYTHON_CLUSTER_LABEL={made.label}" in processes
        assert (found(log), found(processes)) == ([], [])
        looked += bool(log)
    assert looked >= 5
    # What is looked for is what they have, or not finding it would mean nothing.
    eve = made.pod("viewer", "eve")
    folder = f"/tmp/ipython-builder/clusters/{made.label}"
    secret = made.shell(
        eve, f"cat {folder}/key /run/secrets/ipython-cluster/tls.key /run/secrets/ipython-user/password"
    )
    last = len(made.keys) - 1
    known = [f"the cluster key {last}", f"the service CA's key {last}", "the given password"]
    assert set(found(secret)) == set(known)
    owned = made.kubectl("get", "secrets", "--output", "yaml").stdout
    assert f"the service CA's key {last} in base64" in found(owned)
    assert "the given password in base64" in found(owned)
