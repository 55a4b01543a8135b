"""The node of `tests.kubernetes` does what the tests of our own things take for granted."""

from __future__ import annotations

import functools
import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import small_builder
from tests.engine import Engine
from tests.kubernetes.fixtures import Kubernetes, Project
from tests.workbench import until

# What `restricted` asks for, in so many words; the user is the project's.
POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
Pod = Callable[..., dict[str, Any]]


@pytest.fixture
def pod(kubernetes: Kubernetes, base_image: str) -> Pod:
    """A pod that runs a line of sh, and has a folder ``/tmp``."""
    image = kubernetes.load(base_image)

    def describe(name: str, line: str, security: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        container = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", line],
            "securityContext": CONTAINER,
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *more.pop("mounts", [])],
        }
        spec = {
            "securityContext": POD | (security or {}),
            "containers": [container | more.pop("container", {})],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *more.pop("volumes", [])],
            **more,
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": spec,
        }

    return describe


def test_a_pod_is_somebody_of_group_0_and_writes_nowhere(
    kubernetes: Kubernetes, project: Project, pod: Pod
) -> None:
    kubernetes.apply(project.name, pod("one", "sleep 3600"))
    kubernetes.ready(project.name, "pod/one")

    def says(line: str) -> str:
        words = ["exec", "--namespace", project.name, "one", "--", "sh", "-c", line]
        return kubernetes.kubectl(*words).stdout.strip()

    assert says("id -u; id -g; id -G").split("\n") == [str(project.user), "0", f"0 {project.user}"]
    assert says("touch /opt/x 2>&1 || true").endswith("Read-only file system")
    assert says("touch /tmp/x && stat -c %g /tmp/x") == str(project.user)
    status = says("cat /proc/1/status")
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_what_is_not_restricted_is_refused(
    kubernetes: Kubernetes, namespace: str, project: Project, pod: Pod
) -> None:
    def refused(where: str, thing: dict[str, Any]) -> str:
        words = ["create", "--namespace", where, "--filename", "-"]
        said = kubernetes.kubectl(*words, stdin=json.dumps(thing), check=False)
        assert said.rc
        return said.stderr

    said = refused(namespace, pod("root", "id", container={"securityContext": {}}))
    assert 'violates PodSecurity "restricted:latest"' in said
    range_of_users = f"must be in the range {project.user}/10000"
    assert f"runAsUser {range_of_users}" in refused(project.name, pod("own", "id", {"runAsUser": 1001}))
    assert f"fsGroup {range_of_users}" in refused(project.name, pod("own", "id", {"fsGroup": 1001}))
    one_container = {"container": {"securityContext": CONTAINER | {"runAsUser": 1001}}}
    assert f"of a container {range_of_users}" in refused(project.name, pod("own", "id", **one_container))


def test_a_service_has_a_name_in_pods_and_an_address_outside(
    kubernetes: Kubernetes, project: Project, pod: Pod
) -> None:
    web = pod("web", "echo hello > /tmp/x; cd /tmp; exec python3 -m http.server 8080")
    web["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/x", "port": 8080}}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front"},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubernetes.apply(project.name, web, service, pod("client", "sleep 3600"))
    kubernetes.ready(project.name, "pod/web", "pod/client")

    ask = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=20).read().decode())"

    def says(client: str, name: str) -> bool:
        words = ["exec", "--namespace", project.name, client, "--", "python3", "-c", ask, f"http://{name}/x"]
        return kubernetes.kubectl(*words, check=False).stdout == "hello\n"

    for client in ("client", "web"):  # its own service too
        for name in ("front", f"front.{project.name}.svc.cluster.local"):
            # A service knows of a pod a moment after the pod is ready.
            until(functools.partial(says, client, name), f"{client} reaches {name}", 20)

    spec = kubernetes.get(project.name, "service/front")["spec"]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for address in (f"{kubernetes.place.address}:{spec['ports'][0]['nodePort']}", spec["clusterIP"]):
        with direct.open(f"http://{address}/x", timeout=20) as answer:
            assert answer.read() == b"hello\n"


def test_a_claim_gets_a_folder_that_its_pods_write_to_and_that_goes_with_it(
    kubernetes: Kubernetes, project: Project, pod: Pod
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "work"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    uses = {
        "mounts": [{"name": "work", "mountPath": "/work"}],
        "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "work"}}],
    }
    kubernetes.apply(project.name, claim, pod("writer", "echo kept > /work/x && sleep 3600", **uses))
    kubernetes.ready(project.name, "pod/writer")
    words = ["exec", "--namespace", project.name]
    assert kubernetes.kubectl(*words, "writer", "--", "stat", "-c", "%u %g", "/work/x", "/work").stdout == (
        f"{project.user} {project.user}\n0 {project.user}\n"
    )
    name = kubernetes.get(project.name, "pvc/work")["spec"]["volumeName"]
    folder = kubernetes.place.volumes / name
    assert (folder / "x").read_text() == "kept\n"

    kubernetes.kubectl("delete", "--namespace", project.name, "--grace-period=1", "pod/writer")
    kubernetes.apply(project.name, pod("reader", "grep kept /work/x && sleep 3600", **uses))
    kubernetes.ready(project.name, "pod/reader")
    kubernetes.remove(project.name)
    assert not folder.exists()
    assert kubernetes.kubectl("get", f"persistentvolume/{name}", check=False).rc
    until(
        lambda: kubernetes.kubectl("get", f"namespace/{project.name}", check=False).rc,
        "the namespace is gone",
    )


def test_the_machine_sees_a_link_and_nothing_else(kubernetes: Kubernetes, namespace: str, pod: Pod) -> None:
    kubernetes.apply(namespace, pod("one", "sleep 3600", {"runAsUser": 1234}))
    kubernetes.ready(namespace, "pod/one")
    place = kubernetes.place
    assert str(place.runtime) not in Path("/proc/self/mounts").read_text()
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    assert place.services.removesuffix("0/20") not in rules
    links = {one.name for one in Path("/sys/class/net").iterdir()}
    assert place.name in links
    assert "services" not in links


def test_an_image_of_podman_is_there_by_its_name(
    kubernetes: Kubernetes, podman: Engine, namespace: str, pod: Pod, tmp_path: Path
) -> None:
    folder = small_builder.write(tmp_path / "small")
    containerfile = (folder / "Containerfile").read_text()
    (folder / "root/x").write_text("first\n")
    name = podman.build(containerfile, folder)
    told = []
    for number in range(2):
        used = {"image": kubernetes.load(name), "command": ["cat", "/x"]}
        thing = pod(f"one-{number}", "", {"runAsUser": 1234}, container=used, restartPolicy="Never")
        kubernetes.apply(namespace, thing)
        waits = ["--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]
        kubernetes.kubectl("wait", "--namespace", namespace, f"pod/one-{number}", *waits)
        told.append(kubernetes.kubectl("logs", "--namespace", namespace, f"one-{number}").stdout)
        (folder / "root/x").write_text("second\n")
        podman("build", "--quiet", "--tag", name, folder)
    assert told == ["first\n", "second\n"]
