"""OpenShift templates: a template and values for its parameters become objects, as with `oc process --local`.

To the letter of library-go (pkg/template/templateprocessing), down to what it adds and takes away:

- ``${NAME}`` stands for a value anywhere in a string, in keys too. ``${{NAME}}`` as a whole string stands for
  the value read as JSON, or as a string where it is no JSON. What names no parameter stays as it is.
- A given value beats `generate`, an empty one too; `required` is checked when everything is there.
- The template's labels, and those that are given, reach the objects' `metadata.labels`, and no pod template.
- An object's fixed namespace goes, one with ``${NAME}`` in it stays. `Route` of `v1` becomes one of
  `route.openshift.io/v1`.

Where `oc` itself comes down or leaves the result to chance, this refuses: a ``${{NAME}}`` of a number as a
key, a null in a list, two keys that become the same. So it does with an object that is null, and with a
second document in the file, of which `oc` takes no notice but a line in its output.
"""

from __future__ import annotations

import difflib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from ipython_builder import documents, expressions, substitution
from ipython_builder.errors import UsageError

API_VERSION = "template.openshift.io/v1"


@dataclass(frozen=True)
class Parameter:
    """One parameter: `from_` is the expression that `generate` makes a value from. Absent texts are empty."""

    name: str
    display_name: str = ""
    description: str = ""
    value: str = ""
    generate: str = ""
    from_: str = ""
    required: bool = False


@dataclass(frozen=True)
class Template:
    """One template as it was read.

    Attributes:
        labels: None where it has no such key: then not even an empty `labels` is added to objects.
        objects: with their parameters not yet replaced.
        notices: what is allowed but surely not meant.
        raw: the whole document.
    """

    name: str
    annotations: dict[str, str]
    labels: dict[str, str] | None
    parameters: tuple[Parameter, ...]
    objects: list[dict[str, Any]]
    message: str | None
    raw: dict[str, Any]
    notices: tuple[str, ...] = ()

    @property
    def display_name(self) -> str:
        """What a catalogue shows."""
        return self.annotations.get("openshift.io/display-name", self.name)


@dataclass(frozen=True)
class Processed:
    """What became of a template: `values` has every parameter's, generated ones too."""

    objects: list[dict[str, Any]]
    values: dict[str, str]
    message: str | None


