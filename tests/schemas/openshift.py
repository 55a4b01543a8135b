"""OpenShift's own schemas of Template, BuildConfig, ImageStream and Route: ``python -m tests.schemas.openshift``.

They are in the Go module that its API is published in.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from tests.schemas.published import Module

MODULE = Module(
    "github.com/openshift/api",
    "v0.0.0-20260309185601-71270106f276",
    "h1:9QZuPCOT0ME3I7NmsAGBuzGvEyCyzQhAmbfmfCmrLhI=",
)
INSIDE = "openapi/openapi.json"

GROUPS = {"Template": "template", "BuildConfig": "build", "ImageStream": "image", "Route": "route"}
# What may stand in fields that the schemas call strings: the constants of the same module's types.
VALUES = {
    "build.v1.BuildSource.type": ("Git", "Dockerfile", "Binary", "Image", "None"),
    "build.v1.BuildStrategy.type": ("Docker", "Source", "Custom", "JenkinsPipeline"),
    "build.v1.BuildTriggerPolicy.type": (
        *("GitHub", "GitLab", "Bitbucket", "Generic"),
        *("ImageChange", "ConfigChange"),
    ),
    "build.v1.BuildConfigSpec.runPolicy": ("Parallel", "Serial", "SerialLatestOnly"),
    "route.v1.RouteTargetReference.kind": ("Service",),
    "route.v1.TLSConfig.termination": ("edge", "passthrough", "reencrypt"),
    "route.v1.TLSConfig.insecureEdgeTerminationPolicy": ("None", "Allow", "Redirect"),
    "template.v1.Parameter.generate": ("expression",),
}


def errors(thing: Mapping[str, Any]) -> list[str]:
    """What is wrong with an object of one of the four kinds, as ``path: message``; none when nothing is.

    Raises:
        NotThere: the schemas cannot be had.
    """
    found = validator(str(thing["kind"])).iter_errors(thing)
    return [f"{'.'.join(map(str, one.absolute_path))}: {one.message}" for one in found]


@functools.cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    """What validates objects of this kind, with the definitions that it needs."""
    prefix = "com.github.openshift.api."
    everything = json.loads(path().read_text(encoding="utf-8"))["definitions"]
    root = f"{prefix}{GROUPS[kind]}.v1.{kind}"
    schema = strict(everything[root])
    schema["properties"]["apiVersion"] = {"const": f"{GROUPS[kind]}.openshift.io/v1"}
    schema["properties"]["kind"] = {"const": kind}
    schema["required"] = ["apiVersion", "kind", "metadata", *everything[root].get("required", [])]
    definitions = {name: strict(one) for name, one in everything.items()}
    for field, values in VALUES.items():
        definition, _, name = field.rpartition(".")
        definitions[prefix + definition]["properties"][name] = {"enum": list(values)}
    return jsonschema.Draft202012Validator(schema | {"definitions": definitions})


def strict(schema: Any) -> Any:
    """A definition as JSON Schema that allows nothing but what it names.

    An object without properties stays open: a map of labels, or another object as it is (``RawExtension``).
    """
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        made["additionalProperties"] = False
    return made


def path() -> Path:
    """The file of the schemas; fetched where it is not there.

    Raises:
        NotThere: there is no Go, or it could not fetch them.
    """
    return MODULE.file(INSIDE, "openshift-api-{}.json")


if __name__ == "__main__":
    print(path())
