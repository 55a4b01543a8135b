"""`--on kubernetes`, end to end: a real node, a real image, a namespace that allows what `restricted` does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ipython_builder import settings
from ipython_builder.platforms.elsewhere import Elsewhere, Elsewheres
from tests import containers
from tests.conftest import Cli, Home, missing
from tests.engine import Engine
from tests.engines import Images
from tests.kubernetes.fixtures import Kubernetes
from tests.schemas import gateway
from tests.schemas.published import NotThere
from tests.workbench import notebook, outputs, until

KINDS = "all,secrets,persistentvolumeclaims,networkpolicies,poddisruptionbudgets,ingresses,configmaps"
ROUTES = "httproutes.gateway.networking.k8s.io"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that counts the hosts of engines, and a module beside it."""
    folder = tmp_path_factory.mktemp("repository")
    notebook(
        folder / "cluster.ipynb",
        "import ipyparallel as ipp; rc = ipp.Client(timeout=60); len(rc.ids)",
        "len(set(rc[:].apply_sync(lambda: __import__('socket').gethostname())))",
        "rc[:].apply_sync(lambda: __import__('helpers').answer)",
    )
    (folder / "helpers.py").write_text("answer = 41\n")
    return folder


@pytest.fixture(scope="module")
def image(podman: Engine, builder_image: Images, kubernetes: Kubernetes, repository: Path) -> str:
    """The image of it, in the node."""
    return kubernetes.load(containers.image_with(podman, builder_image.builder, repository))


@dataclass(frozen=True)
class Place:
    """A command line whose `kubectl` finds a namespace of a real Kubernetes."""

    cli: Cli
    kubernetes: Kubernetes
    namespace: str
    image: str
    source: Path

    @property
    def environ(self) -> dict[str, str]:
        """What of the environment says where the cluster is."""
        theirs = self.kubernetes.environ
        return {name: theirs[name] for name in ("KUBECONFIG", "PATH", "NO_PROXY", "no_proxy")}

    def __call__(self, *words: str | Path, **options: Any) -> Any:
        return self.cli(*words, env=self.environ | options.pop("env", {}), **options)

    def up(self, *words: str | Path, **options: Any) -> Any:
        return self("up", self.source, "--on", "kubernetes", "--namespace", self.namespace, *words, **options)

    def there(self, label: str) -> list[str]:
        """The names of all that the namespace has of a cluster."""
        words = ("get", KINDS, "--namespace", self.namespace, "--selector", f"ipython-cluster={label}")
        return self.kubernetes.kubectl(*words, "--output", "name").stdout.split()

    def well(self, label: str, what: str) -> None:
        """Wait until it is ready; if it is not, what is known of it is shown."""
        try:
            until(lambda: self("status", label).rc == 0, what, 180)
        except AssertionError as error:
            pytest.fail(f"{error}\n{self('status', label).stdout}\n{self.kubernetes.story(self.namespace)}")

    def pods(self, label: str, role: str) -> list[str]:
        selector = f"ipython-cluster={label},ipython-role={role}"
        words = ("get", "pods", "--namespace", self.namespace, "--selector", selector, "--output", "name")
        return self.kubernetes.kubectl(*words).stdout.split()

    def images(self) -> set[str]:
        """What the namespace's pods run."""
        words = ("get", "pods", "--namespace", self.namespace)
        path = "jsonpath={.items[*].spec.containers[*].image}"
        return set(self.kubernetes.kubectl(*words, "--output", path).stdout.split())


@pytest.fixture
def place(cli: Cli, kubernetes: Kubernetes, namespace: str, image: str, repository: Path) -> Place:
    return Place(cli, kubernetes, namespace, image, repository)


def another(place: Place, tmp_path: Path) -> Place:
    """The same for another person, who has noted nothing."""
    home = tmp_path / "another"
    home.mkdir()
    environ = place.cli.home.environ | {
        name: str(home / name) for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    }
    return replace(place, cli=Cli(Home(home, settings.load(), environ)))


