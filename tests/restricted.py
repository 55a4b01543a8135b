"""What the templates and their objects have to be like: restricted-v2 of OpenShift, and rules of this house.

Each rule is a function that says what is against it. A template is read as it is written; objects are looked at
together, as they would be in one project after the templates were processed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ipython_builder import cluster

Object = Mapping[str, Any]


class Finding(NamedTuple):
    rule: str
    where: str
    what: str


Said = Iterator[tuple[str, str]]
OF_OBJECTS: dict[str, Callable[[Sequence[Object]], Said]] = {}
OF_TEMPLATES: dict[str, Callable[[Object], Said]] = {}

KINDS = {
    *(("v1", "Secret"), ("v1", "Service"), ("v1", "PersistentVolumeClaim"), ("apps/v1", "Deployment")),
    *(("networking.k8s.io/v1", "NetworkPolicy"), ("policy/v1", "PodDisruptionBudget")),
    *(("build.openshift.io/v1", "BuildConfig"), ("image.openshift.io/v1", "ImageStream")),
    ("route.openshift.io/v1", "Route"),
}
# Those that restricted-v2 permits.
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"),
    "secret",
}
# restricted-v2 gives them, each namespace its own.
IDENTITY = (
    *("runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "supplementalGroups", "seLinuxOptions"),
    *("sysctls", "windowsOptions"),
)
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
PORT_NAME = re.compile(r"(?=.{1,15}$)(?!.*--)(?=.*[a-z])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
DNS_LABEL = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
SECRET_NAME = re.compile(r"(PASSWORD|TOKEN|KEY)$")
CARD = (
    *("openshift.io/display-name", "openshift.io/provider-display-name", "openshift.io/documentation-url"),
    *("openshift.io/support-url", "openshift.io/long-description", "description", "iconClass", "tags"),
)
SEED = ("IPYTHON_CLUSTER_LABEL",)  # what older scripts give, for every template
SEED_NOTEBOOK = ("IPYTHON_USER_LABEL", "IPYTHON_USER_PASSWORD")
SEED_REPOSITORY = ("IPYTHON_NOTEBOOK_REPOSITORY",)


def of_objects(objects: Sequence[Object]) -> list[Finding]:
    """What is wrong with the objects of one project."""
    return [Finding(rule, *said) for rule, check in OF_OBJECTS.items() for said in check(objects)]


def of_template(template: Object) -> list[Finding]:
    """What is wrong with a template as it is written."""
    return [Finding(rule, *said) for rule, check in OF_TEMPLATES.items() for said in check(template)]


def rule(check: Callable[[Sequence[Object]], Said]) -> Callable[[Sequence[Object]], Said]:
    OF_OBJECTS[check.__name__] = check
    return check


def template_rule(check: Callable[[Object], Said]) -> Callable[[Object], Said]:
    OF_TEMPLATES[check.__name__] = check
    return check


# -- finding one's way ---------------------------------------------------------------------------


def name(thing: Object) -> str:
    return f"{thing['kind']} {thing['metadata']['name']}"


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in of_kind(objects, kind)}


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """The pod spec of every Deployment, with its name."""
    for one in of_kind(objects, "Deployment"):
        yield name(one), one["spec"]["template"]["spec"]


def containers(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    for where, pod in pods(objects):
        for one in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{where}, container {one['name']}", one


def security(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """Every security context, a pod's and its containers'."""
    for where, one in [*pods(objects), *containers(objects)]:
        yield where, one.get("securityContext", {})


def labels_of_pods(deployment: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def selected(objects: Sequence[Object], selector: Mapping[str, str]) -> list[Object]:
    return [one for one in of_kind(objects, "Deployment") if selects(selector, labels_of_pods(one))]


def role(deployment: Object) -> str:
    return labels_of_pods(deployment).get("ipython-role", "")


# -- restricted-v2 -------------------------------------------------------------------------------


@rule
def not_root(objects: Sequence[Object]) -> Said:
    for where, pod in pods(objects):
        if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
            yield where, "runAsNonRoot is not true"
    for where, one in containers(objects):
        if one.get("securityContext", {}).get("runAsNonRoot", True) is not True:
            yield where, "runAsNonRoot is not true"


@rule
def no_identity_of_its_own(objects: Sequence[Object]) -> Said:
    for where, context in security(objects):
        for field in sorted(context.keys() & set(IDENTITY)):
            yield where, f"{field} is the namespace's to say"


@rule
def no_privilege_escalation(objects: Sequence[Object]) -> Said:
    for where, one in containers(objects):
        if one.get("securityContext", {}).get("allowPrivilegeEscalation") is not False:
            yield where, "allowPrivilegeEscalation is not false"


@rule
def no_capabilities(objects: Sequence[Object]) -> Said:
    for where, one in containers(objects):
        if one.get("securityContext", {}).get("capabilities") != {"drop": ["ALL"]}:
            yield where, "capabilities are not all dropped, and none added"


@rule
def default_seccomp(objects: Sequence[Object]) -> Said:
    default = {"type": "RuntimeDefault"}
    for where, pod in pods(objects):
        if pod.get("securityContext", {}).get("seccompProfile") != default:
            yield where, "the seccomp profile is not RuntimeDefault"
    for where, one in containers(objects):
        if one.get("securityContext", {}).get("seccompProfile", default) != default:
            yield where, "the seccomp profile is not RuntimeDefault"


@rule
def nothing_of_the_host(objects: Sequence[Object]) -> Said:
    for where, pod in pods(objects):
        for field in ("hostNetwork", "hostPID", "hostIPC", "hostAliases", "nodeName"):
            if field in pod:
                yield where, f"{field} is set"
    for where, one in containers(objects):
        if "privileged" in one.get("securityContext", {}) or "procMount" in one.get("securityContext", {}):
            yield where, "it is privileged"
        if any("hostPort" in port for port in one.get("ports", [])):
            yield where, "it has a port of the host"


@rule
def permitted_volumes(objects: Sequence[Object]) -> Said:
    for where, pod in pods(objects):
        for volume in pod.get("volumes", []):
            for kind in volume.keys() - VOLUMES - {"name"}:
                yield where, f"volume {volume['name']} is a {kind}"


# -- pods ----------------------------------------------------------------------------------------


@rule
def read_only_root(objects: Sequence[Object]) -> Said:
    for where, one in containers(objects):
        if one.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield where, "readOnlyRootFilesystem is not true"


@rule
def no_service_account_token(objects: Sequence[Object]) -> Said:
    for where, pod in pods(objects):
        if pod.get("automountServiceAccountToken") is not False or "serviceAccountName" in pod:
            yield where, "it would have a token of a service account"


@rule
def no_service_links(objects: Sequence[Object]) -> Said:
    """A service called jupyter would set JUPYTER_PORT for all pods of its project."""
    for where, pod in pods(objects):
        if pod.get("enableServiceLinks") is not False:
            yield where, "enableServiceLinks is not false"


@rule
def requests_and_limits(objects: Sequence[Object]) -> Said:
    for where, one in containers(objects):
        for bound in ("requests", "limits"):
            missing = {"cpu", "memory"} - one.get("resources", {}).get(bound, {}).keys()
            if missing:
                yield where, f"{bound} without {' and '.join(sorted(missing))}"


@rule
def three_probes(objects: Sequence[Object]) -> Said:
    for where, one in containers(objects):
        for probe in PROBES:
            if probe not in one:
                yield where, f"there is no {probe}"


@rule
def no_secret_in_the_environment(objects: Sequence[Object]) -> Said:
    for where, one in containers(objects):
        if "envFrom" in one:
            yield where, "envFrom"
        for variable in one.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}) or SECRET_NAME.search(variable["name"]):
                yield where, f"{variable['name']} shows a secret to whoever may see the pod"


@rule
def secrets_stay_in_secrets(objects: Sequence[Object]) -> Said:
    values = [v for one in of_kind(objects, "Secret") for v in one.get("stringData", {}).values() if v]
    for one in objects:
        if one["kind"] != "Secret" and any(value in json.dumps(one) for value in values):
            yield name(one), "it shows what is in a Secret"


@rule
def mounts_have_volumes(objects: Sequence[Object]) -> Said:
    for where, pod in pods(objects):
        volumes = {one["name"] for one in pod.get("volumes", [])}
        mounts = {m["name"] for one in pod["containers"] for m in one.get("volumeMounts", [])}
        if volumes != mounts:
            yield where, f"these are mounted or there, not both: {sorted(volumes ^ mounts)}"


@rule
def volumes_are_there(objects: Sequence[Object]) -> Said:
    """What a pod waits for is made by the same objects, or by the service CA for a Service of theirs."""
    annotated = [one["metadata"].get("annotations", {}) for one in of_kind(objects, "Service")]
    serving = {one.get("service.beta.openshift.io/serving-cert-secret-name") for one in annotated}
    secrets = named(objects, "Secret").keys() | serving
    for where, pod in pods(objects):
        for volume in pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in named(objects, "PersistentVolumeClaim"):
                yield where, f"there is no claim {claim}"
            wanted = [s["secret"] for s in volume.get("projected", {}).get("sources", []) if "secret" in s]
            if "secret" in volume:
                wanted.append(volume["secret"] | {"name": volume["secret"]["secretName"]})
            for one in wanted:
                if one["name"] not in secrets and not one.get("optional"):
                    yield where, f"it would wait for a Secret {one['name']}"


@rule
def secrets_have_mode_0440(objects: Sequence[Object]) -> Said:
    for where, pod in pods(objects):
        for volume in pod.get("volumes", []):
            for kind in volume.keys() & {"secret", "projected"}:
                if volume[kind].get("defaultMode") != 0o440:
                    yield where, f"volume {volume['name']} has not mode 0440"


# -- deployments ---------------------------------------------------------------------------------


@rule
def recreate_what_is_one(objects: Sequence[Object]) -> Said:
    """Two controllers would share the engines between them; two viewers would wait for each other's volume."""
    for one in of_kind(objects, "Deployment"):
        volumes = one["spec"]["template"]["spec"].get("volumes", [])
        if role(one) == "controller" or any("persistentVolumeClaim" in volume for volume in volumes):
            if one["spec"].get("strategy") != {"type": "Recreate"}:
                yield name(one), "the strategy is not Recreate"
            if one["spec"].get("replicas") != 1:
                yield name(one), "there is not exactly one"


