"""A Kubernetes for the tests: the node that this run's processes share, and namespaces of a test's own.

A pytest plugin. What is missing is named: on somebody's machine the test is skipped, with CI=true it fails. The node
is started for whoever comes first and ends with the last test process that uses it (`tests.daemons`). A test that
takes one of these fixtures is marked `container` and `slow` by itself, because `podman` has its images.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import daemons
from tests.conftest import CACHE, Said, missing, require
from tests.daemons import locked
from tests.engine import Engine
from tests.engines import Registry, registry_at
from tests.kubernetes import configuration, node, openshift, programs
from tests.kubernetes.place import Place

# What the node takes from the machine; the packages are in the Makefile.
NEEDED = ("etcd", "containerd", "ctr", "runc", "ip", "iptables", "unshare", "mount")
MAKERS = "deployments,statefulsets,daemonsets,jobs,cronjobs,replicasets,replicationcontrollers"  # of pods
START = 180  # seconds; it takes ten where nothing else runs


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first makes the programs, which is longer than a test may take."""
    for item in items:
        if "kubernetes" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Project:
    """A namespace as OpenShift would make it.

    Attributes:
        name: of the namespace.
        user: the first user and the first group of its range, which its pods get.
    """

    name: str
    user: int


@dataclass(frozen=True)
class Kubernetes:
    """A Kubernetes of one node.

    Attributes:
        place: where the node is; `place.host` is this machine as pods see it, `place.address` where node ports are.
            Pods and services have their addresses on this machine too.
        podman: the engine that has the images.
    """

    place: Place
    podman: Engine

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.place.kubeconfig

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment, with this cluster as the one that is used, and its kubectl first on PATH."""
        direct = ",".join(filter(None, (os.environ.get("NO_PROXY"), self.place.network, self.place.address)))
        path = f"{self.place.programs}:{os.environ.get('PATH', os.defpath)}"
        ours = {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "NO_PROXY": direct, "no_proxy": direct}
        return os.environ | ours

    def kubectl(
        self, *words: str | Path, stdin: str | None = None, check: bool = True, timeout: float | None = None
    ) -> Said:
        """Run kubectl to its end. A failure fails the test, unless `check` is false."""
        done = subprocess.run(
            [self.place.programs / "kubectl", *words],
            env=self.environ,
            cwd="/",
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        said = Said(done.returncode, done.stdout, done.stderr)
        if check and said.rc:
            what = " ".join(map(str, words))
            pytest.fail(f"kubectl {what} ended with {said.rc}:\n{said.stdout}\n{said.stderr}")
        return said

    def apply(self, namespace: str, *objects: dict[str, Any]) -> None:
        """Have these objects in a namespace."""
        content = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--namespace", namespace, "--filename", "-", stdin=json.dumps(content))

    def get(self, namespace: str, *what: str) -> Any:
        """An object of a namespace, or a list of them."""
        return self.kubectl("get", "--namespace", namespace, "--output", "json", *what).json

    def ready(self, namespace: str, *what: str, seconds: float = 120) -> None:
        """Wait until pods, named or selected, are ready; if they are not, what is known of them is shown."""
        words = ["wait", "--namespace", namespace, "--for=condition=Ready", f"--timeout={seconds}s"]
        said = self.kubectl(*words, *what, check=False)
        if said.rc:
            pytest.fail(f"{' '.join(what)}: {said.stderr}\n{self.story(namespace)}")

    def story(self, namespace: str) -> str:
        """What happened in a namespace, for the message of a test that fails."""
        told = []
        for words in (["get", "all,pvc", "--output=wide"], ["events"]):
            told.append(self.kubectl(*words, "--namespace", namespace, check=False).stdout)
        for pod in self.get(namespace, "pods")["items"]:
            name = pod["metadata"]["name"]
            words = ["logs", "--namespace", namespace, "--all-containers", "--prefix", "--tail=50", name]
            said = self.kubectl(*words, check=False)
            told.append(f"-- the log of {name}:\n{said.stdout}{said.stderr}")
        return "\n".join(told)

    def load(self, image: str) -> str:
        """Have an image of podman's in the node too, by the same name, which is given back.

        Pods that use it have the pull policy ``IfNotPresent`` or ``Never``: there is nowhere to pull from.
        """
        found = self.podman.inspect(image)
        name: str | None = next((one for one in found["RepoTags"] if one in (image, f"{image}:latest")), None)
        if name is None:
            pytest.fail(f"{image} is no full name of an image, as {found['RepoTags']} are")
        known = self.place.runtime / "images" / quote(name, safe="")
        with locked(known.with_suffix(".lock")):
            if not known.exists() or known.read_text() != found["Id"]:
                save = [self.podman.program, "save", "--quiet", "--format", "docker-archive", name]
                words = [
                    "ctr",
                    "--address",
                    str(self.place.socket),
                    "--namespace",
                    "k8s.io",
                    "images",
                    "import",
                ]
                with subprocess.Popen(save, env=self.podman.environ, stdout=subprocess.PIPE) as saved:
                    done = subprocess.run(
                        [*words, "-"], stdin=saved.stdout, capture_output=True, text=True, check=False
                    )
                if done.returncode or saved.returncode:
                    pytest.fail(f"{name} did not get into the node:\n{done.stdout}{done.stderr}")
                known.write_text(found["Id"])
        return name

    @contextmanager
    def registry(self, folder: Path) -> Iterator[Registry]:
        """A registry that the node reaches, and pulls from without TLS."""
        with registry_at(self.place.host, folder) as found:
            known = self.place.registries / found.address
            known.mkdir(parents=True, exist_ok=True)
            url = f"http://{found.address}"
            (known / "hosts.toml").write_text(
                f'server = "{url}"\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\n'
            )
            yield found

    @contextmanager
    def namespace(
        self, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None
    ) -> Iterator[str]:
        """A new namespace that allows what ``restricted`` does; at the end it goes, as `remove` says."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        meta = {
            "name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"} | (labels or {}),
            "annotations": annotations or {},
        }
        content = {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
        self.kubectl("create", "--filename", "-", stdin=json.dumps(content))
        try:
            # Pods are refused before it is there.
            words = ["--namespace", name, "--for=create", "--timeout=60s", "serviceaccount/default"]
            self.kubectl("wait", *words)
            yield name
        finally:
            self.remove(name)

    def remove(self, namespace: str) -> None:
        """Remove a namespace: its pods and volumes, folders included, are gone then.

        The rest is gone five seconds later, which a cluster waits for its other API servers; nobody has to wait too.
        """
        volumes = [
            f"persistentvolume/{one['metadata']['name']}"
            for one in self.kubectl("get", "persistentvolumes", "--output", "json").json["items"]
            if (one["spec"].get("claimRef") or {}).get("namespace") == namespace
        ]
        # Pods have a second to end in. With the namespace alone they would have half a minute.
        of_it = ["delete", "--namespace", namespace, "--all", "--ignore-not-found"]
        self.kubectl(*of_it, "--wait=false", MAKERS)
        self.kubectl(*of_it, "--grace-period=1", "--timeout=120s", "pods")
        self.kubectl(*of_it, "--timeout=120s", "persistentvolumeclaims")
        self.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
        if volumes:
            self.kubectl("wait", "--for=delete", "--timeout=120s", *volumes)


@pytest.fixture(scope="session")
def kubernetes(podman: Engine, request: pytest.FixtureRequest) -> Iterator[Kubernetes]:
    """A real Kubernetes of one node."""
    if os.getuid():
        missing("a Kubernetes node, which only root can start,")
    for tool in NEEDED:
        require(tool)
    if configuration.plugins() is None:
        missing(f"the CNI plugin ptp (in {' '.join(configuration.PLUGINS)})")
    if not (shutil.which("catatonit") or Path("/usr/libexec/podman/catatonit").exists()):
        missing("catatonit")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():  # making them takes minutes
            made = programs.made()
    except programs.NotMade as error:
        missing(str(error))

    def start(runtime: Path) -> tuple[str, list[str]]:
        return str(runtime), node.command(runtime, made)

    def answers(address: str) -> bool:
        return Path(address, "ready").exists()

    try:
        with daemons.kept(CACHE / "kubernetes", start, answers, START) as address:
            runtime = Path(address)
            place = Place(int((runtime / "number").read_text()), runtime, made)
            yield Kubernetes(place, podman)
    except daemons.NotStarted as error:
        missing(f"a Kubernetes node that starts ({error})")


@pytest.fixture
def namespace(kubernetes: Kubernetes) -> Iterator[str]:
    """A new namespace, in which pods may do what ``restricted`` allows."""
    with kubernetes.namespace() as name:
        yield name


@pytest.fixture
def project(kubernetes: Kubernetes) -> Iterator[Project]:
    """The same, and its pods get a user and an ``fsGroup``, as OpenShift gives them."""
    user = 1000000000 + openshift.SIZE * random.randrange(1, 10000)
    with kubernetes.namespace({openshift.LABEL: "true"}, openshift.ranges(user)) as name:
        yield Project(name, user)
