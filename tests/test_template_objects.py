"""The templates and their objects keep the rules of `tests.restricted`, and each rule finds what breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests import manifests, restricted

Object = dict[str, Any]
Change = Callable[["Lab"], object]

KINDS = ("workspace", "repository")
LONG = "c" + "-" * 38 + "9"  # 40, the longest label of a cluster
LABELS = {
    "usual": {},
    "the same twice": {"IPYTHON_CLUSTER_LABEL": "ada", "IPYTHON_USER_LABEL": "ada"},
    # A notebook's name is a label of a host name too: 63 with both, so 53 for the two.
    "longest": {"IPYTHON_CLUSTER_LABEL": LONG, "IPYTHON_USER_LABEL": "u" * 13},
    "shortest": {"IPYTHON_CLUSTER_LABEL": "0", "IPYTHON_USER_LABEL": "1"},
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("kind", KINDS)
def test_objects(kind: str, labels: dict[str, str]) -> None:
    assert restricted.of_objects(manifests.both(kind, **labels)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_several_in_one_project(kind: str) -> None:
    """Two notebooks on one cluster, and another cluster with a notebook of the same person."""
    grace = {"IPYTHON_USER_LABEL": "grace"}
    other = {"IPYTHON_CLUSTER_LABEL": "biology"}
    objects = manifests.both(kind) + manifests.made(f"ipython-notebook-{kind}", **grace)
    assert restricted.of_objects(objects + manifests.both(kind, **other)) == []


@pytest.mark.parametrize("name", manifests.NAMES)
def test_templates(name: str) -> None:
    assert restricted.of_template(manifests.template(name)) == []
    assert manifests.template(name)["metadata"]["name"] == name


def test_what_makes_the_builder_images() -> None:
    """It belongs to no cluster, and so has none of the labels; the rest it keeps."""
    found = restricted.of_objects(manifests.builder())
    assert {one.rule for one in found} == {"labels"}
    pushed = {
        one["spec"]["output"]["to"]["name"] for one in restricted.of_kind(manifests.builder(), "BuildConfig")
    }
    assert pushed == {"ipython-builder:latest", "ipython-builder-scipy:latest"}
    for name in manifests.NAMES:
        given = {one["name"]: one.get("value") for one in manifests.template(name)["parameters"]}
        assert given["IPYTHON_BUILDER"] in pushed


# -- a workspace's templates and a repository's are the same but for what they are of --------------

TRIGGERS = "image.openshift.io/triggers"
# What only a repository's has.
NOTES = ("app.openshift.io/vcs-uri", "app.openshift.io/vcs-ref")
PARAMETERS = (
    *("IPYTHON_NOTEBOOK_REPOSITORY", "IPYTHON_NOTEBOOK_REFERENCE", "IPYTHON_NOTEBOOK_CONTEXT_DIR"),
    "IPYTHON_BUILD_INCREMENTAL",
)
BUILD = ("ImageStream", "BuildConfig")
# Whose words differ, and nothing else of it.
DESCRIBED = "IPYTHON_BUILDER"


@pytest.mark.parametrize("part", ["notebook", "cluster"])
def test_objects_of_both_kinds_are_the_same(part: str) -> None:
    workspace, repository = (manifests.template(f"ipython-{part}-{kind}")["objects"] for kind in KINDS)
    name = {"notebook": "nbviewer-${IPYTHON_USER_LABEL}-${IPYTHON_CLUSTER_LABEL}"}.get(
        part, "ipcluster-${IPYTHON_CLUSTER_LABEL}"
    )
    own = [one for one in repository if one["kind"] in BUILD]
    assert [(one["kind"], one["metadata"]["name"]) for one in own] == [(kind, name) for kind in BUILD]
    for one in restricted.of_kind(repository, "Deployment"):
        notes = one["metadata"]["annotations"]
        assert [notes.pop(note, None) is not None for note in NOTES] == [True, True]
        # The image of the build in place of the builder's.
        built = f'"name":"{name}:latest"'
        assert built in notes[TRIGGERS]
        notes[TRIGGERS] = notes[TRIGGERS].replace(
            built, '"name":"${IPYTHON_BUILDER}","namespace":"${IPYTHON_BUILDER_NAMESPACE}"'
        )
    assert [one for one in repository if one not in own] == workspace


@pytest.mark.parametrize("part", ["notebook", "cluster"])
def test_forms_of_both_kinds_are_the_same(part: str) -> None:
    workspace, repository = (manifests.template(f"ipython-{part}-{kind}") for kind in KINDS)
    names = [one["name"] for one in repository["parameters"]]
    assert [one for one in names if one in PARAMETERS] == list(PARAMETERS)
    own = [one for one in repository["parameters"] if one["name"] not in PARAMETERS]
    for one in [*own, *workspace["parameters"]]:
        if one["name"] == DESCRIBED:
            del one["description"]
    assert own == workspace["parameters"]
    words = {"metadata", "message", "parameters", "objects"}
    assert {k: v for k, v in workspace.items() if k not in words} == {
        k: v for k, v in repository.items() if k not in words
    }
    differ = {"openshift.io/display-name", "description", "openshift.io/long-description"}
    cards = [one["metadata"]["annotations"] for one in (workspace, repository)]
    assert {note for note in cards[0] | cards[1] if cards[0].get(note) != cards[1].get(note)} == differ


def test_what_notebooks_and_clusters_ask_for_is_the_same() -> None:
    """One question, one wording: a form's fields are known from the other one."""
    for kind in KINDS:
        notebook, cluster = (
            manifests.template(f"ipython-{part}-{kind}")["parameters"] for part in ("notebook", "cluster")
        )
        known = {one["name"]: one for one in notebook}
        for one in cluster:
            if one["name"] in known:
                free = {"description"} if one["name"] in (DESCRIBED, "IPYTHON_NOTEBOOK_REPOSITORY") else set()
                assert {k: v for k, v in one.items() if k not in free} == {
                    k: v for k, v in known[one["name"]].items() if k not in free
                }