@pytest.mark.timeout(600)
def test_from_up_to_down(place: Place, tmp_path: Path) -> None:
    made = place.up("--label", "tt", "--user", "ada", "-n", "1", "--image", place.image, "--json", check=True)
    told = made.json
    assert told["engines"] == {"requested": 1, "registered": 1}
    assert told["namespace"] == place.namespace
    assert "port-forward service/nbviewer-ada-tt" in told["forward"]
    assert len(told["password"]) >= 20
    assert place("password", "tt").stdout.strip() == told["password"]

    assert place("scale", "tt", "6", "--json", check=True).json["engines"]["registered"] == 6
    assert len(place.pods("tt", "engine")) == 6
    state = place("scale", "tt", "2", "--json", check=True).json
    assert state["engines"] == {"requested": 2, "registered": 2, "busy": 0}
    until(lambda: len(place.pods("tt", "engine")) == 2, "the others are gone")

    done = tmp_path / "done.ipynb"
    place("run", "tt", "cluster.ipynb", "-o", done, check=True)
    assert outputs(done) == ["2", "2", "[41, 41]"]
    said = place("console", "tt", "--no-banner", "-c", "print(len(rc.ids))", check=True)
    assert said.stdout.strip() == "2"
    assert place("logs", "tt", "controller", "--last", "500").stdout.count("created hub") == 1
    assert {line.split(":")[0] for line in place("logs", "tt", "--last", "1").stdout.splitlines() if ": " in line} >= {
        "controller", "viewer", "engine-0", "engine-1",
    }  # fmt: skip

    status = place("status", "tt", "--json", check=True).json
    assert status["state"] == "ready"
    assert {one["role"] for one in status["roles"]} == {"controller", "viewer", "engine"}
    assert "ready, 2 of 2 engines registered" in place("status", "tt").stdout
    (listed,) = place("ls", "--json").json
    assert (listed["label"], listed["platform"], listed["state"]) == ("tt", "kubernetes", "ready")

    # Somebody else may look, and have a notebook of their own.
    other = another(place, tmp_path)
    assert other("status", "tt").rc == 2
    where = ("--on", "kubernetes", "--namespace", place.namespace)
    assert other("status", "tt", *where, "--json").json["engines"]["registered"] == 2
    for wrong, why in ((("-n", "1"), "scale it"), (("--image", "localhost/x:1"), "leave --image")):
        said = other.up("--label", "tt", "--user", "bob", *wrong)
        assert (said.rc, why in said.stderr) == (2, True), said.stderr
    (tmp_path / "somewhere").mkdir()
    guest = replace(other, source=tmp_path / "somewhere")  # the notebooks are the cluster's
    joined = guest.up("--label", "tt", "--user", "bob", "--json", check=True).json
    assert joined["source"] == str(place.source)
    assert joined["engines"]["registered"] == 2
    assert joined["password"] != told["password"]
    assert place("status", "tt", "--json").json["users"] == ["ada", "bob"]
    assert other("password", "tt", *where, "--user", "ada").stdout.strip() == told["password"]
    said = other("password", "tt", *where, "--user", "eve")
    assert (said.rc, "no viewer of 'eve'" in said.stderr) == (2, True)

    said = place.up("--label", "tt", "--user", "eve")
    assert (said.rc, "is that of ada" in said.stderr) == (2, True)

    # What is there already stays as it is, and another repository is refused.
    again = place.up("--label", "tt", "--json", check=True).json
    assert again["password"] == told["password"]
    assert again["engines"]["registered"] == 2
    refused = place("up", tmp_path, "--on", "kubernetes", "--label", "tt", "--image", place.image)
    assert refused.rc == 2
    assert "tt is already a cluster of" in refused.stderr

    # Who has only a notebook at it takes only that away.
    assert other.up("--label", "tt", "--json", check=True).json["user"] == "bob"
    left = other("down", "tt", "--discard", check=True)
    assert "removed the viewer of bob" in left.stderr
    assert place("status", "tt", "--json").json["users"] == ["ada"]
    assert place("status", "tt").rc == 0
    other.up("--label", "tt", "--user", "bob", check=True)

    # `down` removes ours; a notebook of somebody else is named and stays, and so does the work.
    gone = place("down", "tt", check=True)
    assert "bob" in gone.stderr
    assert "volume claim nbviewer-ada-tt" in gone.stderr
    assert all("bob" in name for name in place.there("tt") if "persistentvolumeclaim" not in name)
    other("down", "tt", "--discard", check=True)
    until(lambda: len(place.there("tt")) == 1, "what goes with deployments is gone")
    assert place.there("tt") == ["persistentvolumeclaim/nbviewer-ada-tt"]

    # The next one goes on with the work, and then nothing is left.
    back = place.up("--label", "tt", "-n", "0", "--image", place.image, "--json", check=True).json
    assert back["user"] == "ada"
    assert back["password"] == told["password"], "it is in the volume"
    place("down", "tt", "--discard", check=True)
    until(lambda: not place.there("tt"), "nothing is left")
    assert place("ls", "--json").json == []


