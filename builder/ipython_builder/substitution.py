"""One object of a template with its parameters replaced, as OpenShift replaces them: see `templates`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ipython_builder import documents
from ipython_builder.errors import UsageError

_PARAMETER = re.compile(r"\$\{([a-zA-Z0-9_]+)\}")
_VALUE = re.compile(r"\$\{\{([a-zA-Z0-9_]+)\}\}")
# Kinds of OpenShift that once were in the group that has no name (library-go, legacygroupification).
_GROUPS = {
    "apps": "DeploymentConfigRollback DeploymentConfig DeploymentConfigList DeploymentLog DeploymentRequest",
    "authorization": "ClusterRoleBinding ClusterRoleBindingList ClusterRole ClusterRoleList "
    "RoleBindingRestriction RoleBindingRestrictionList RoleBinding RoleBindingList Role RoleList "
    "SubjectRulesReview SelfSubjectRulesReview ResourceAccessReview LocalResourceAccessReview "
    "SubjectAccessReview LocalSubjectAccessReview",
    "build": "BuildConfig BuildConfigList Build BuildList BinaryBuildRequestOptions BuildLog BuildRequest",
    "image": "Image ImageList ImageSignature ImageStreamImage ImageStreamImport ImageStreamMapping "
    "ImageStream ImageStreamList ImageStreamTag ImageStreamTagList",
    "network": "ClusterNetwork ClusterNetworkList EgressNetworkPolicy EgressNetworkPolicyList HostSubnet "
    "HostSubnetList NetNamespace NetNamespaceList",
    "oauth": "OAuthAccessToken OAuthAccessTokenList OAuthAuthorizeToken OAuthAuthorizeTokenList OAuthClient "
    "OAuthClientList OAuthClientAuthorization OAuthClientAuthorizationList",
    "project": "Project ProjectList ProjectRequest",
    "quota": "ClusterResourceQuota ClusterResourceQuotaList AppliedClusterResourceQuota "
    "AppliedClusterResourceQuotaList",
    "route": "Route RouteList",
    "security": "SecurityContextConstraints SecurityContextConstraintsList PodSecurityPolicySubjectReview "
    "PodSecurityPolicySelfSubjectReview PodSecurityPolicyReview",
    "template": "Template TemplateList",
    "user": "Group GroupList Identity IdentityList UserIdentityMapping User UserList",
}
_GROUP = {kind: f"{group}.openshift.io" for group, kinds in _GROUPS.items() for kind in kinds.split()}


def replaced(text: str, values: Mapping[str, str]) -> str:
    """`text` with its parameters replaced, where only a string can be."""
    if (whole := _VALUE.fullmatch(text)) and whole[1] in values:
        return values[whole[1]]
    out = text
    for found in _PARAMETER.finditer(text):
        if found[1] in values:
            # One after the other and always the first, as the original: also in a value that came before.
            out = out.replace(found[0], values[found[1]], 1)
    return out


class _Nothing:
    """What ``${{NAME}}`` of a null leaves: the key goes."""


def _value(value: Any, values: Mapping[str, str], where: str) -> Any:
    if isinstance(value, str):
        written = replaced(value, values)
        whole = _VALUE.fullmatch(value)
        if whole is None or whole[1] not in values:
            return written
        try:
            decoded = documents.from_json(written)
        except ValueError:
            return written
        return _Nothing if decoded is None else decoded
    if isinstance(value, list):
        items = [_value(one, values, f"{where}[{number}]") for number, one in enumerate(value)]
        if _Nothing in items:
            number = items.index(_Nothing)
            raise UsageError(f"{where}[{number}] would be null: {value[number]}", "give it another value")
        return items
    if isinstance(value, dict):
        return _mapping(value, values, where)
    return value


def _mapping(value: dict[str, Any], values: Mapping[str, str], where: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    for key, one in value.items():
        name = _value(key, values, where)
        if not isinstance(name, str):
            raise UsageError(
                f"{where}: {key} is a key and must be a string", f"write {key[1:-1].replace('{', '${')}"
            )
        if name != key and name in changed:
            raise UsageError(f"{where}: two keys become {name!r}", "give their parameters different values")
        (kept if name == key else changed)[name] = _value(one, values, f"{where}.{name}")
    # A key with a parameter in it wins over one that was there already.
    return {name: one for name, one in {**kept, **changed}.items() if one is not _Nothing}


def instantiate(
    raw: dict[str, Any], values: Mapping[str, str], labels: Mapping[str, str] | None, where: str
) -> dict[str, Any]:
    is_list = "items" in raw
    if is_list:
        raw = {**raw, "items": [_item(one or {}, raw) for one in raw["items"] or []]}
    else:
        raw = _without_namespace(raw)
    found = _mapping(raw, values, where)
    found["apiVersion"], found["kind"] = version_and_kind(found)
    if labels is not None:
        if is_list:
            raise UsageError(f"{where} is a list and can have no labels", "put its items into the template")
        _add_labels(found, labels)
    return found


def _item(item: dict[str, Any], parent: Mapping[str, Any]) -> dict[str, Any]:
    """An item of a list: one of no kind is of what the list is a list of."""
    if item.get("kind") or item.get("apiVersion"):
        return item
    version = parent.get("apiVersion")
    return {
        **item,
        "kind": str(parent["kind"]).removesuffix("List"),
        "apiVersion": version if isinstance(version, str) else "",
    }


def _without_namespace(raw: dict[str, Any]) -> dict[str, Any]:
    """The object without a namespace, unless there is a parameter in it."""

    def emptied(holder: dict[str, Any]) -> dict[str, Any]:
        name = holder.get("namespace")
        if "namespace" not in holder or (isinstance(name, str) and _PARAMETER.search(name)):
            return holder
        return {**holder, "namespace": ""}

    if "metadata" not in raw:
        return emptied(raw)
    metadata = raw["metadata"]
    if not isinstance(metadata, dict):
        return raw
    name = metadata.get("namespace")
    if isinstance(name, str) and name and not _PARAMETER.search(name):
        return {**raw, "metadata": {key: one for key, one in metadata.items() if key != "namespace"}}
    return {**raw, "metadata": emptied(metadata)}


def version_and_kind(found: Mapping[str, Any]) -> tuple[str, str]:
    """An object's apiVersion and kind as Kubernetes reads them: both empty where the former is none."""
    version, kind = (
        one if isinstance(one, str) else "" for one in (found.get("apiVersion"), found.get("kind"))
    )
    if version.count("/") > 1:
        return "", ""
    group, _, version = ("/" + version if "/" not in version else version).rpartition("/")
    group = group.strip("/") or _GROUP.get(kind, "")
    return (f"{group}/{version}" if group else version), kind


def _add_labels(found: dict[str, Any], labels: Mapping[str, str]) -> None:
    metadata = found.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        return  # no object at all, and the original leaves it so
    there = metadata.get("labels")
    if not isinstance(there, dict) or not all(one is None or isinstance(one, str) for one in there.values()):
        there = {}  # the original drops labels of which one is no string
    metadata["labels"] = {key: one or "" for key, one in there.items()} | dict(labels)