# -- each rule finds what breaks it, and it alone does ---------------------------------------------


class Lab:
    """The objects of a notebook and a cluster, to be broken."""

    def __init__(self) -> None:
        self.objects = manifests.both("repository")

    def find(self, kind: str, name: str) -> Object:
        return restricted.named(self.objects, kind)[name]  # type: ignore[return-value]

    def deployment(self, role: str = "engine") -> Object:
        return self.find("Deployment", "nbviewer-ada-physics" if role == "viewer" else f"ip{role}-physics")

    def pod(self, role: str = "engine") -> Object:
        return self.deployment(role)["spec"]["template"]["spec"]

    def container(self, role: str = "engine") -> Object:
        return self.pod(role)["containers"][0]

    def security(self, role: str = "engine") -> Object:
        return self.container(role)["securityContext"]

    def volume(self, name: str, role: str = "engine") -> Object:
        return next(one for one in self.pod(role)["volumes"] if one["name"] == name)

    @property
    def service(self) -> Object:
        return self.find("Service", "nbviewer-ada-physics")

    @property
    def route(self) -> Object:
        return self.find("Route", "nbviewer-ada-physics")

    @property
    def build(self) -> Object:
        return self.find("BuildConfig", "nbviewer-ada-physics")

    @property
    def budget(self) -> Object:
        return self.find("PodDisruptionBudget", "ipengine-physics")

    def policy(self, role: str) -> Object:
        return self.find("NetworkPolicy", "nbviewer-ada-physics" if role == "viewer" else f"ip{role}-physics")

    def add(self, api: str, kind: str) -> None:
        labels = {"ipython-cluster": "physics", "app.kubernetes.io/part-of": "ipcluster-physics"}
        self.objects.append({"apiVersion": api, "kind": kind, "metadata": {"name": "more", "labels": labels}})

    def remove(self, thing: Object) -> None:
        self.objects = [one for one in self.objects if one is not thing]

    def environment(self, **variable: Any) -> None:
        self.container()["env"].append(variable)

    def trigger(self, old: str, new: str) -> None:
        notes = self.deployment()["metadata"]["annotations"]
        assert old in notes[TRIGGERS]
        notes[TRIGGERS] = notes[TRIGGERS].replace(old, new)

    def last_port(self, number: int) -> None:
        """Another number for the controller's last port, wherever it is spoken of but in its policy."""
        self.container("controller")["ports"][-1]["containerPort"] = number
        self.find("Service", "ipcontroller-physics")["spec"]["ports"][-1]["port"] = number

    def copy(self, thing: Object) -> None:
        self.objects.append(copy.deepcopy(thing))