@rule
def selectors_match_own_pods_only(objects: Sequence[Object]) -> Said:
    for one in of_kind(objects, "Deployment"):
        others = selected(objects, one["spec"]["selector"]["matchLabels"])
        if [name(other) for other in others] != [name(one)]:
            yield name(one), f"it selects the pods of {', '.join(map(name, others)) or 'none'}"


@rule
def drains_are_never_blocked(objects: Sequence[Object]) -> Said:
    for one in of_kind(objects, "PodDisruptionBudget"):
        spec = one["spec"]
        # Percentages are rounded up, so any but 0 lets one go.
        if "minAvailable" in spec or spec.get("maxUnavailable") in (None, 0, "0", "0%"):
            yield name(one), "it can keep every pod"
        if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield name(one), "it keeps pods that are not ready"
        if not selected(objects, spec["selector"]["matchLabels"]):
            yield name(one), "it selects nothing"


# -- the network ---------------------------------------------------------------------------------


@rule
def services_stay_inside(objects: Sequence[Object]) -> Said:
    for one in of_kind(objects, "Service"):
        if one["spec"].get("type", "ClusterIP") != "ClusterIP" or "externalIPs" in one["spec"]:
            yield name(one), f"type {one['spec'].get('type')}, external: {one['spec'].get('externalIPs')}"