@pytest.mark.timeout(600)
def test_parts_that_are_killed_and_an_image_that_is_renewed(place: Place, podman: Engine) -> None:
    place.up("--label", "tt", "--user", "ada", "-n", "2", "--image", place.image, check=True)
    kubectl, space = place.kubernetes.kubectl, ("--namespace", place.namespace)
    viewer = ("exec", *space, "deployment/nbviewer-ada-tt", "--")
    program = (
        "import ipyparallel as ipp, os, time\n"
        "rc = ipp.Client(timeout=60); rc.wait_for_engines(2, timeout=60, interactive=False)\n"
        "rc[:].push({'kept': 42}, block=True); open('/tmp/pushed', 'w').close()\n"
        "while not os.path.exists('/tmp/go'): time.sleep(0.1)\n"
        "print(rc[:].pull('kept', block=True), flush=True)\n"
    )
    kubectl(*viewer, "sh", "-c", f"cat > /tmp/kept.py <<'END'\n{program}END")
    # In the background of the viewer's pod: a notebook that somebody has open.
    line = "ipython-builder console tt --no-banner /tmp/kept.py > /tmp/said 2>&1 &"
    kubectl(*viewer, "sh", "-c", line)
    until(lambda: not kubectl(*viewer, "test", "-e", "/tmp/pushed", check=False).rc, "it has pushed")
    before = place.pods("tt", "controller")
    kubectl("delete", *space, *before)
    place.well("tt", "engines have registered again")
    assert place.pods("tt", "controller") != before
    kubectl(*viewer, "touch", "/tmp/go")
    until(lambda: kubectl(*viewer, "cat", "/tmp/said").stdout.strip(), "it goes on")
    assert "[42, 42]" in kubectl(*viewer, "cat", "/tmp/said").stdout, "engines keep what they have"

    engine = place.pods("tt", "engine")[0]
    kubectl("delete", *space, engine)
    until(lambda: engine not in place.pods("tt", "engine"), "it is gone")
    place.well("tt", "another one has come")

    kubectl(*viewer, "sh", "-c", "echo mine > $IPYTHON_NOTEBOOK_DIR/helpers.py")
    newer = podman.build(f"FROM {place.image}\nRUN echo 'answer = 43' > helpers.py\n", place.source, "newer")
    newer = place.kubernetes.load(newer)
    place.up("--label", "tt", "--image", newer, check=True)
    until(lambda: place.images() == {newer}, "no pod of the older one is left")
    text = kubectl(*viewer, "sh", "-c", "cat $IPYTHON_NOTEBOOK_DIR/helpers.py").stdout
    assert text == "mine\n", "a newer image does not overwrite work"

    # A key that is replaced is taken up by all, one after another, as the kubelet brings it.
    old = {one["metadata"]["name"]: one for one in place.kubernetes.get(place.namespace, "pods")["items"]}
    new = json.dumps({"data": {"key": base64.b64encode(b"ef" * 32).decode()}})
    kubectl("patch", "secret", *space, "ipcluster-tt", "--type=merge", "--patch", new)

    def renewed() -> bool:
        pods = place.kubernetes.get(place.namespace, "pods")["items"]
        counts = [one["status"]["containerStatuses"][0]["restartCount"] for one in pods]
        return sorted(counts) == [0, 1, 1, 1] and place("status", "tt").rc == 0

    until(renewed, "controller and engines have begun anew, and the viewer has not", 240)
    assert {one["metadata"]["name"] for one in place.kubernetes.get(place.namespace, "pods")["items"]} == set(
        old
    )
    words = (*viewer, "ipython-builder", "console", "tt", "--no-banner", "-c", "print(len(rc.ids))")
    # Its own mount may get the new key later than theirs.
    until(lambda: kubectl(*words, check=False).stdout.strip() == "2", "the viewer finds them", 180)


