"""What a template makes, in a project of the node: the objects that a node knows, and what OpenShift would do for them.

A node has no builds, image streams and routes. So the work of three parts of OpenShift is done here:

- the image trigger: a Deployment's containers get an image where its annotation says so;
- the service CA: a Service with its annotation gets a Secret with a random key and a certificate;
- the router: nothing. Nobody enforces network policies either.
"""

from __future__ import annotations

import base64
import datetime
import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests import manifests
from tests.conftest import Said
from tests.kubernetes import openshift
from tests.kubernetes.fixtures import Kubernetes, Project
from tests.manifests import Object
from tests.workbench import until

UNKNOWN = ("ImageStream", "BuildConfig", "Route")
TRIGGERS = "image.openshift.io/triggers"
SERVING = "service.beta.openshift.io/serving-cert-secret-name"
SMALL = {
    "IPYTHON_VIEWER_MEMORY": "700Mi",
    "IPYTHON_CONTROLLER_MEMORY": "300Mi",
    "IPYTHON_ENGINE_MEMORY": "300Mi",
    "IPYTHON_USER_PASSWORD": "",
}
START = 180  # seconds in which a part is ready, where others use the processors too


@contextmanager
def project(kubernetes: Kubernetes) -> Iterator[Project]:
    """A namespace as OpenShift would make it, for as long as several tests want it."""
    user = 1000000000 + openshift.SIZE * random.randrange(1, 10000)
    with kubernetes.namespace({openshift.LABEL: "true"}, openshift.ranges(user)) as name:
        yield Project(name, user)


def random_label() -> str:
    """A cluster label that no other test on the node has."""
    return f"physics-{random.randrange(16**6):06x}"


