"""pyproject.toml: what [project] asks for, read as data; no build backend is asked anything."""

from __future__ import annotations

from typing import Any

from ipython_builder.errors import RepositoryError
from ipython_builder.spec import lines
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Where
from ipython_builder.spec.requirements import index_url

_POETRY_HINT = (
    "run `poetry export --format requirements.txt --output requirements.txt`, "
    "or move the dependencies to [project] (poetry 2 reads them there)"
)
# Tables whose presence says that somebody told a build backend what to pack.
_PACKING = ("setuptools", "hatch", "flit", "pdm", "poetry", "maturin", "scikit-build", "meson-python")


def speaks(tree: Tree, relative: str) -> bool:
    """Does this pyproject.toml say what to install? Many only configure tools."""
    table = tree.toml(relative) or {}
    project = _table(table, "project", relative)
    dynamic = project.get("dynamic", [])
    return bool(
        project.get("dependencies")
        or (isinstance(dynamic, list) and "dependencies" in dynamic)
        or is_package(tree, relative)
    )


def declares(tree: Tree, relative: str) -> bool:
    """Does it speak, or would it to poetry?"""
    return speaks(tree, relative) or bool(_poetry(tree.toml(relative) or {}))


def refuse_poetry(tree: Tree, relative: str) -> None:
    """Raise if [tool.poetry] says what to install and nothing that can be read does."""
    table = tree.toml(relative) or {}
    if _poetry(table):
        raise RepositoryError(
            f"{relative}: dependencies stand in [tool.poetry] only, which poetry alone reads", _POETRY_HINT
        )


def read(asked: Asked, tree: Tree, relative: str) -> None:
    """Collect [project] dependencies, and the folder itself if it is a package.

    Raises:
        RepositoryError: not TOML, dependencies that only a build backend knows, a line that is none.
    """
    table = tree.toml(relative) or {}
    project = _table(table, "project", relative)
    if not project and _poetry(table):
        refuse_poetry(tree, relative)  # a package by its [build-system], but its needs are poetry's secret
    if "dependencies" in strings(project, "dynamic", relative):
        raise RepositoryError(
            f"{relative}: the dependencies of [project] are dynamic: only running its build would tell them",
            "list them in [project] dependencies, or in a requirements.txt beside it",
        )
    for number, text in enumerate(strings(project, "dependencies", relative), 1):
        lines.add(
            asked,
            tree,
            text,
            _place(tree, relative, text, f"dependencies, entry {number}"),
            base=_folder(relative),
        )
    uv = _table(_table(table, "tool", relative), "uv", relative)
    if uv.get("sources"):
        asked.notice(
            relative, "[tool.uv.sources] is obeyed through a lock only: run `uv lock` and commit uv.lock"
        )
    add_indexes(asked, tree, relative)
    add_itself(asked, tree, relative)


def add_itself(asked: Asked, tree: Tree, relative: str) -> None:
    """Ask for the folder of `relative` if it is a package."""
    if is_package(tree, relative):
        lines.add(asked, tree, f"./{_folder(relative)}", Where(relative))
        asked.notice(
            relative,
            "the repository is a package and is installed as one, not editable; modules beside the notebooks "
            "are imported from there all the same",
        )


def add_indexes(asked: Asked, tree: Tree, relative: str) -> None:
    """Ask for the indexes of [[tool.uv.index]]."""
    tool = _table(tree.toml(relative) or {}, "tool", relative)
    indexes = _table(tool, "uv", relative).get("index", [])
    for entry in indexes if isinstance(indexes, list) else []:
        url = entry.get("url") if isinstance(entry, dict) else None
        if isinstance(url, str) and index_url(url, Where(relative)) not in asked.index_urls:
            asked.index_urls.append(url)


def is_package(tree: Tree, relative: str) -> bool:
    """Is there a build system, and anything that it could pack?

    A [build-system] alone is often left over from a template; building would fail, or pack the notebooks.
    """
    table = tree.toml(relative) or {}
    tool = _table(table, "tool", relative)
    uv = _table(tool, "uv", relative)
    if "build-system" not in table or uv.get("package") is False:
        return False
    project = _table(table, "project", relative)
    name = project.get("name")
    if not isinstance(name, str):
        return bool(_poetry(table))
    folder = tree.root / _folder(relative)
    module = name.lower().replace("-", "_").replace(".", "_")
    return (
        any(one in tool for one in _PACKING)
        or (folder / "src").is_dir()
        or (folder / "setup.py").is_file()
        or (folder / f"{module}.py").is_file()
        or (folder / module).is_dir()
    )


def requires_python(tree: Tree, relative: str) -> str | None:
    """[project] requires-python as it stands; None if it does not say."""
    value = _table(tree.toml(relative) or {}, "project", relative).get("requires-python")
    if value is not None and not isinstance(value, str):
        raise RepositoryError(
            f"{relative}: requires-python must be a text such as '>=3.11'", f"mend {relative}"
        )
    return value


def strings(table: dict[str, Any], key: str, relative: str) -> list[str]:
    """A list of texts in a table; none is an empty one."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise RepositoryError(f"{relative}: {key} must be a list of texts", f"mend {relative}")
    return value


def _table(table: dict[str, Any], key: str, relative: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise RepositoryError(f"{relative}: {key} must be a table", f"mend {relative}")
    return value


def _poetry(table: dict[str, Any]) -> dict[str, Any]:
    tool = table.get("tool")
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    return poetry if isinstance(poetry, dict) and "dependencies" in poetry else {}


def _folder(relative: str) -> str:
    return relative.rpartition("/")[0]


def _place(tree: Tree, relative: str, text: str, otherwise: str) -> Where:
    """The line that an entry stands in; TOML does not tell, so it is looked for."""
    for number, line in enumerate((tree.read(relative) or "").split("\n"), 1):
        if text in line:
            return Where(relative, number)
    return Where(f"{relative} ({otherwise})")
