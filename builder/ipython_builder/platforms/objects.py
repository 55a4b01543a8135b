"""The objects of a cluster in Kubernetes and OpenShift: what the templates make, for one image and key. Pure.

There is no second definition of the deployment. The templates are processed with what `up` was told; then
what the tool does better than a template could is put in its place: a key of its own making, one image for
all, and on a Kubernetes that is no OpenShift an Ingress for the Route.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ipython_builder import templates
from ipython_builder.errors import UsageError
from ipython_builder.platforms.public import ENTRANCES, OWN, UNSAID, Public

Object = dict[str, Any]

FIELD = "ipython-builder"  # who has made them, for server-side apply
BUILD_KINDS = ("ImageStream", "BuildConfig")
KINDS = (
    *("deployment", "service", "networkpolicy", "poddisruptionbudget", "secret", "persistentvolumeclaim"),
    "ingress",
)
OPENSHIFT_KINDS = (*KINDS[:-1], "route", "buildconfig", "imagestream")
NAME_LENGTH = 63  # of a DNS label, which host names of services and routes are made of
FS_GROUP = 1001  # where nobody gives one: any will do, files of volumes get it


@dataclass(frozen=True)
class Names:
    """What a cluster's objects are called."""

    label: str
    user: str

    @property
    def viewer(self) -> str:
        return f"nbviewer-{self.user}-{self.label}"

    @property
    def controller(self) -> str:
        return f"ipcontroller-{self.label}"

    @property
    def engine(self) -> str:
        return f"ipengine-{self.label}"

    @property
    def cluster(self) -> str:
        """Of the image stream and build, and of the Secret with the key."""
        return f"ipcluster-{self.label}"

    def of(self, kind: str) -> str:
        return {"controller": self.controller, "viewer": self.viewer, "engine": self.engine}[kind]


@dataclass(frozen=True)
class Order:
    """What the objects are made for.

    Attributes:
        image: for all containers; None: the one that the cluster's own build makes.
        built: what that build has made, if it is known; later builds take its place.
        source: the repository, for the build and as a note.
        builder: image stream tag that the build stands on, and its namespace; empty for this one.
        public: the host name, and what serves it; on OpenShift a Route, with or without one.
        binary: the build gets the notebooks sent, and fetches nothing.
        values: other parameters of the templates.
    """

    names: Names
    engines: int
    source: str
    ref: str = ""
    context_dir: str = ""
    image: str | None = None
    built: str = ""
    builder: str = "ipython-builder-scipy:latest"
    builder_namespace: str = ""
    public: Public = UNSAID
    binary: bool = False
    values: Mapping[str, str] | None = None


def mark(label: str) -> str:
    """The selector of everything that belongs to a cluster."""
    return f"ipython-cluster={label}"


def check_names(names: Names, namespace: str, *, route: bool) -> None:
    """See that host names can be made of the labels.

    Raises:
        UsageError: they are too long.
    """
    host = f"{names.viewer}-{namespace}" if route else names.viewer
    if len(host) > NAME_LENGTH:
        raise UsageError(
            f"{host} has {len(host)} characters; a part of a host name has {NAME_LENGTH} at most",
            "use a shorter --label or --user",
        )


def secret(name: str, labels: Mapping[str, str], **content: str) -> Object:
    """A Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": dict(labels)},
        "stringData": content,
    }


def cluster_of(order: Order, *, openshift: bool) -> list[Object]:
    """Controller and engines, without the key."""
    made = _process("ipython-cluster-repository", order)
    return [_fit(one, order, openshift=openshift) for one in _kept(made, order, openshift=openshift)]


def viewer_of(order: Order, *, openshift: bool) -> list[Object]:
    """The viewer of one user; its image is the cluster's."""
    made = _process("ipython-notebook-repository", order)
    kept = [one for one in made if one["kind"] not in BUILD_KINDS]
    return [_fit(one, order, openshift=openshift) for one in _kept(kept, order, openshift=openshift)]