@rule
def services_reach_pods(objects: Sequence[Object]) -> Said:
    for one in of_kind(objects, "Service"):
        found = selected(objects, one["spec"].get("selector", {}))
        if len(found) != 1:
            yield name(one), f"it selects the pods of {', '.join(map(name, found)) or 'none'}"
            continue
        inner = [p for c in found[0]["spec"]["template"]["spec"]["containers"] for p in c.get("ports", [])]
        there = {port["name"]: port["containerPort"] for port in inner}
        for port in one["spec"]["ports"]:
            if there.get(port.get("targetPort")) != port["port"]:
                yield name(one), f"port {port['name']} leads to no port of the pod with that number"


@rule
def the_controllers_ports(objects: Sequence[Object]) -> Said:
    """They are a promise: engines and notebooks compute them."""
    promised = list(range(cluster.FIRST_PORT, cluster.FIRST_PORT + cluster.PORT_COUNT))
    for deployment in of_kind(objects, "Deployment"):
        if role(deployment) != "controller":
            continue
        labels = labels_of_pods(deployment)
        pod = deployment["spec"]["template"]["spec"]["containers"]
        if [port["containerPort"] for one in pod for port in one.get("ports", [])] != promised:
            yield name(deployment), "these are not the ports of a cluster"
        services = [s for s in of_kind(objects, "Service") if selects(s["spec"].get("selector", {}), labels)]
        if [[port["port"] for port in one["spec"]["ports"]] for one in services] != [promised]:
            yield name(deployment), "no single service has the ports of a cluster"
        for policy in policies(objects, labels):
            for ingress in policy["spec"].get("ingress", []):
                if ingress.get("ports") != [{"port": promised[0], "endPort": promised[-1]}]:
                    yield name(policy), "these are not the ports of a cluster"


