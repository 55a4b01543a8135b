"""Schemas of Kubernetes' own kinds, from the kubernetes-validate package, which has those of many versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kubernetes_validate

# The oldest has unhealthyPodEvictionPolicy (OpenShift 4.14 is Kubernetes 1.27), the others are of later OpenShifts.
VERSIONS = ("1.27", "1.29", "1.32", "1.34", "1.37")


def errors(thing: Mapping[str, Any], version: str) -> list[str]:
    """What is wrong with an object, as ``path: message``; none when it is as this version wants it."""
    try:
        used = kubernetes_validate.validate(dict(thing), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [f"kind: {error.message}"]
    # It takes an older version's schemas where it has none of this one.
    assert used == version
    return []