@pytest.mark.timeout(600)
def test_an_image_that_is_made_and_pushed_first(
    place: Place, podman: Engine, builder_image: Images, tmp_path: Path
) -> None:
    folder, done = tmp_path / "repository", tmp_path / "done.ipynb"
    shutil.copytree(place.source, folder)
    with place.kubernetes.registry(tmp_path / "registry") as registry:
        mine, name = replace(place, source=folder), registry.name("notebooks")
        words = (
            "--label",
            "tt",
            "-n",
            "1",
            "--image",
            name,
            "--build",
            "--builder",
            builder_image.builder,
            "--json",
        )
        env = podman.env | registry.env
        told = mine.up(*words, env=env, check=True).json
        first = told["environment"]["image"]
        assert re.fullmatch(rf"{re.escape(name)}(:latest)?@sha256:[0-9a-f]{{64}}", first)
        place("run", "tt", "cluster.ipynb", "-o", done, check=True)
        assert outputs(done) == ["1", "1", "[41]"]

        # What is built again is what runs then; the notebooks of the workspace stay.
        (folder / "helpers.py").write_text("answer = 42\n")
        second = mine.up(*words, env=env, check=True).json["environment"]["image"]
        assert second != first
        assert place("status", "tt", "--json").json["image"] == second
        until(lambda: place.images() == {second}, "no pod of the older one is left")
        for image in (first, second):
            podman("rmi", "--force", image.partition("@")[0], check=False)


def test_an_image_that_is_nowhere(place: Place) -> None:
    said = place.up("--label", "tt", "--image", "localhost/nowhere:1")
    assert said.rc == 1
    assert "its image cannot be pulled" in said.stderr
    until(lambda: not place.there("tt"), "nothing is left")
    assert place("ls", "--json").json == []


def test_a_quota_that_is_too_small(place: Place) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"pods": "2"}},
    }
    place.kubernetes.apply(place.namespace, quota)
    said = place.up("--label", "tt", "-n", "4", "--image", place.image)
    assert said.rc == 1
    assert "exceeded quota: small" in said.stderr
    assert place.there("tt") == []


def test_ctrl_c_leaves_nothing(place: Place) -> None:
    words = ("up", place.source, "--on", "kubernetes", "--namespace", place.namespace, "--label", "tt")
    running = place.cli.start(*words, "-n", "1", "--image", place.image, env=place.kubernetes.environ)
    until(lambda: len(place.there("tt")) > 5, "it has begun")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert place.there("tt") == []


