"""Gateway API as it is published: the definitions that make a Kubernetes know its kinds."""

from __future__ import annotations

from pathlib import Path

from tests.schemas.published import Module

MODULE = Module("sigs.k8s.io/gateway-api", "v1.4.0", "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ=")
KINDS = ("gateways", "httproutes")


def definitions() -> list[Path]:
    """Files with the definitions of these kinds.

    Raises:
        NotThere: they cannot be had.
    """
    name = "gateway.networking.k8s.io_{}.yaml"
    return [
        MODULE.file(f"config/crd/standard/{name.format(kind)}", f"gateway-api-{{}}-{kind}.yaml")
        for kind in KINDS
    ]