def packaged() -> list[str]:
    """The names of the templates that come with this tool."""
    files = [one for one in _catalogue().iterdir() if one.name.endswith(".yaml")]
    # The catalogue has lists of other objects too; parsing all of it only to know would be slow.
    templates = [
        one for one in files if re.search(r"^kind: Template$", one.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    return sorted(one.name.removesuffix(".yaml") for one in templates)


def text(name: str) -> str:
    """The file of a template that comes with this tool.

    Raises:
        UsageError: there is none of this name.
    """
    known = packaged()
    if name not in known:
        raise UsageError(f"there is no template {name!r}", _near(name, known, "they are"))
    found: str = (_catalogue() / f"{name}.yaml").read_text(encoding="utf-8")
    return found


def builder() -> list[dict[str, Any]]:
    """The objects that make the builder images in the cluster: they have no parameters."""
    (found,) = documents.read((_catalogue() / "ipython-builder.yaml").read_text(encoding="utf-8"))
    items: list[dict[str, Any]] = found["items"]
    return items


def load(name: str) -> Template:
    """A template that comes with this tool.

    Raises:
        UsageError: there is none of this name.
    """
    return parse(text(name), name)


def parse(text: str, where: str) -> Template:
    """The template in `text`, YAML or JSON; `where` is what errors call it.

    Raises:
        UsageError: it is not exactly one template, or has a value of another type than such a value has.
    """
    try:
        found = documents.read(text)
    except ValueError as error:
        raise UsageError(f"{where} is neither YAML nor JSON: {error}", "mend it there") from error
    if len(found) != 1:
        raise UsageError(
            f"{where} has {len(found) or 'no'} documents, not one template",
            "keep each template in its own file",
        )
    raw = _checked(found[0], dict, where, "a template")
    kind, version = raw.get("kind"), raw.get("apiVersion")
    if kind != "Template":
        many = kind in ("List", "TemplateList")
        raise UsageError(
            f"{where} is no template but {kind or 'of no kind'}",
            "give one template at a time"
            if many
            else f"give a file with kind: Template, apiVersion: {API_VERSION}",
        )
    if version != API_VERSION:
        raise UsageError(f"{where} has apiVersion {version or 'none'}", f"write apiVersion: {API_VERSION}")
    metadata = _checked(raw.get("metadata"), dict, where, "metadata")
    for key in ("name", "generateName", "namespace", "uid", "resourceVersion", "selfLink"):
        _checked(metadata.get(key), str, where, f"metadata.{key}")
    _strings(metadata.get("labels"), where, "metadata.labels")
    parameters = tuple(
        _parameter(one, where, f"parameters[{number}]")
        for number, one in enumerate(_checked(raw.get("parameters"), list, where, "parameters"))
    )
    objects = _checked(raw.get("objects"), list, where, "objects")
    for number, one in enumerate(objects):
        _check_object(one, where, f"objects[{number}]")
    labels = raw.get("labels")
    return Template(
        name=_checked(metadata.get("name"), str, where, "metadata.name"),
        annotations=_strings(metadata.get("annotations"), where, "metadata.annotations"),
        labels=None if labels is None else _strings(labels, where, "labels"),
        parameters=parameters,
        objects=objects,
        message=_checked(raw.get("message"), str, where, "message") or None,
        raw=raw,
        notices=tuple(_notices(parameters, where)),
    )


def process(
    template: Template,
    values: Mapping[str, str],
    *,
    labels: Mapping[str, str] | None = None,
    draw: Callable[[int], int] = secrets.randbelow,
    ignore_unknown: bool = False,
) -> Processed:
    """The objects of `template` with its parameters replaced.

    Args:
        values: for the parameters.
        labels: for every object, over those of the template; parameters in them are replaced too.
        draw: where generated values come from: a number from 0 up to what it is given, exclusive.
        ignore_unknown: whether values that no parameter is there for are left alone.

    Raises:
        UsageError: an unknown parameter, a required one that is empty, an expression that is none, or a value
            that does not fit where it is used.
    """
    chosen = _values(template, values, draw, ignore_unknown)
    merged = template.labels
    if labels:
        merged = {**(merged or {}), **labels}
    if merged is not None:
        merged = {
            substitution.replaced(key, chosen): substitution.replaced(merged[key], chosen)
            for key in sorted(merged, key=lambda key: substitution.replaced(key, chosen) != key)
        }
    objects = [
        substitution.instantiate(
            one, chosen, merged, f"objects[{number}] of {template.name or 'the template'}"
        )
        for number, one in enumerate(template.objects)
    ]
    return Processed(objects, chosen, template.message and substitution.replaced(template.message, chosen))


# -- reading --------------------------------------------------------------------------------------------


def _catalogue() -> Any:
    return resources.files("ipython_builder") / "catalogue"


def _checked(value: Any, kind: type, where: str, what: str) -> Any:
    """`value`, or the empty one for null.

    Raises:
        UsageError: it is of another type.
    """
    if value is None:
        return kind()
    if not isinstance(value, kind):
        names = {str: "a string", bool: "true or false", list: "a list", dict: "a mapping"}
        hint = (
            "put it in quotes" if kind is str and isinstance(value, bool | int | float) else "mend it there"
        )
        raise UsageError(f"{where}: {what} must be {names[kind]}, not {_shown(value)}", hint)
    return value


def _strings(value: Any, where: str, what: str) -> dict[str, str]:
    return {
        key: _checked(one, str, where, f"{what}.{key}")
        for key, one in _checked(value, dict, where, what).items()
    }


def _parameter(value: Any, where: str, what: str) -> Parameter:
    found = _checked(value, dict, where, what)

    def text(key: str) -> str:
        return str(_checked(found.get(key), str, where, f"{what}.{key}"))

    return Parameter(
        name=text("name"),
        display_name=text("displayName"),
        description=text("description"),
        value=text("value"),
        generate=text("generate"),
        from_=text("from"),
        required=_checked(found.get("required"), bool, where, f"{what}.required"),
    )


def _check_object(value: Any, where: str, what: str) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {what} must be an object, not {_shown(value)}", "mend it there")
    if not substitution.version_and_kind(value)[1]:
        raise UsageError(f"{where}: {what} has no kind, or an apiVersion that is none", "mend it there")
    if "items" in value:
        items = _checked(value["items"], list, where, f"{what}.items")
        for number, one in enumerate(items):
            _checked(one, dict, where, f"{what}.items[{number}]")


def _shown(value: Any) -> str:
    text = documents.to_json(value)
    return " ".join(text.split()) if len(text) < 60 else f"a {type(value).__name__}"


def _notices(parameters: Iterable[Parameter], where: str) -> Iterable[str]:
    seen: set[str] = set()
    for number, one in enumerate(parameters):
        if not one.name:
            yield f"{where}: parameters[{number}] has no name: nothing can refer to it"
        elif one.name in seen:
            yield f"{where}: parameter {one.name} is there twice: the first is set, the last is used"
        seen.add(one.name)


def _near(name: str, known: Iterable[str], otherwise: str) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1) or [
        one for one in known if one.lower() == name.lower()
    ]
    if near:
        return f"did you mean {near[0]}?"
    return f"{otherwise} {', '.join(known)}" if known else "there are none"


# -- values ---------------------------------------------------------------------------------------------


def _values(
    template: Template, given: Mapping[str, str], draw: Callable[[int], int], ignore_unknown: bool
) -> dict[str, str]:
    names = [one.name for one in template.parameters]
    unknown = [name for name in given if name not in names]
    if unknown and not ignore_unknown:
        known = list(dict.fromkeys(name for name in names if name))
        more = f", {len(unknown) - 1} more neither" if len(unknown) > 1 else ""
        raise UsageError(
            f"{template.name or 'the template'} has no parameter {unknown[0]!r}{more}",
            _near(unknown[0], known, "it has"),
        )
    found: dict[str, str] = {}
    missing = []
    waiting = {name: documents.characters(value) for name, value in given.items()}
    for one in template.parameters:
        if one.name in waiting:
            one = replace(one, value=waiting.pop(one.name), generate="")
        value = one.value or _generated(one, draw)
        if one.required and not value:
            missing.append(one.name)
        found[one.name] = value
    if missing:
        raise UsageError(
            f"{template.name or 'the template'} needs {', '.join(missing)}",
            "give " + " ".join(f"-p {name}=…" for name in missing),
        )
    return found


def _generated(parameter: Parameter, draw: Callable[[int], int]) -> str:
    if not parameter.generate:
        return ""
    if parameter.generate != "expression":
        raise UsageError(
            f"parameter {parameter.name}: {parameter.generate!r} is no generator",
            "write generate: expression",
        )
    try:
        return expressions.generate(parameter.from_, draw)
    except UsageError as error:
        raise UsageError(f"parameter {parameter.name}: {error.message}", error.hint) from error