def serving_key() -> dict[str, str]:
    """The data of a Secret as the service CA writes it: a random key, and a certificate for it."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a service")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return {
        "tls.crt": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "tls.key": text.decode(),
    }


def secret(name: str, kind: str = "Opaque", **content: str) -> Object:
    """A Secret with this content."""
    data = {entry: base64.b64encode(text.encode()).decode() for entry, text in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data}


def _give_image(thing: Object, image: str) -> None:
    """Do what the image trigger does, and have a small machine have room for it."""
    containers = thing["spec"]["template"]["spec"]["containers"]
    for one in json.loads(thing["metadata"]["annotations"][TRIGGERS]):
        path = r'spec\.template\.spec\.containers\[\?\(@\.name=="(\w+)"\)\]\.image'
        named = re.fullmatch(path, one["fieldPath"])
        assert named
        (container,) = (one for one in containers if one["name"] == named[1])
        container |= {"image": image, "imagePullPolicy": "IfNotPresent"}
        container["resources"]["requests"]["cpu"] = "10m"


@dataclass
class Instance:
    """A cluster and its notebooks in a project.

    Attributes:
        label: of the cluster.
        kind: of its templates, ``workspace`` or ``repository``.
        values: for the parameters of all its templates.
        keys: all that the service CA has written, the last one last.
    """

    kubernetes: Kubernetes
    project: Project
    image: str
    label: str
    kind: str
    values: dict[str, str]
    keys: list[str]

    def kubectl(self, verb: str, *words: str, **options: Any) -> Said:
        return self.kubernetes.kubectl(verb, "--namespace", self.project.name, *words, **options)

    # -- making --------------------------------------------------------------------------------------

    def make(self, part: str, **values: str) -> list[Object]:
        """Have the objects of a template, those of ``notebook`` or ``cluster``."""
        values = SMALL | self.values | values | {"IPYTHON_CLUSTER_LABEL": self.label}
        objects = manifests.made(f"ipython-{part}-{self.kind}", **values)
        known = [one for one in objects if one["kind"] not in UNKNOWN]
        for one in known:
            if one["kind"] == "Deployment":
                _give_image(one, self.image)
        self.kubernetes.apply(self.project.name, *known)
        return known

    def certify(self) -> None:
        """Write the Secrets that the project's Services ask the service CA for, anew if they are there."""
        for service in self.kubernetes.get(self.project.name, "services")["items"]:
            name = service["metadata"].get("annotations", {}).get(SERVING)
            if name:
                content = serving_key()
                self.keys.append(content["tls.key"])
                self.kubernetes.apply(self.project.name, secret(name, "kubernetes.io/tls", **content))

    # -- looking -------------------------------------------------------------------------------------

    def pods(self, role: str, user: str = "") -> list[Object]:
        """Those of a role that are not on their way out."""
        selector = f"ipython-cluster={self.label},ipython-role={role}" + (
            f",ipython-user={user}" * bool(user)
        )
        found = self.kubernetes.get(self.project.name, "pods", "--selector", selector)["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def pod(self, role: str, user: str = "") -> Object:
        """The only one of a role."""
        (found,) = self.pods(role, user)
        return found

    def all(self) -> dict[str, Object]:
        """The pods of the cluster and its notebooks by what makes each the one that it is."""
        roles = ("controller", "engine", "viewer")
        return {one["metadata"]["uid"]: one for role in roles for one in self.pods(role)}

    def inside(self, pod: Object, *command: str, check: bool = True) -> Said:
        """What a command says in a pod."""
        return self.kubectl("exec", pod["metadata"]["name"], "--", *command, check=check)

    def shell(self, pod: Object, line: str) -> str:
        return self.inside(pod, "sh", "-c", line).stdout.strip()

    def log(self, pod: Object, *words: str) -> str:
        return self.kubectl("logs", pod["metadata"]["name"], *words, check=False).stdout

    def registered(self) -> int:
        """How many engines the controller says that it has; -1 where it says nothing."""
        pods = self.pods("controller")
        if len(pods) != 1 or not is_ready(pods[0]):
            return -1
        said = self.inside(pods[0], "ipython-builder", "status", "--json", check=False)
        return int(said.json["engines"]["registered"]) if said.stdout else -1

    # -- waiting -------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], what: str, seconds: float = START) -> Any:
        """Wait for something that must become true; what happened in the project is shown if it does not."""
        try:
            return until(condition, what, seconds)
        except AssertionError as problem:
            problem.add_note(self.kubernetes.story(self.project.name))
            raise

    def ready(self, role: str, user: str = "", count: int = 1) -> list[Object]:
        """Wait until there are so many of a role, all of them ready."""

        def are() -> list[Object]:
            found = self.pods(role, user)
            return found if len(found) == count and all(map(is_ready, found)) else []

        found: list[Object] = self.until(are, f"{count} {role} {user}")
        return found

    def settled(self, engines: int = 2) -> None:
        """Wait until every part is ready, and the controller has so many engines, no more and no fewer."""
        self.ready("controller")
        self.ready("engine", count=engines)
        self.until(lambda: self.registered() == engines, f"{engines} engines are registered")
        for one in self.kubernetes.get(self.project.name, "deployments")["items"]:
            if one["metadata"]["name"].startswith("nbviewer-"):
                self.ready("viewer", one["metadata"]["labels"]["ipython-user"])

    # -- using ---------------------------------------------------------------------------------------

    def python(self, code: str, user: str = "ada") -> str:
        """What a program says that runs beside a notebook."""
        return self.inside(self.pod("viewer", user), "python", "-c", code).stdout.strip()

    def run(self, notebook: str, user: str = "ada") -> str:
        """A notebook as it is after it was run in its viewer."""
        pod = self.pod("viewer", user)
        words = ("ipython-builder", "run", self.label, notebook, "-o", "/tmp/done.ipynb")
        said = self.inside(pod, *words, check=False)
        assert said.rc == 0, f"{said.stdout}\n{said.stderr}"
        return self.inside(pod, "cat", "/tmp/done.ipynb").stdout


def is_ready(pod: Object) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())
    )


def restarts(pod: Object) -> int:
    """How often its container has begun anew."""
    return int(pod["status"]["containerStatuses"][0]["restartCount"])
