"""What OpenShift's admission does to pods, as far as users and groups go, in the API server's own language.

A project of OpenShift has a range of users, which its annotations name. The security context constraint
``restricted-v2`` gives its pods the first of them, as user and as ``fsGroup``, and refuses other ones. The primary
group stays 0, because nothing says otherwise. Here that holds for namespaces with the label `LABEL`.
"""

from __future__ import annotations

from typing import Any

LABEL = "tests/openshift-uids"
USERS = "openshift.io/sa.scc.uid-range"
GROUPS = "openshift.io/sa.scc.supplemental-groups"
LEVEL = "openshift.io/sa.scc.mcs"
SIZE = 10000  # of a range
NAME = "restricted-v2"


def ranges(first: int) -> dict[str, str]:
    """The annotations of a project whose ranges begin with this user and group."""
    return {USERS: f"{first}/{SIZE}", GROUPS: f"{first}/{SIZE}", LEVEL: "s0:c27,c9"}


def _annotation(name: str) -> str:
    return f"namespaceObject.metadata.annotations['{name}']"


def _first(name: str) -> dict[str, str]:
    variable = {USERS: "user", GROUPS: "group"}[name]
    return {"name": variable, "expression": f"int({_annotation(name)}.split('/')[0])"}


def _kept(field: str, otherwise: str) -> str:
    return f"has(object.spec.securityContext.{field}) ? object.spec.securityContext.{field} : {otherwise}"


_PODS: dict[str, Any] = {
    "resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    ]
}
_WHERE = {"namespaceSelector": {"matchLabels": {LABEL: "true"}}}
_VARIABLES = [_first(USERS), _first(GROUPS)]


def _of(kind: str, version: str, **spec: Any) -> tuple[str, dict[str, Any]]:
    plural = {"y": f"{kind.lower()[:-1]}ies"}.get(kind[-1], f"{kind.lower()}s")
    thing = {"apiVersion": f"admissionregistration.k8s.io/{version}", "kind": kind}
    path = f"/apis/admissionregistration.k8s.io/{version}/{plural}"
    return path, thing | {"metadata": {"name": NAME}, "spec": spec}


_CHANGE = f"""
Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{
    runAsUser: {_kept("runAsUser", "variables.user")},
    fsGroup: {_kept("fsGroup", "variables.group")},
    seLinuxOptions: Object.spec.securityContext.seLinuxOptions{{level: {_annotation(LEVEL)}}}
}}}}}}
"""


def _within(value: str, variable: str) -> str:
    return f"({value} >= variables.{variable} && {value} < variables.{variable} + {SIZE})"


def _rules() -> list[dict[str, str]]:
    pod = "object.spec.securityContext"
    refuses = f"'unable to validate against any security context constraint: {{}} must be in the range ' + {_annotation(USERS)}"
    container = f"!has(c.securityContext) || !has(c.securityContext.runAsUser) || {_within('c.securityContext.runAsUser', 'user')}"
    rules = {
        "runAsUser": f"!has({pod}.runAsUser) || {_within(f'{pod}.runAsUser', 'user')}",
        "fsGroup": f"!has({pod}.fsGroup) || {_within(f'{pod}.fsGroup', 'group')}",
        "runAsUser of a container": f"object.spec.containers.all(c, {container}) && "
        f"(!has(object.spec.initContainers) || object.spec.initContainers.all(c, {container}))",
    }
    return [{"expression": rule, "messageExpression": refuses.format(what)} for what, rule in rules.items()]


# Path of a collection -> what is put into it.
OBJECTS: tuple[tuple[str, dict[str, Any]], ...] = (
    _of(
        "MutatingAdmissionPolicy",
        "v1beta1",
        matchConstraints=_PODS,
        variables=_VARIABLES,
        failurePolicy="Fail",
        reinvocationPolicy="Never",
        mutations=[{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": _CHANGE}}],
    ),
    _of("MutatingAdmissionPolicyBinding", "v1beta1", policyName=NAME, matchResources=_WHERE),
    _of(
        "ValidatingAdmissionPolicy",
        "v1",
        matchConstraints=_PODS,
        variables=_VARIABLES,
        failurePolicy="Fail",
        validations=_rules(),
    ),
    _of(
        "ValidatingAdmissionPolicyBinding",
        "v1",
        policyName=NAME,
        validationActions=["Deny"],
        matchResources=_WHERE,
    ),
)
