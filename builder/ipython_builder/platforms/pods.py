"""What Kubernetes says of a cluster's objects, as its state, and why something does not come. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ipython_builder.platforms.elsewhere import Elsewhere
from ipython_builder.platforms.objects import TRIGGERS
from ipython_builder.platforms.parts import KINDS
from ipython_builder.platforms.public import OWN

Object = Mapping[str, Any]

ROLE, USER = "ipython-role", "ipython-user"
# What a container waits for that will not come by itself; ErrImagePull is tried again first.
_HOPELESS = {
    "ImagePullBackOff": "its image cannot be pulled",
    "InvalidImageName": "its image has no such name",
    "ErrImageNeverPull": "its image is not there",
    "CreateContainerConfigError": "it cannot be configured",
    "CreateContainerError": "its container cannot be made",
    "RunContainerError": "its container cannot be started",
    "CrashLoopBackOff": "it ends again and again",
}


def labels(one: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = one["metadata"].get("labels") or {}
    return found


def noted(one: Object | None, name: str) -> str | None:
    """What we have noted on an object, if it is there."""
    if one is None:
        return None
    found: str | None = (one["metadata"].get("annotations") or {}).get(f"{OWN}{name}")
    return found


def image(deployment: Object | None) -> str:
    """What a deployment runs; empty where there is none."""
    if deployment is None:
        return ""
    found: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return found.strip()  # a blank one waits for a trigger


def triggered(deployment: Object) -> bool:
    """Whether a build changes its image."""
    return TRIGGERS in (deployment["metadata"].get("annotations") or {})


@dataclass(frozen=True)
class Found:
    """The deployments and pods of one cluster."""

    deployments: Sequence[Object]
    pods: Sequence[Object]

    @classmethod
    def of(cls, objects: Iterable[Object]) -> Found:
        there = list(objects)
        return cls(
            [one for one in there if one["kind"] == "Deployment"],
            [one for one in there if one["kind"] == "Pod" and "deletionTimestamp" not in one["metadata"]],
        )

    def deployment(self, kind: str, user: str | None = None) -> Object | None:
        """The deployment of a kind, for a viewer that of this user."""
        for one in self.deployments:
            template = one["spec"]["template"]["metadata"]["labels"]
            if template.get(ROLE) == kind and (kind != "viewer" or user in (None, template.get(USER))):
                return one
        return None

    def users(self) -> list[str]:
        """Whose viewers there are."""
        found = (one["spec"]["template"]["metadata"]["labels"] for one in self.deployments)
        return sorted(one[USER] for one in found if one.get(ROLE) == "viewer")

    def of_kind(self, kind: str, user: str | None = None) -> list[Object]:
        """The pods of a kind, the oldest first."""
        mine = [one for one in self.pods if labels(one).get(ROLE) == kind]
        if kind == "viewer" and user is not None:
            mine = [one for one in mine if labels(one).get(USER) == user]
        return sorted(mine, key=lambda one: (one["metadata"].get("creationTimestamp") or "", name(one)))


def name(one: Object) -> str:
    found: str = one["metadata"]["name"]
    return found


def ready(pod: Object) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())
    )


def wants(found: Found, kind: str, user: str | None = None) -> int:
    """How many pods there shall be."""
    deployment = found.deployment(kind, user)
    return 0 if deployment is None else int(deployment["spec"].get("replicas", 1))


def arrived(found: Found, kind: str, user: str | None = None) -> bool:
    """Whether the newest pods are there and ready, and no others."""
    deployment = found.deployment(kind, user)
    if deployment is None:
        return False
    status, count = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    numbers = [status.get(one, 0) for one in ("replicas", "updatedReplicas", "readyReplicas")]
    return seen and all(number == count for number in numbers)


@dataclass(frozen=True)
class Trouble:
    """Why a part does not come.

    Attributes:
        pod: whose log may tell more; None where there is none.
        hopeless: whether waiting is of no use.
    """

    kind: str
    what: str
    pod: str | None = None
    hopeless: bool = False


def troubles(found: Found, user: str | None = None) -> list[Trouble]:
    """What keeps pods from being ready."""
    told = []
    for kind in KINDS:
        deployment = found.deployment(kind, user)
        for one in (deployment or {}).get("status", {}).get("conditions", ()):
            if one["type"] == "ReplicaFailure" and one["status"] == "True":
                told.append(Trouble(kind, f"no pod may be made: {one.get('message', '')}", hopeless=True))
        for pod in found.of_kind(kind, user):
            if not ready(pod) and (trouble := _pod(kind, pod)):
                told.append(trouble)
    return told


def _pod(kind: str, pod: Object) -> Trouble | None:
    for one in pod["status"].get("containerStatuses", ()):
        waiting = one.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason in _HOPELESS:
            ended = one.get("lastState", {}).get("terminated") or {}
            killed = ", for want of memory" if ended.get("reason") == "OOMKilled" else ""
            words = waiting.get("message") if reason != "CrashLoopBackOff" else None
            what = f"{_HOPELESS[reason]}{killed}" + (f": {words}" if words else "")
            # A Secret or a volume that is on its way is no reason to give up.
            return Trouble(kind, what, name(pod), reason != "CreateContainerConfigError")
        if reason not in (None, "ContainerCreating", "PodInitializing"):
            return Trouble(kind, f"{reason}: {waiting.get('message', '')}", name(pod))
    for one in pod["status"].get("conditions", ()):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            why = str(one.get("message", ""))
            if "unbound immediate PersistentVolumeClaims" in why:
                return Trouble(kind, "its volume claim is not bound: is there a default storage class?")
            return Trouble(kind, f"no node has room for it: {why}")
    return None


def state(made: Elsewhere, found: Found, said: Mapping[str, Any]) -> dict[str, Any]:
    """The `status` object.

    Args:
        said: the `status` object of the controller's supervisor; empty where it does not answer.
    """
    roles: list[dict[str, Any]] = []
    why = {one.pod: one for one in troubles(found)}
    for kind in KINDS:
        pods = found.of_kind(kind)
        roles += [_role(kind, number, pod, why) for number, pod in enumerate(pods)]
        if not pods and (wants(found, kind) or found.deployment(kind) is None) and kind != "engine":
            gone = found.deployment(kind) is None
            reason = "there is no deployment" if gone else "there is no pod"
            roles.append(_row(kind, 0, made.label, "stopped", 0, None, reason))
    counted = said.get("engines", {})
    engines = {
        "requested": wants(found, "engine"),
        "registered": counted.get("registered", 0),
        "busy": counted.get("busy", 0),
    }
    wrong = [
        {"what": f"{one.kind}: {one.what}", "since": None, "role": one.kind, "up": False}
        for one in troubles(found)
    ]
    wrong += said.get("wrong", [])
    return {
        "label": made.label,
        "platform": made.platform,
        "namespace": made.namespace,
        "state": _state(roles, engines, wrong, found),
        "engines": engines,
        "tasks": said.get("tasks", {}),
        "memory": None,
        "roles": roles,
        "pool": {"left_out": {}, "refused": None},
        "wrong": wrong,
        "url": made.url,
        "source": made.source,
        "commit": made.commit,
        "image": made.image or image(found.deployment("controller")),
        "users": found.users(),
        "notebooks": "/opt/app-root/state/notebooks in the workspace's volume",
    }


def unknown(made: Elsewhere, why: str) -> dict[str, Any]:
    """The `status` object of a cluster that cannot be asked."""
    first = why.splitlines()[0].rstrip(":")
    return state(made, Found((), ()), {}) | {
        "state": "unknown",
        "roles": [],
        "engines": {"requested": made.engines, "registered": 0, "busy": 0},
        "wrong": [{"what": first, "since": None, "role": "controller", "up": False}],
    }


def _state(
    roles: Sequence[Mapping[str, Any]], engines: Mapping[str, int], wrong: Sequence[Any], found: Found
) -> str:
    if not found.deployments:
        return "stopped"
    if all(one["state"] == "ready" for one in roles) and engines["registered"] == engines["requested"]:
        return "ready"
    return "failing" if any(not one["up"] for one in wrong) else "starting"


def _role(kind: str, number: int, pod: Object, why: Mapping[str | None, Trouble]) -> dict[str, Any]:
    trouble = why.get(name(pod))
    status = "ready" if ready(pod) else "failing" if trouble and trouble.hopeless else "starting"
    restarts = sum(one.get("restartCount", 0) for one in pod["status"].get("containerStatuses", ()))
    began = pod["status"].get("startTime") or pod["metadata"].get("creationTimestamp")
    since = datetime.fromisoformat(began).timestamp() if began else None
    return _row(kind, number, name(pod), status, restarts, since, trouble.what if trouble else None)


def _row(
    kind: str, number: int, name: str, status: str, restarts: int, since: float | None, reason: str | None
) -> dict[str, Any]:
    return {
        "role": kind, "id": number, "pid": None, "name": name, "state": status, "restarts": restarts,
        "since": since, "reason": reason, "memory": None,
    }  # fmt: skip