@rule
def port_names(objects: Sequence[Object]) -> Said:
    lists = [(where, one.get("ports", [])) for where, one in containers(objects)]
    lists += [(name(one), one["spec"]["ports"]) for one in of_kind(objects, "Service")]
    for where, ports in lists:
        names = [port.get("name", "") for port in ports]
        for bad in (one for one in names if not PORT_NAME.fullmatch(one)):
            yield where, f"{bad!r} is no name of a port"
        if len(set(names)) != len(names):
            yield where, "two ports have one name"


def policies(objects: Sequence[Object], labels: Mapping[str, str]) -> list[Object]:
    """The network policies that select pods with these labels."""
    return [
        one
        for one in of_kind(objects, "NetworkPolicy")
        if selects(one["spec"]["podSelector"].get("matchLabels", {}), labels)
    ]


@rule
def each_pod_has_its_network_policy(objects: Sequence[Object]) -> Said:
    """The controller for pods of its cluster, the notebook for routers, engines for nobody."""
    for one in of_kind(objects, "Deployment"):
        found = policies(objects, labels_of_pods(one))
        if len(found) != 1 or found[0]["spec"]["policyTypes"] != ["Ingress"]:
            yield name(one), f"{len(found)} network policies for what may come in"
            continue
        peers = [
            peer for ingress in found[0]["spec"].get("ingress", []) for peer in ingress.get("from", [{}])
        ]
        label = labels_of_pods(one).get("ipython-cluster")
        own = {"podSelector": {"matchLabels": {"ipython-cluster": label}}}
        routers = [
            {"namespaceSelector": {"matchLabels": {f"policy-group.network.openshift.io/{group}": ""}}}
            for group in ("ingress", "host-network")
        ]
        if peers != {"controller": [own], "viewer": routers}.get(role(one), []):
            yield name(found[0]), "it lets in others than it should"


@rule
def routes_are_encrypted(objects: Sequence[Object]) -> Said:
    for one in of_kind(objects, "Route"):
        if one["spec"].get("tls") != {"termination": "edge", "insecureEdgeTerminationPolicy": "Redirect"}:
            yield name(one), "the router does not encrypt, or speaks without"


@rule
def routes_reach_services(objects: Sequence[Object]) -> Said:
    services = named(objects, "Service")
    for one in of_kind(objects, "Route"):
        service = services.get(one["spec"]["to"]["name"])
        ports = [port["name"] for port in service["spec"]["ports"]] if service else []
        if one["spec"].get("port", {}).get("targetPort") not in ports:
            yield name(one), "it leads to no port of a service"