SECRET_KEY = {"secretKeyRef": {"name": "nbviewer-ada-physics", "key": "password"}}
BROKEN: list[tuple[str, Change]] = [
    ("not_root", lambda lab: lab.pod()["securityContext"].pop("runAsNonRoot")),
    ("not_root", lambda lab: lab.security().update(runAsNonRoot=False)),
    ("no_identity_of_its_own", lambda lab: lab.security().update(runAsUser=1001)),
    ("no_identity_of_its_own", lambda lab: lab.pod()["securityContext"].update(fsGroup=1001)),
    ("no_identity_of_its_own", lambda lab: lab.pod()["securityContext"].update(runAsGroup=0)),
    ("no_identity_of_its_own", lambda lab: lab.security().update(seLinuxOptions={"level": "s0"})),
    ("no_privilege_escalation", lambda lab: lab.security().pop("allowPrivilegeEscalation")),
    ("no_privilege_escalation", lambda lab: lab.security().update(allowPrivilegeEscalation=True)),
    ("no_capabilities", lambda lab: lab.security()["capabilities"].update(add=["NET_BIND_SERVICE"])),
    ("no_capabilities", lambda lab: lab.security().pop("capabilities")),
    ("default_seccomp", lambda lab: lab.pod()["securityContext"].pop("seccompProfile")),
    ("default_seccomp", lambda lab: lab.security().update(seccompProfile={"type": "Unconfined"})),
    ("nothing_of_the_host", lambda lab: lab.pod().update(hostNetwork=True)),
    ("nothing_of_the_host", lambda lab: lab.pod().update(hostPID=True)),
    ("nothing_of_the_host", lambda lab: lab.security().update(privileged=True)),
    ("nothing_of_the_host", lambda lab: lab.container("viewer")["ports"][0].update(hostPort=8080)),
    ("permitted_volumes", lambda lab: (lab.volume("tmp").pop("emptyDir"), lab.volume("tmp").update(hostPath={"path": "/tmp"}))),
    ("permitted_volumes", lambda lab: (lab.volume("tmp").pop("emptyDir"), lab.volume("tmp").update(nfs={"server": "a"}))),
    ("read_only_root", lambda lab: lab.security().pop("readOnlyRootFilesystem")),
    ("no_service_account_token", lambda lab: lab.pod().pop("automountServiceAccountToken")),
    ("no_service_account_token", lambda lab: lab.pod().update(serviceAccountName="builder")),
    ("no_service_links", lambda lab: lab.pod().pop("enableServiceLinks")),
    ("requests_and_limits", lambda lab: lab.container().pop("resources")),
    ("requests_and_limits", lambda lab: lab.container()["resources"]["limits"].pop("cpu")),
    ("requests_and_limits", lambda lab: lab.container()["resources"]["requests"].pop("memory")),
    *(("three_probes", lambda lab, probe=probe: lab.container().pop(probe)) for probe in restricted.PROBES),
    ("no_secret_in_the_environment", lambda lab: lab.environment(name="ANY", valueFrom=SECRET_KEY)),
    ("no_secret_in_the_environment", lambda lab: lab.environment(name="IPYTHON_USER_PASSWORD", value="")),
    ("no_secret_in_the_environment", lambda lab: lab.environment(name="IPYTHON_CLUSTER_KEY", value="0" * 64)),
    ("no_secret_in_the_environment", lambda lab: lab.container().update(envFrom=[{"secretRef": {"name": "a"}}])),
    ("secrets_stay_in_secrets", lambda lab: lab.environment(name="ANY", value=manifests.PASSWORD)),
    ("secrets_stay_in_secrets", lambda lab: lab.route["metadata"]["annotations"].update(is_=manifests.PASSWORD)),
    ("secrets_have_mode_0440", lambda lab: lab.volume("cluster-key")["projected"].pop("defaultMode")),
    ("secrets_have_mode_0440", lambda lab: lab.volume("password", "viewer")["secret"].update(defaultMode=0o400)),
    ("mounts_have_volumes", lambda lab: lab.container()["volumeMounts"].pop()),
    ("mounts_have_volumes", lambda lab: lab.pod()["volumes"].pop()),
    ("volumes_are_there", lambda lab: lab.remove(lab.find("PersistentVolumeClaim", "nbviewer-ada-physics"))),
    ("volumes_are_there", lambda lab: lab.remove(lab.find("Secret", "nbviewer-ada-physics"))),
    ("volumes_are_there", lambda lab: lab.find("Service", "ipcontroller-physics")["metadata"].pop("annotations")),
    ("volumes_are_there", lambda lab: lab.volume("cluster-key")["projected"]["sources"][0]["secret"].pop("optional")),
    ("recreate_what_is_one", lambda lab: lab.deployment("viewer")["spec"].pop("strategy")),
    ("recreate_what_is_one", lambda lab: lab.deployment("controller")["spec"].update(strategy={"type": "RollingUpdate"})),
    ("recreate_what_is_one", lambda lab: lab.deployment("controller")["spec"].update(replicas=2)),
    ("selectors_match_own_pods_only", lambda lab: lab.deployment()["spec"]["selector"]["matchLabels"].pop("ipython-role")),
    ("selectors_match_own_pods_only", lambda lab: lab.deployment()["spec"]["selector"]["matchLabels"].update(a="b")),
    ("drains_are_never_blocked", lambda lab: lab.budget["spec"].update(minAvailable=1)),
    ("drains_are_never_blocked", lambda lab: lab.budget["spec"].update(maxUnavailable=0)),
    ("drains_are_never_blocked", lambda lab: lab.budget["spec"].pop("maxUnavailable")),
    ("drains_are_never_blocked", lambda lab: lab.budget["spec"].pop("unhealthyPodEvictionPolicy")),
    ("drains_are_never_blocked", lambda lab: lab.budget["spec"]["selector"]["matchLabels"].update(a="b")),
    ("services_stay_inside", lambda lab: lab.service["spec"].update(type="LoadBalancer")),
    ("services_stay_inside", lambda lab: lab.service["spec"].update(type="NodePort")),
    ("services_stay_inside", lambda lab: lab.service["spec"].update(externalIPs=["192.0.2.1"])),
    ("services_reach_pods", lambda lab: lab.service["spec"]["selector"].update({"ipython-user": "grace"})),
    ("services_reach_pods", lambda lab: lab.service["spec"]["ports"][0].update(targetPort="https")),
    ("services_reach_pods", lambda lab: lab.service["spec"]["ports"][0].update(port=80)),
    ("the_controllers_ports", lambda lab: lab.last_port(10015)),
    ("the_controllers_ports", lambda lab: lab.policy("controller")["spec"]["ingress"][0]["ports"][0].update(endPort=10013)),
    ("port_names", lambda lab: lab.container("controller")["ports"][0].update(name="engine-registration")
        or lab.find("Service", "ipcontroller-physics")["spec"]["ports"][0].update(targetPort="engine-registration")),
    ("port_names", lambda lab: lab.find("Service", "ipcontroller-physics")["spec"]["ports"][1].update(name="registration")),
    ("port_names", lambda lab: lab.service["spec"]["ports"][0].update(name="HTTP") or lab.route["spec"]["port"].update(targetPort="HTTP")),
    ("each_pod_has_its_network_policy", lambda lab: lab.remove(lab.policy("engine"))),
    ("each_pod_has_its_network_policy", lambda lab: lab.policy("engine")["spec"].update(ingress=[{}])),
    ("each_pod_has_its_network_policy", lambda lab: lab.policy("engine")["spec"].update(policyTypes=["Egress"])),
    ("each_pod_has_its_network_policy", lambda lab: lab.policy("viewer")["spec"]["ingress"][0]["from"].append({"podSelector": {}})),
    ("each_pod_has_its_network_policy", lambda lab: lab.policy("controller")["spec"]["ingress"][0].pop("from")),
    ("routes_are_encrypted", lambda lab: lab.route["spec"].pop("tls")),
    ("routes_are_encrypted", lambda lab: lab.route["spec"]["tls"].update(insecureEdgeTerminationPolicy="Allow")),
    ("routes_reach_services", lambda lab: lab.route["spec"]["to"].update(name="nbviewer")),
    ("routes_reach_services", lambda lab: lab.route["spec"]["port"].update(targetPort="https")),
    ("routes_wait", lambda lab: lab.route["metadata"].pop("annotations")),
    ("no_webhooks", lambda lab: lab.build["spec"]["triggers"].append({"type": "GitHub", "github": {"secret": "a"}})),
    ("no_webhooks", lambda lab: lab.build["spec"]["triggers"].append({"type": "Generic", "generic": {}})),
    ("builds_push_to_streams", lambda lab: lab.remove(lab.find("ImageStream", "ipcluster-physics"))),
    ("builds_push_to_streams", lambda lab: lab.build["spec"]["output"]["to"].update(kind="DockerImage")),
    ("images_come_from_streams", lambda lab: lab.deployment()["metadata"]["annotations"].pop(TRIGGERS)),
    ("images_come_from_streams", lambda lab: lab.trigger("}]", "}")),
    ("images_come_from_streams", lambda lab: lab.trigger('\\"engine\\"', '\\"engines\\"')),
    ("images_come_from_streams", lambda lab: lab.trigger("ipcluster-physics:latest", "ipcluster-physics:newest")),
    ("images_come_from_streams", lambda lab: lab.trigger("ImageStreamTag", "DockerImage")),
    ("images_come_from_streams", lambda lab: lab.container().update(image="ipcluster-physics:latest")),
    ("images_come_from_streams", lambda lab: lab.pod().update(initContainers=[lab.container() | {"name": "first"}])),
    ("kinds", lambda lab: lab.add("apps.openshift.io/v1", "DeploymentConfig")),
    ("kinds", lambda lab: lab.add("rbac.authorization.k8s.io/v1", "RoleBinding")),
    ("kinds", lambda lab: lab.add("rbac.authorization.k8s.io/v1", "Role")),
    ("kinds", lambda lab: lab.add("v1", "ServiceAccount")),
    ("kinds", lambda lab: lab.budget.update(apiVersion="policy/v1beta1")),
    ("labels", lambda lab: lab.route["metadata"]["labels"].pop("ipython-cluster")),
    ("labels", lambda lab: lab.route["metadata"]["labels"].pop("ipython-user")),
    ("labels", lambda lab: lab.budget["metadata"]["labels"].pop("app.kubernetes.io/part-of")),
    ("labels", lambda lab: lab.deployment("viewer")["metadata"]["labels"].update({"ipython-user": "grace"})),
    ("names_fit", lambda lab: lab.budget["metadata"].update(name="ipengine-" + "a" * 55)),
    ("names_fit", lambda lab: lab.budget["metadata"].update(name="ipengine-Physics")),
    ("names_fit", lambda lab: lab.budget["metadata"]["labels"].update({"ipython-cluster": "a" * 64})),
    ("names_are_unique", lambda lab: lab.copy(lab.route)),
    ("no_namespace", lambda lab: lab.route["metadata"].update(namespace="openshift")),
    ("nothing_is_left_to_fill_in", lambda lab: lab.environment(name="ANY", value="${IPYTHON_CLUSTER_LABLE}")),
    ("nothing_is_left_to_fill_in", lambda lab: lab.deployment()["spec"].update(replicas="${{COUNT}}")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change"), BROKEN, ids=[rule for rule, _ in BROKEN])
def test_a_broken_rule_is_found(rule: str, change: Change) -> None:
    lab = Lab()
    change(lab)
    found = restricted.of_objects(lab.objects)
    assert {one.rule for one in found} == {rule}, found


def parameter(template: Object, name: str) -> Object:
    return next(one for one in template["parameters"] if one["name"] == name)


BROKEN_TEMPLATES: list[tuple[str, Callable[[Object], object]]] = [
    *(("card", lambda t, note=note: t["metadata"]["annotations"].pop(note)) for note in restricted.CARD),
    ("card", lambda t: t["metadata"]["annotations"].update(tags="instant-app,jupyter")),
    ("card", lambda t: t.pop("message")),
    ("form", lambda t: t["parameters"][0].pop("displayName")),
    ("form", lambda t: t["parameters"][-1].pop("description")),
    ("form", lambda t: t["parameters"].append(dict(t["parameters"][-1]))),
    ("form", lambda t: t["parameters"][0].update(displayName=t["parameters"][1]["displayName"])),
    ("nothing_is_required", lambda t: parameter(t, "IPYTHON_NOTEBOOK_REPOSITORY").update(required=True)),
    ("no_generated_secret", lambda t: parameter(t, "IPYTHON_USER_PASSWORD").update({"generate": "expression", "from": r"[\w]{16}"})),
    ("no_secret_by_default", lambda t: parameter(t, "IPYTHON_USER_PASSWORD").update(value="ipython")),
    ("generated_labels", lambda t: parameter(t, "IPYTHON_CLUSTER_LABEL").pop("generate")),
    ("generated_labels", lambda t: parameter(t, "IPYTHON_USER_LABEL").update({"from": "[a-z0-9]{5}"})),
    ("promised_parameters", lambda t: (
        t["parameters"].remove(parameter(t, "IPYTHON_USER_PASSWORD")),
        t["objects"][0].update(stringData={"password": ""}))),
    ("parameters_are_used", lambda t: t["parameters"].append({"name": "ANY", "displayName": "a", "description": "b"})),
    ("parameters_are_used", lambda t: t["parameters"].remove(parameter(t, "IPYTHON_VOLUME_SIZE"))),
    ("labels_of_the_template", lambda t: t["labels"].pop("ipython-user")),
    ("labels_of_the_template", lambda t: t.pop("labels")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change"), BROKEN_TEMPLATES, ids=[rule for rule, _ in BROKEN_TEMPLATES])
def test_a_broken_rule_of_templates_is_found(rule: str, change: Callable[[Object], object]) -> None:
    template = manifests.template("ipython-notebook-repository")
    change(template)
    found = restricted.of_template(template)
    assert {one.rule for one in found} == {rule}, found


def test_every_rule_is_broken_somewhere() -> None:
    assert {rule for rule, _ in BROKEN} == set(restricted.OF_OBJECTS)
    assert {rule for rule, _ in BROKEN_TEMPLATES} == set(restricted.OF_TEMPLATES)