def _process(name: str, order: Order) -> list[Object]:
    template = templates.load(name)
    values = {
        "IPYTHON_CLUSTER_LABEL": order.names.label,
        "IPYTHON_USER_LABEL": order.names.user,
        "IPYTHON_USER_PASSWORD": "",
        "IPYTHON_CLUSTER_SECRET": order.names.cluster,
        "IPYTHON_ENGINE_COUNT": str(order.engines),
        "IPYTHON_NOTEBOOK_REPOSITORY": order.source,
        "IPYTHON_NOTEBOOK_REFERENCE": order.ref,
        "IPYTHON_NOTEBOOK_CONTEXT_DIR": order.context_dir,
        "IPYTHON_BUILDER": order.builder,
        "IPYTHON_BUILDER_NAMESPACE": order.builder_namespace,
        **(order.values or {}),
    }
    known = {parameter.name for parameter in template.parameters}
    processed = templates.process(template, {name: one for name, one in values.items() if name in known})
    return copy.deepcopy(processed.objects)


def _kept(made: Iterable[Object], order: Order, *, openshift: bool) -> list[Object]:
    """Without what is not to be had there, or not needed."""
    left_out = set() if openshift else {"ImageStream", "BuildConfig"}
    if order.image is not None:
        left_out |= set(BUILD_KINDS)
    if not openshift and not order.public.host:
        left_out.add("Route")
    return [one for one in made if one["kind"] not in left_out]


def _fit(one: Object, order: Order, *, openshift: bool) -> Object:
    match one["kind"]:
        case "Deployment":
            return _deployment(one, order, openshift=openshift)
        case "Service":
            # The key is ours: the service CA has nothing to make.
            one["metadata"].get("annotations", {}).pop(_SERVING, None)
        case "BuildConfig":
            one["spec"]["triggers"] = []  # we start builds: a trigger would start another one beside ours
            if order.binary:
                one["spec"]["source"] = {"type": "Binary"}
        case "Route" if not openshift:
            return order.public.served(one)
        case "Route" if order.public.host:
            one["spec"]["host"] = order.public.host
        case "NetworkPolicy" if not openshift and one["spec"].get("ingress"):
            for rule in one["spec"]["ingress"]:
                if any("namespaceSelector" in peer for peer in rule["from"]):
                    rule["from"] = copy.deepcopy(ENTRANCES)
    return one


_SERVING = "service.beta.openshift.io/serving-cert-secret-name"
TRIGGERS = "image.openshift.io/triggers"


def _deployment(one: Object, order: Order, *, openshift: bool) -> Object:
    annotations = one["metadata"].setdefault("annotations", {})
    pod = one["spec"]["template"]["spec"]
    image = order.built if order.image is None else order.image
    if image:
        for container in pod["containers"]:
            container["image"] = image
            if image.startswith("localhost/"):
                container["imagePullPolicy"] = "IfNotPresent"  # no registry has that name
    if order.image is not None:
        annotations.pop(TRIGGERS, None)
    else:
        triggers = json.loads(annotations[TRIGGERS])
        for trigger in triggers:
            trigger["from"]["name"] = f"{order.names.cluster}:latest"  # the viewer's too
        annotations[TRIGGERS] = json.dumps(triggers)
    if not openshift:
        for name in [name for name in annotations if name.startswith("app.openshift.io/")]:
            del annotations[name]
        one["metadata"]["labels"].pop("app.openshift.io/runtime", None)
        # There it is given to every pod; without one a new volume is root's alone.
        pod["securityContext"]["fsGroup"] = FS_GROUP
        pod["securityContext"]["fsGroupChangePolicy"] = "OnRootMismatch"
    for volume in pod["volumes"]:
        if "projected" in volume:
            own = [one for one in volume["projected"]["sources"] if one["secret"]["items"][0]["key"] == "key"]
            if one["spec"]["template"]["metadata"]["labels"]["ipython-role"] != "viewer":
                own[0]["secret"].pop("optional", None)  # it is there before they are
            volume["projected"]["sources"] = own
    annotations |= {
        f"{OWN}{name}": value
        for name, value in (("source", order.source), ("ref", order.ref), ("context-dir", order.context_dir))
        if value
    }
    return one
