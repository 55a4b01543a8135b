"""What `up` makes of the templates on OpenShift, seen without one; `tests.test_openshift` has it done."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ipython_builder.errors import UsageError
from ipython_builder.platforms import objects
from ipython_builder.platforms.objects import Names, Order
from ipython_builder.platforms.public import Public
from tests.conftest import missing
from tests.schemas import openshift
from tests.schemas.published import NotThere

ORDER = Order(
    names=Names("tt", "ada"),
    engines=2,
    source="https://git.example.org/me/notebooks.git",
    ref="v2",
    builder="ipython-builder:latest",
)
BUILT = "image-registry.example.org/lab/ipcluster-tt@sha256:1"


def made(order: Order) -> list[dict[str, Any]]:
    return objects.cluster_of(order, openshift=True) + objects.viewer_of(order, openshift=True)


def kind(order: Order, name: str) -> list[dict[str, Any]]:
    return [one for one in made(order) if one["kind"] == name]


@pytest.mark.parametrize("binary", [False, True])
def test_one_build_that_nothing_else_starts(binary: bool) -> None:
    (config,) = kind(replace(ORDER, binary=binary), "BuildConfig")
    assert config["spec"]["triggers"] == []
    assert config["spec"]["source"]["type"] == ("Binary" if binary else "Git")
    assert ("git" in config["spec"]["source"]) is not binary
    assert len(kind(ORDER, "ImageStream")) == 1


def test_what_was_built_is_named_and_later_builds_take_its_place() -> None:
    deployments = kind(replace(ORDER, built=BUILT), "Deployment")
    assert len(deployments) == 3
    for one in deployments:
        assert [part["image"] for part in one["spec"]["template"]["spec"]["containers"]] == [BUILT]
        (trigger,) = json.loads(one["metadata"]["annotations"]["image.openshift.io/triggers"])
        assert trigger["from"]["name"] == "ipcluster-tt:latest"


def test_an_image_that_is_given_is_not_built_and_not_replaced() -> None:
    order = replace(ORDER, image="registry.example.org/me/notebooks")
    assert kind(order, "BuildConfig") == kind(order, "ImageStream") == []
    for one in kind(order, "Deployment"):
        assert "image.openshift.io/triggers" not in one["metadata"]["annotations"]


@pytest.mark.parametrize("name", ["BuildConfig", "ImageStream", "Route"])
def test_openshift_has_schemas_for_it(name: str) -> None:
    try:
        found = [openshift.errors(one) for one in kind(ORDER, name)]
    except NotThere as error:
        missing(str(error))
    assert found == [[]]


def test_a_host_name_by_ingress_and_at_a_gateway() -> None:
    def served(**public: str) -> dict[str, Any]:
        order = replace(
            ORDER, image="registry.example.org/me/notebooks", public=Public("a.example.org", **public)
        )
        every = objects.viewer_of(order, openshift=False)
        (one,) = [one for one in every if one["kind"] in ("Ingress", "HTTPRoute", "Route")]
        return one

    ingress = served(tls_secret="own", ingress_class="nginx")
    assert ingress["spec"]["tls"] == [{"hosts": ["a.example.org"], "secretName": "own"}]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    route = served(gateway="infra/front")
    assert route["spec"]["parentRefs"] == [{"name": "front", "namespace": "infra"}]
    assert route["spec"]["hostnames"] == ["a.example.org"]
    assert route["metadata"]["name"] == ingress["metadata"]["name"] == "nbviewer-ada-tt"
    urls = [
        one["metadata"]["annotations"]["ipython-builder.github.io/url"] for one in (ingress, route, served())
    ]
    assert urls == ["https://a.example.org/", "https://a.example.org/", "http://a.example.org/"]


@pytest.mark.parametrize(
    ("public", "why"),
    [
        (Public("http://a.example.org"), "is no host name"),
        (Public("A.example.org"), "is no host name"),
        (Public(None, tls_secret="own"), "name it with --host"),
        (Public("", gateway="front"), "name it with --host"),
        (Public("a.example.org", tls_secret="own", gateway="front"), "is for an Ingress"),
        (Public("a.example.org", gateway="a/b/c"), "is no name of a Gateway"),
    ],
)
def test_public_names_that_cannot_be_meant(public: Public, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        public.check()
    assert why in f"{caught.value.message} {caught.value.hint}"