@pytest.mark.parametrize(
    ("words", "rc", "message"),
    [
        (("--namespace", "nowhere"), 2, "there is no such namespace"),
        (("--context", "nowhere"), 2, "there is no such context"),
        (("--image", "localhost/NO"), 2, "write localhost/no"),
        (("--user", "u" * 40, "--label", "l" * 20), 2, "63 at most"),
        (("--port", "80"), 2, "--port has no meaning"),
        (("--fork",), 2, "--fork has no meaning"),
        (("--build", "--image", "here"), 2, "names none"),
        (("--host", "http://a.example"), 2, "is no host name"),
        (("--tls-secret", "a"), 2, "name it with --host"),
        (("--with", "six"), 2, "--with has no meaning"),
    ],
)
def test_what_cannot_be_meant(place: Place, words: tuple[str, ...], rc: int, message: str) -> None:
    said = place.up("--label", "tt", "--image", place.image, *words)
    assert (said.rc, message in said.stderr) == (rc, True), said.stderr
    assert place.there("tt") == []


def test_no_image(place: Place) -> None:
    said = place.up("--label", "tt")
    assert said.rc == 2
    assert "--image" in said.stderr


def test_who_may_not_and_who_is_nobody(place: Place, tmp_path: Path) -> None:
    kubernetes = place.kubernetes
    token = kubernetes.kubectl("create", "token", "default", "--namespace", place.namespace).stdout.strip()
    config = json.loads(kubernetes.kubectl("config", "view", "--raw", "--output", "json").stdout)
    for secret, rc, message in (
        (token, 1, "you may not do that there"),
        ("nonsense", 69, "you are not logged in"),
    ):
        file = tmp_path / f"config-{rc}"
        user = {"name": config["users"][0]["name"], "user": {"token": secret}}
        file.write_text(json.dumps(config | {"users": [user]}))
        said = place.up("--label", "tt", "--image", place.image, env={"KUBECONFIG": str(file)})
        assert (said.rc, message in said.stderr) == (rc, True), said.stderr
        assert secret not in said.stderr
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    file.write_text(json.dumps(config))
    said = place.up("--label", "tt", "--image", place.image, env={"KUBECONFIG": str(file)})
    assert (said.rc, "the cluster does not answer" in said.stderr) == (69, True), said.stderr
    assert said.stderr.count("refused") == 1, "once is enough"
    assert place("ls", "--json").json == []


def test_a_cluster_that_does_not_answer_hides_no_other(place: Place, tmp_path: Path) -> None:
    store = Elsewheres(place.cli.home.settings.state_dir / "elsewhere")
    store.save(Elsewhere("tt", "kubernetes", "ada", "repo", "", "", 0, 2, namespace="nowhere", context="c"))
    nowhere = {"KUBECONFIG": str(tmp_path / "none")}
    (listed,) = place("ls", "--json", env=nowhere).json
    assert (listed["label"], listed["state"]) == ("tt", "unknown")
    assert "unknown" in place("ls", env=nowhere).stdout
    assert place("status", "tt", env=nowhere).rc == 1
    assert place("down", "tt", env=nowhere).rc != 0


def test_a_public_host_name(place: Place) -> None:
    up = ("--label", "tt", "--user", "ada", "-n", "0", "--image", place.image)
    told = place.up(*up, "--host", "notebooks.example.org", "--tls-secret", "own", "--json", check=True).json
    assert told["url"] == "https://notebooks.example.org/"
    assert told["forward"] is None
    ingress = place.kubernetes.get(place.namespace, "ingress/nbviewer-ada-tt")
    assert ingress["spec"]["tls"] == [{"hosts": ["notebooks.example.org"], "secretName": "own"}]
    assert place("status", "tt", "--json").json["url"] == told["url"]
    told = place.up(*up, "--host", "n2.example.org", "--json", check=True).json
    assert told["url"] == "https://n2.example.org/", "the certificate is not forgotten"
    assert place("password", "tt", env={"KUBECONFIG": "/nowhere"}).rc != 0
    place("down", "tt", "--discard", check=True)
    until(lambda: not place.there("tt"), "nothing is left")


