"""The templates as they are written, and the objects that they make: what several tests look at."""

from __future__ import annotations

import copy
import functools
from typing import Any

import yaml

from ipython_builder import templates
from tests.conftest import CHECKOUT

FOLDER = CHECKOUT / "templates"
NAMES = (
    *("ipython-notebook-workspace", "ipython-notebook-repository"),
    *("ipython-cluster-workspace", "ipython-cluster-repository"),
)
# Both labels given, so that what is made is the same each time. What is asked for is not in any name.
LABELS = {"IPYTHON_CLUSTER_LABEL": "physics", "IPYTHON_USER_LABEL": "ada"}
PASSWORD = "a password that is nowhere else"

Object = dict[str, Any]


def template(name: str) -> Object:
    """One of the four, as it is written."""
    written: Object = copy.deepcopy(_read(name))
    return written


def builder() -> list[Object]:
    """What makes the builder images in a cluster."""
    written: list[Object] = copy.deepcopy(_read("ipython-builder")["items"])
    return written


@functools.cache
def _read(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


@functools.cache
def _made(name: str, values: tuple[tuple[str, str], ...]) -> list[Object]:
    return list(templates.process(templates.load(name), dict(values)).objects)


def made(name: str, **values: str) -> list[Object]:
    """A template's objects, of the labels above where no others are given."""
    known = {one["name"] for one in template(name)["parameters"]}
    values = LABELS | {"IPYTHON_USER_PASSWORD": PASSWORD} | values
    return copy.deepcopy(_made(name, tuple((k, v) for k, v in values.items() if k in known)))


def both(kind: str, **values: str) -> list[Object]:
    """A notebook and its cluster, of the kind ``workspace`` or ``repository``."""
    return made(f"ipython-notebook-{kind}", **values) + made(f"ipython-cluster-{kind}", **values)
