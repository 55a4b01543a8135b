"""The templates and what they make, against the schemas of OpenShift and of several Kubernetes versions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests import manifests
from tests.conftest import missing
from tests.kubernetes.programs import NotMade
from tests.schemas import kubernetes, openshift, published
from tests.schemas.published import NotThere

Object = dict[str, Any]
Check = Callable[[Object], list[str]]

ALL = [one for name in manifests.NAMES for one in manifests.made(name)]
ITS_OWN = [one for one in ALL if one["kind"] in openshift.GROUPS]
PLAIN = [one for one in ALL if one["kind"] not in openshift.GROUPS]
# One of each kind, the longest: what is misspelled in it is found in all.
LONGEST = {one["kind"]: one for one in sorted(ALL + manifests.builder(), key=lambda one: len(str(one)))}


def name(thing: Any) -> str:
    return f"{thing['kind']}-{thing['metadata']['name']}" if isinstance(thing, dict) else str(thing)


@pytest.fixture(scope="module")
def of_openshift() -> Check:
    try:
        openshift.path()
    except NotThere as error:
        missing(str(error))
    return openshift.errors


@pytest.mark.parametrize("template", manifests.NAMES)
def test_templates(template: str, of_openshift: Check) -> None:
    assert of_openshift(manifests.template(template)) == []


@pytest.mark.parametrize("thing", manifests.builder(), ids=name)
def test_what_makes_the_builder_images(thing: Object, of_openshift: Check) -> None:
    assert of_openshift(thing) == []


@pytest.mark.parametrize("thing", ITS_OWN, ids=name)
def test_objects_of_openshift(thing: Object, of_openshift: Check) -> None:
    assert of_openshift(thing) == []


@pytest.mark.parametrize("version", kubernetes.VERSIONS)
def test_objects_of_kubernetes(version: str) -> None:
    assert {name(one): said for one in PLAIN if (said := kubernetes.errors(one, version))} == {}


def test_both_kinds_of_objects_are_there() -> None:
    """What is in neither list would be looked at by nobody."""
    assert {one["kind"] for one in ITS_OWN} == {"BuildConfig", "ImageStream", "Route"}
    assert {one["kind"] for one in PLAIN} == {
        *("Deployment", "Service", "Secret", "PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget")
    }


# -- the schemas themselves ----------------------------------------------------------------------


def places(thing: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value but the two that a schema is found by, and the objects in a template."""
    yield path
    inside = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for key, inner in inside:
        if path or key not in ("kind", "apiVersion", "objects"):
            yield from places(inner, (*path, key))


def at(thing: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        thing = thing[key]
    return thing


def unseen(thing: Object, check: Check) -> list[str]:
    """What may be spelled wrongly or be of another type in an object, and nobody says so."""
    assert check(thing) == []
    found = []
    for path in places(thing):
        changed = copy.deepcopy(thing)
        if isinstance(at(thing, path), dict):
            at(changed, path)["misspelled"] = {"anything": []}
        else:
            at(changed, path[:-1])[path[-1]] = {"anything": []}
        if not check(changed):
            found.append(".".join(map(str, path)))
    return found


@pytest.mark.parametrize("kind", openshift.GROUPS)
def test_what_is_misspelled_is_found(kind: str, of_openshift: Check) -> None:
    thing = manifests.template(manifests.NAMES[0]) if kind == "Template" else LONGEST[kind]
    assert unseen(thing, of_openshift) == []


@pytest.mark.parametrize("kind", sorted({one["kind"] for one in PLAIN}))
def test_what_is_misspelled_is_found_in_kubernetes_kinds(kind: str) -> None:
    assert unseen(LONGEST[kind], lambda thing: kubernetes.errors(thing, kubernetes.VERSIONS[-1])) == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("BuildConfig", "spec.runPolicy", "SerialLatest"),
        ("BuildConfig", "spec.source.type", "git"),
        ("BuildConfig", "spec.strategy.type", "S2I"),
        ("BuildConfig", "spec.triggers.0.type", "OnConfigChange"),
        ("BuildConfig", "spec.successfulBuildsHistoryLimit", "2"),
        ("BuildConfig", "apiVersion", "v1"),
        ("ImageStream", "apiVersion", "build.openshift.io/v1"),
        ("Route", "spec.tls.termination", "Edge"),
        ("Route", "spec.tls.insecureEdgeTerminationPolicy", "redirect"),
        ("Route", "spec.to.kind", "Deployment"),
        ("Route", "metadata.annotations", {"haproxy.router.openshift.io/timeout": 4}),
        ("Template", "parameters.0.required", "false"),
        ("Template", "parameters.0.generate", "expr"),
        ("Template", "labels", {"bindable": False}),
        ("Template", "objects", {}),
    ],
)
def test_wrong_values_are_found(kind: str, path: str, value: Any, of_openshift: Check) -> None:
    thing = manifests.template(manifests.NAMES[0]) if kind == "Template" else copy.deepcopy(LONGEST[kind])
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    at(thing, tuple(above))[last] = value
    found = of_openshift(thing)
    assert found
    assert all(one.startswith(path) for one in found), found


@pytest.mark.parametrize("kind", ["BuildConfig", "Route"])
def test_what_must_be_there_is_missed(kind: str, of_openshift: Check) -> None:
    thing = {key: value for key, value in LONGEST[kind].items() if key != "spec"}
    assert of_openshift(thing) == [": 'spec' is a required property"]


def test_a_kind_that_a_version_does_not_have_is_an_error() -> None:
    old = LONGEST["PodDisruptionBudget"] | {"apiVersion": "policy/v1beta1"}
    assert "Couldn't find schema" in str(kubernetes.errors(old, kubernetes.VERSIONS[-1]))


def test_without_go_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_go() -> NoReturn:
        raise NotMade("Go 1.24 or newer")

    monkeypatch.setitem(published.ENVIRON, "XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(published, "find_go", find_go)
    with pytest.raises(NotThere, match=r"go, which fetches github\.com/openshift/api"):
        openshift.path()
    assert not list(tmp_path.rglob("*.json"))


def test_another_content_is_refused(
    of_openshift: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(published.ENVIRON, "XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openshift, "MODULE", replace(openshift.MODULE, checksum="h1:another"))
    with pytest.raises(AssertionError, match="is not what it was"):
        openshift.path()
    assert not list(tmp_path.rglob("*.json"))