@rule
def routes_wait(objects: Sequence[Object]) -> Said:
    """A notebook's connections are cut after 30 seconds of silence otherwise."""
    for one in of_kind(objects, "Route"):
        notes = one["metadata"].get("annotations", {})
        for which in ("timeout", "timeout-tunnel"):
            if not re.fullmatch(r"\d+h", notes.get(f"haproxy.router.openshift.io/{which}", "")):
                yield name(one), f"its {which} is not hours"


# -- images --------------------------------------------------------------------------------------


@rule
def no_webhooks(objects: Sequence[Object]) -> Said:
    """Clusters since OpenShift 4.16 refuse them without a RoleBinding."""
    for one in of_kind(objects, "BuildConfig"):
        for trigger in one["spec"].get("triggers", []):
            if trigger["type"] not in ("ConfigChange", "ImageChange"):
                yield name(one), f"a trigger of type {trigger['type']}"


@rule
def builds_push_to_streams(objects: Sequence[Object]) -> Said:
    for one in of_kind(objects, "BuildConfig"):
        to = one["spec"]["output"]["to"]
        stream, _, tag = to["name"].partition(":")
        if to["kind"] != "ImageStreamTag" or stream not in named(objects, "ImageStream") or not tag:
            yield name(one), f"there is no image stream for {to['name']}"


@rule
def images_come_from_streams(objects: Sequence[Object]) -> Said:
    """Of every container, by a trigger: of a tag that a build here pushes, or of the builder's."""
    built = {one["spec"]["output"]["to"]["name"] for one in of_kind(objects, "BuildConfig")}
    for one in of_kind(objects, "Deployment"):
        text = one["metadata"].get("annotations", {}).get("image.openshift.io/triggers", "[]")
        try:
            triggers = json.loads(text)
        except ValueError:
            yield name(one), "the triggers are no JSON"
            continue
        wanted = {
            f'spec.template.spec.{group}[?(@.name=="{container["name"]}")].image'
            for group in ("initContainers", "containers")
            for container in one["spec"]["template"]["spec"].get(group, [])
        }
        if {trigger["fieldPath"] for trigger in triggers} != wanted:
            yield name(one), "the triggers are not one for each container"
        for trigger in triggers:
            source = trigger["from"]
            known = source["name"] in built or re.fullmatch(
                r"ipython-builder(-scipy)?:latest", source["name"]
            )
            if source["kind"] != "ImageStreamTag" or not known:
                yield name(one), f"nothing makes {source['kind']} {source['name']}"
    for where, container in containers(objects):
        if container["image"] != " ":  # what OpenShift knows as: wait for the trigger
            yield where, f"the image {container['image']!r} would be pulled before the trigger speaks"


# -- names and labels ----------------------------------------------------------------------------


@rule
def kinds(objects: Sequence[Object]) -> Said:
    """No DeploymentConfig, which is deprecated; nothing that a user with the role edit may not make."""
    for one in objects:
        if (one["apiVersion"], one["kind"]) not in KINDS:
            yield name(one), f"{one['apiVersion']} {one['kind']} is not among the kinds that are used"


@rule
def labels(objects: Sequence[Object]) -> Said:
    for one in objects:
        own = one["metadata"].get("labels", {})
        wanted = ["ipython-cluster", "app.kubernetes.io/part-of"]
        wanted += ["ipython-user"] * one["metadata"]["name"].startswith("nbviewer-")
        missing = [label for label in wanted if not own.get(label)]
        if missing:
            yield name(one), f"no label {', '.join(missing)}"
        if one["kind"] == "Deployment":
            # Templates' own labels never reach pods.
            for label in set(wanted) - {"app.kubernetes.io/part-of"}:
                if labels_of_pods(one).get(label, "") != own.get(label):
                    yield name(one), f"its pods have no label {label}, or another one"


