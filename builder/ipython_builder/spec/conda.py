"""environment.yml: its pip-installable part; what only conda has is named in an error."""

from __future__ import annotations

import re
from typing import Any

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ipython_builder.errors import RepositoryError
from ipython_builder.spec import lines
from ipython_builder.spec.conda_names import MEANINGLESS, on_pypi
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Where
from ipython_builder.spec.requirements import read_text

_SPEC = re.compile(
    r"(?:(?P<channel>[\w./:+-]+)::)?(?P<name>[A-Za-z0-9_][\w.-]*?)\s*(?P<version>[=<>!~\s].*)?"
)
_KNOWN = {"name", "channels", "dependencies", "prefix", "platforms", "variables", "category"}


def read(asked: Asked, tree: Tree, relative: str) -> str:
    """Collect an environment.yml, and return its wish for a Python as a specifier set (empty: none).

    Raises:
        RepositoryError: not YAML, a line that cannot be translated, packages that only conda has.
    """
    content, places = _load(tree, relative)
    for key in sorted(set(content) - _KNOWN):
        asked.notice(relative, f"its {key!r} is not known and not obeyed")
    if content.get("variables"):
        asked.notice(relative, "its variables are not set: give them to whoever starts the cluster")
    entries = content.get("dependencies") or []
    if not isinstance(entries, list):
        raise RepositoryError(f"{relative}: dependencies must be a list", f"mend {relative}")
    python, only_conda = "", []
    for entry in entries:
        if isinstance(entry, dict):
            _read_pip(asked, tree, relative, entry, places)
            continue
        if not isinstance(entry, str):
            raise RepositoryError(f"{relative}: {entry!r} is no dependency", "write it as in numpy=1.26")
        where = Where(relative, places.get(entry))
        match = _SPEC.fullmatch(entry.strip())
        if match is None or "[" in entry:
            raise RepositoryError(
                f"{where}: {entry!r} cannot be translated for pip", "write it as in numpy=1.26"
            )
        channel, name = match["channel"], match["name"].lower()
        if name in ("python", "cpython"):
            python = versions(match["version"] or "", where, entry)
        elif name in MEANINGLESS:
            asked.notice(relative, f"{name} is not obeyed: it only chooses between builds that conda has")
        elif (pypi := on_pypi(name, channel)) is None:
            only_conda.append(entry.strip())
        else:
            lines.add(asked, tree, pypi + versions(match["version"] or "", where, entry), where)
    if only_conda:
        raise RepositoryError(
            f"{relative} asks for what only conda has: {', '.join(only_conda)}",
            f"put what pip can install into a requirements.txt, which speaks before {relative}; "
            "system programs have to be on the machine, or in the image, already",
        )
    asked.notice(
        relative,
        "conda is not used: its packages are installed from the Python index under their names there",
    )
    return python


def versions(text: str, where: Where, entry: str) -> str:
    """A conda version constraint (with a build string, which is dropped) as a PEP 440 specifier set.

    Raises:
        RepositoryError: it cannot be said in PEP 440, as ``1.2|1.4``.
    """
    text = text.strip()
    if not text or text == "*":
        return ""
    if "|" in text:
        raise RepositoryError(
            f"{where}: {entry!r}: alternatives cannot be said to pip", "choose one, or write a range"
        )
    exact = re.fullmatch(r"(={0,2})\s*(\w[\w.!+-]*?)(\.?\*)?(?:[=\s]+[\w.*]+)?", text)
    if exact:
        equals, version, star = exact.groups()
        # conda's single = is fuzzy, `1.26` then means 1.26.*; == and a bare version are exact.
        fuzzy = equals == "=" and "=" not in text[1:]
        parts = [f"=={version}{'.*' if star or fuzzy else ''}"]
    else:
        parts = [
            part.strip().split()[0] if part.strip() else ""
            for part in re.sub(r"([<>=!~])\s+", r"\1", text).split(",")
        ]
        parts = [re.sub(r"^=(?!=)(.*?)(\.?\*)?$", r"==\1.*", part) for part in parts]
        parts = [re.sub(r"^([<>]=?.*?)\.?\*$", r"\1", part) for part in parts]  # `>=1.2.*` is `>=1.2`
    try:
        return str(SpecifierSet(",".join(parts)))
    except InvalidSpecifier as error:
        raise RepositoryError(
            f"{where}: {entry!r} cannot be translated for pip", "write it as in numpy=1.26"
        ) from error


def _read_pip(asked: Asked, tree: Tree, relative: str, entry: dict[Any, Any], places: dict[str, int]) -> None:
    unknown = [key for key in entry if key != "pip"]
    if unknown:
        raise RepositoryError(
            f"{relative}: {unknown[0]!r} is no list of dependencies", "only `pip:` may stand there"
        )
    section = entry["pip"] or []
    if not isinstance(section, list) or not all(isinstance(one, str) for one in section):
        raise RepositoryError(f"{relative}: pip must be a list of requirements", f"mend {relative}")
    # Each at its own line number, so that errors name it.
    for text in section:
        read_text(asked, tree, "\n" * (places.get(text, 1) - 1) + text.replace("\n", " "), relative)


def _load(tree: Tree, relative: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The document, and the line that each scalar stands in first."""
    text = tree.read(relative) or ""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node = yaml.compose(text, Loader=loader)
        content = yaml.load(text, Loader=loader)  # noqa: S506 - it is a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        number = mark.line + 1 if mark else None
        rows = text.split("\n")
        shown = f": {rows[number - 1].strip()[:80]!r}" if number and number <= len(rows) else ""
        raise RepositoryError(
            f"{Where(relative, number)}: not YAML: {error.problem}{shown}", f"mend {relative}"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RepositoryError(
            f"{relative}: not YAML that can be read: {error}", f"mend {relative}"
        ) from error
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RepositoryError(
            f"{relative} is no conda environment: it has no dependencies", f"mend {relative}"
        )
    places: dict[str, int] = {}
    waiting: list[Any] = [node] if node else []
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:  # an alias
            continue
        seen.add(id(one))
        if isinstance(one, yaml.ScalarNode):
            places.setdefault(one.value, one.start_mark.line + 1)
        elif isinstance(one, yaml.SequenceNode):
            waiting.extend(one.value)
        elif isinstance(one, yaml.MappingNode):
            waiting.extend(part for pair in one.value for part in pair)
    return content, places
