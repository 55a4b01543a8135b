"""What is made of Kubernetes' words: states and troubles, from objects as an API server gives them."""

from __future__ import annotations

from typing import Any

import pytest

from ipython_builder.platforms import pods
from ipython_builder.platforms.elsewhere import Elsewhere
from ipython_builder.platforms.parts import KINDS
from ipython_builder.platforms.pods import Found

MADE = Elsewhere("tt", "kubernetes", "me", "repo", "", "", 0, 2, namespace="lab")


def deployment(kind: str, count: int = 1, ready: int | None = None, **more: Any) -> dict[str, Any]:
    labels = {"ipython-cluster": "tt", "ipython-role": kind} | more.pop("labels", {})
    ready = count if ready is None else ready
    containers = [{"image": "registry.example.org/me/notebooks"}]
    return {
        "kind": "Deployment",
        "metadata": {"name": f"{kind}-tt", "generation": 2},
        "spec": {"replicas": count, "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}},
        "status": {
            "observedGeneration": 2, "replicas": count, "updatedReplicas": count, "readyReplicas": ready,
        } | more,
    }  # fmt: skip


def pod(kind: str, number: int = 0, *, ready: bool = True, **status: Any) -> dict[str, Any]:
    labels = {"ipython-cluster": "tt", "ipython-role": kind, "ipython-user": "me"}
    moment = f"2026-01-01T00:00:{number:02}Z"
    return {
        "kind": "Pod",
        "metadata": {"name": f"{kind}-{number}", "labels": labels, "creationTimestamp": moment},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "startTime": moment,
            "containerStatuses": [{"restartCount": number, "state": {}}],
        } | status,
    }  # fmt: skip


def all_well() -> list[dict[str, Any]]:
    parts = [deployment("controller"), deployment("engine", 2)]
    parts += [deployment("viewer", labels={"ipython-user": "me"})]
    return [*parts, pod("controller"), pod("viewer"), pod("engine", 0), pod("engine", 1)]


SAID = {"engines": {"requested": 2, "registered": 2, "busy": 1}, "tasks": {"done": 3}, "wrong": []}


def test_a_cluster_that_is_well() -> None:
    found = Found.of(all_well())
    state = pods.state(MADE, found, SAID)
    assert state["image"] == "registry.example.org/me/notebooks", "where nothing is noted of it"
    assert (state["state"], state["engines"]) == ("ready", {"requested": 2, "registered": 2, "busy": 1})
    assert [(one["role"], one["id"], one["state"], one["restarts"]) for one in state["roles"]] == [
        ("controller", 0, "ready", 0), ("viewer", 0, "ready", 0),
        ("engine", 0, "ready", 0), ("engine", 1, "ready", 1),
    ]  # fmt: skip
    assert state["roles"][0]["since"] == 1767225600.0
    assert state["users"] == ["me"]
    assert all(pods.arrived(found, kind) for kind in KINDS)


def test_engines_that_the_controller_does_not_know_yet() -> None:
    few = SAID | {"engines": {"registered": 1}}
    assert pods.state(MADE, Found.of(all_well()), few)["state"] == "starting"
    assert pods.state(MADE, Found.of(all_well()), {})["state"] == "starting"


def test_nothing_there_is_stopped() -> None:
    state = pods.state(MADE, Found.of([]), {})
    assert state["state"] == "stopped"
    assert {one["reason"] for one in state["roles"]} == {"there is no deployment"}


def test_a_rollout_under_way_has_not_arrived() -> None:
    old = deployment("engine", 2, replicas=3)
    assert not pods.arrived(Found.of([old]), "engine")
    unseen = deployment("engine", 2, observedGeneration=1)
    assert not pods.arrived(Found.of([unseen]), "engine")
    assert pods.arrived(Found.of([deployment("engine", 0)]), "engine")


def test_pods_that_are_going_count_no_more() -> None:
    going = pod("engine")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert Found.of([going]).of_kind("engine") == []


@pytest.mark.parametrize(
    ("status", "words", "hopeless"),
    [
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}},
            "its image cannot be pulled: no such host",
            True,
        ),
        ({"waiting": {"reason": "ErrImagePull", "message": "x"}}, "ErrImagePull: x", False),
        ({"waiting": {"reason": "InvalidImageName", "message": "x"}}, "its image has no such name: x", True),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "k" not found'}},
            'it cannot be configured: secret "k" not found',
            False,
        ),
        ({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, "it ends again and again", True),
    ],
)
def test_containers_that_do_not_start(status: dict[str, Any], words: str, hopeless: bool) -> None:
    one = pod("engine", ready=False, containerStatuses=[{"restartCount": 0, "state": status}])
    found = Found.of([deployment("engine", 1, 0), one])
    assert pods.troubles(found) == [pods.Trouble("engine", words, "engine-0", hopeless)]
    state = pods.state(MADE, found, {})
    assert state["wrong"][0]["what"] == f"engine: {words}"
    assert (state["roles"][-1]["state"] == "failing") == hopeless


def test_killed_for_want_of_memory() -> None:
    crash = {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {"terminated": {"reason": "OOMKilled"}}
    one = pod("engine", ready=False, containerStatuses=[{"state": crash, "lastState": last}])
    assert "for want of memory" in pods.troubles(Found.of([deployment("engine", 1, 0), one]))[0].what


def test_no_node_has_room() -> None:
    conditions = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu."}]
    one = pod("engine", ready=False, conditions=conditions, containerStatuses=[])
    (trouble,) = pods.troubles(Found.of([deployment("engine", 1, 0), one]))
    assert trouble.what == "no node has room for it: 0/3 nodes: Insufficient cpu."
    assert not trouble.hopeless, "a node may come"


def test_a_volume_that_nobody_makes() -> None:
    words = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    conditions = [{"type": "PodScheduled", "status": "False", "message": words}]
    one = pod("viewer", ready=False, conditions=conditions, containerStatuses=[])
    (trouble,) = pods.troubles(Found.of([deployment("viewer", 1, 0), one]))
    assert "default storage class" in trouble.what


def test_a_cluster_that_cannot_be_asked() -> None:
    state = pods.unknown(MADE, "deployments cannot be looked at: the cluster does not answer:\n  x")
    assert (state["state"], state["engines"]["requested"]) == ("unknown", 2)
    assert state["wrong"][0]["what"] == "deployments cannot be looked at: the cluster does not answer"


def test_pods_that_may_not_be_made() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}
    (trouble,) = pods.troubles(Found.of([deployment("engine", 1, 0, conditions=[failure])]))
    assert (trouble.what, trouble.hopeless) == ("no pod may be made: exceeded quota: small", True)


def test_viewers_of_several_users() -> None:
    both = [deployment("viewer", labels={"ipython-user": user}) for user in ("you", "me")]
    found = Found.of(both)
    assert found.users() == ["me", "you"]
    assert found.deployment("viewer", "you") is both[0]
    assert found.deployment("viewer", "nobody") is None