@rule
def names_fit(objects: Sequence[Object]) -> Said:
    """Into a label of a host name, as services and routes need it; label values are as long."""
    for one in objects:
        if not DNS_LABEL.fullmatch(one["metadata"]["name"]):
            yield name(one), "the name is too long, or has other characters than a host name may"
        for label, value in one["metadata"].get("labels", {}).items():
            if not re.fullmatch(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", value):
                yield name(one), f"label {label} is too long, or has other characters than a label may"


@rule
def names_are_unique(objects: Sequence[Object]) -> Said:
    names = [name(one) for one in objects]
    for one in sorted({one for one in names if names.count(one) > 1}):
        yield one, "there are two of that name"


@rule
def no_namespace(objects: Sequence[Object]) -> Said:
    for one in objects:
        if "namespace" in one["metadata"]:
            yield name(one), "it names a project; it belongs to the one that it is created in"


@rule
def nothing_is_left_to_fill_in(objects: Sequence[Object]) -> Said:
    for one in objects:
        for left in sorted(set(re.findall(r"\$\{+\w*\}*", json.dumps(one)))):
            yield name(one), f"{left} is no parameter"


# -- templates -----------------------------------------------------------------------------------


@template_rule
def card(template: Object) -> Said:
    notes = template["metadata"].get("annotations", {})
    for missing in [one for one in CARD if not notes.get(one)]:
        yield template["metadata"]["name"], f"no annotation {missing}"
    if not {"instant-app", "python", "jupyter", "ipython"} <= set(notes.get("tags", "").split(",")):
        yield template["metadata"]["name"], "the catalogue would not find it"
    if not template.get("message"):
        yield template["metadata"]["name"], "no closing message"


@template_rule
def form(template: Object) -> Said:
    for one in template["parameters"]:
        if not one.get("displayName") or not one.get("description"):
            yield one["name"], "no displayName or no description"
    names = [one["name"] for one in template["parameters"]]
    titles = [one.get("displayName") for one in template["parameters"]]
    if len(set(names)) != len(names) or len(set(titles)) != len(titles):
        yield template["metadata"]["name"], "two parameters have one name"


@template_rule
def nothing_is_required(template: Object) -> Said:
    for one in template["parameters"]:
        if one.get("required"):
            yield one["name"], "it is required"


@template_rule
def no_generated_secret(template: Object) -> Said:
    """A generator has 31 bits, and labels, which are public, come from the same one."""
    for one in template["parameters"]:
        if "generate" in one and not one["name"].endswith("_LABEL"):
            yield one["name"], "it is generated, and no label"


@template_rule
def no_secret_by_default(template: Object) -> Said:
    for one in template["parameters"]:
        if SECRET_NAME.search(one["name"]) and one.get("value"):
            yield one["name"], "everybody would have the same"


@template_rule
def generated_labels(template: Object) -> Said:
    """Five lower-case characters; a host name and a port's label may begin with a letter only."""
    for one in template["parameters"]:
        if one["name"].endswith("_LABEL") and (one.get("generate"), one.get("from")) != (
            "expression",
            "[a-z]{5}",
        ):
            yield one["name"], "it is not made of five characters when it is not given"


@template_rule
def promised_parameters(template: Object) -> Said:
    title = template["metadata"]["name"]
    wanted = [*SEED, *(SEED_NOTEBOOK if "notebook" in title else ())]
    wanted += SEED_REPOSITORY if title.endswith("-repository") else ()
    for missing in set(wanted) - {one["name"] for one in template["parameters"]}:
        yield title, f"no parameter {missing}, which older scripts give"


@template_rule
def parameters_are_used(template: Object) -> Said:
    text = json.dumps([template["objects"], template.get("labels", {})])
    used = set(re.findall(r"\$\{+(\w+)\}+", text + template.get("message", "")))
    known = {one["name"] for one in template["parameters"]}
    for one in sorted(known - used):
        yield one, "nothing uses it"
    for one in sorted(used - known):
        yield one, "it is used, and no parameter"


@template_rule
def labels_of_the_template(template: Object) -> Said:
    notebook = "notebook" in template["metadata"]["name"]
    wanted = {
        "ipython-cluster": "${IPYTHON_CLUSTER_LABEL}",
        "app.kubernetes.io/part-of": "ipcluster-${IPYTHON_CLUSTER_LABEL}",
    } | ({"ipython-user": "${IPYTHON_USER_LABEL}"} if notebook else {})
    if template.get("labels") != wanted:
        yield template["metadata"]["name"], "its labels are not those of its part of the cluster"