def test_two_people_at_once(place: Place, tmp_path: Path) -> None:
    other = another(place, tmp_path)
    words = (
        "--on",
        "kubernetes",
        "--namespace",
        place.namespace,
        "--label",
        "tt",
        "-n",
        "0",
        "--image",
        place.image,
    )
    running = [
        one.cli.start("up", place.source, *words, "--user", user, env=one.environ)
        for one, user in ((place, "ada"), (other, "bob"))
    ]
    said = [one.communicate(timeout=120)[1] for one in running]
    codes = sorted(one.returncode for one in running)
    assert codes in ([0, 75], [0, 0]), said
    if codes == [0, 75]:
        assert "somebody else is starting tt" in "".join(said)
    winner = place if running[0].returncode == 0 else other
    assert winner("status", "tt", "--json").json["state"] == "ready"


def test_a_public_host_name_at_a_gateway(place: Place, tmp_path: Path) -> None:
    kubernetes, space = place.kubernetes, ("--namespace", place.namespace)
    up = ("--label", "tt", "--user", "ada", "-n", "0", "--image", place.image)
    public = (*up, "--host", "notebooks.example.org")
    if kubernetes.kubectl("get", ROUTES, check=False).rc:
        said = place.up(*public, "--gateway", "front")
        assert (said.rc, "has no Gateway API" in said.stderr) == (2, True), said.stderr
        try:
            files = gateway.definitions()
        except NotThere as error:
            missing(str(error))
        for file in files:
            kubernetes.kubectl("apply", "--server-side", "--filename", file)
            words = ("wait", "--for=condition=Established", "--timeout=60s", "--filename", file)
            # At first it has no conditions at all, which `wait` takes for an error.
            until(lambda words=words: not kubernetes.kubectl(*words, check=False).rc, "it is known")  # type: ignore[misc]
    said = place.up(*public, "--gateway", "front")
    assert (said.rc, "there is no Gateway front" in said.stderr) == (2, True), said.stderr
    assert place.there("tt") == []
    listener = {
        "name": "https",
        "port": 443,
        "protocol": "HTTPS",
        "tls": {"certificateRefs": [{"name": "own"}]},
    }
    front = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "front"},
        "spec": {"gatewayClassName": "some", "listeners": [listener]},
    }
    kubernetes.apply(place.namespace, front)
    name = "nbviewer-ada-tt"

    told = place.up(*public, "--gateway", "front", "--json", check=True).json
    assert told["url"] == "https://notebooks.example.org/"
    assert kubernetes.get(place.namespace, ROUTES, name)["spec"]["parentRefs"][0]["name"] == "front"
    # What is not said again stays, and somebody else sees it too.
    assert place.up(*up, "--json", check=True).json["url"] == told["url"]
    where = ("--on", "kubernetes", "--namespace", place.namespace)
    assert another(place, tmp_path)("status", "tt", *where, "--json").json["url"] == told["url"]

    told = place.up(*up, "--host", "n2.example.org", "--json", check=True).json
    assert told["url"] == "https://n2.example.org/", "the Gateway is not forgotten"
    told = place.up(*public, "--ingress-class", "nginx", "--json", check=True).json
    assert told["url"] == "http://notebooks.example.org/"
    assert kubernetes.kubectl("get", *space, ROUTES, "--output", "name").stdout == ""
    assert (
        kubernetes.get(place.namespace, f"ingress/{name}")["spec"]["rules"][0]["host"]
        == "notebooks.example.org"
    )

    told = place.up(*up, "--host", "", "--json", check=True).json
    assert told["forward"]
    assert kubernetes.kubectl("get", *space, "ingress", "--output", "name").stdout == ""
    assert place("status", "tt", "--json").json["url"] == ""

    place.up(*public, "--gateway", f"{place.namespace}/front", check=True)
    place("down", "tt", check=True)
    assert kubernetes.kubectl("get", *space, ROUTES, "--output", "name").stdout == ""
    assert place("down", "tt").rc == 2
    place("down", "tt", *where, "--discard", check=True)
    until(lambda: not place.there("tt"), "the workspace is gone too")
