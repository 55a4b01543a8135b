"""Lock files: uv.lock, pylock.toml and Pipfile.lock."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ipython_builder import commands
from ipython_builder.errors import BuilderError, RepositoryError
from ipython_builder.spec import lines, pyproject, python
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Where
from ipython_builder.spec.requirements import index_url, read_text

_EXPORT = (
    *("export", "--no-cache", "--no-config", "--offline", "--frozen"),
    *("--no-emit-project", "--no-header", "--no-annotate", "--format", "requirements-txt"),
)


def read_uv(asked: Asked, tree: Tree, relative: str) -> None:
    """Collect uv.lock through ``uv export``, which knows its format.

    uv looks at the ``.venv`` of a project and starts the interpreter in it, and it reads the projects in
    folders above. So it sees a copy that has nothing but the lock and the project files.

    Raises:
        RepositoryError: no pyproject.toml beside it, or uv cannot read them.
    """
    folder = relative.rpartition("/")[0]
    project = f"{folder}/pyproject.toml".lstrip("/")
    text = tree.read(relative)
    if text is None or tree.toml(project) is None:
        raise RepositoryError(
            f"{relative} cannot be read without the pyproject.toml that it was made from",
            "commit pyproject.toml beside it, or remove uv.lock",
        )
    with tempfile.TemporaryDirectory(prefix="ipython-builder-") as temporary:
        copy = Path(temporary, "project")
        for name, content in {relative: text, **_projects(tree, folder)}.items():
            target = copy / name[len(folder) :].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
        environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": temporary, "NO_COLOR": "1"}
        environ |= {"UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT_ENVIRONMENT": f"{temporary}/none"}
        result = commands.run(
            [find_uv(), *_EXPORT, "--python", sys.executable], cwd=copy, env=environ, timeout=60
        )
    if result.returncode:
        said = result.stderr.replace(f"{copy}/", "").strip()
        place = re.search(r"at line (\d+)", said)
        where = Where(relative, int(place[1])) if place else Where(relative)
        raise RepositoryError(f"{where}: uv cannot read it:\n{said}", "run `uv lock` and commit both files")
    read_text(asked, tree, result.stdout, relative)
    pyproject.add_indexes(asked, tree, project)
    pyproject.add_itself(asked, tree, project)


def find_uv() -> str:
    """The uv that was installed with us, else the one on PATH.

    Raises:
        BuilderError: there is none.
    """
    try:
        import uv

        return os.fspath(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        found = shutil.which("uv")
        if found is None:
            raise BuilderError("uv is not installed", "install it: pip install uv") from error
        return found


def read_pylock(asked: Asked, tree: Tree, relative: str) -> None:
    """Look through a pylock.toml, which uv then gets as it is.

    Raises:
        RepositoryError: not one, or a path in it leads out of the checkout.
    """
    table = tree.toml(relative) or {}
    packages = table.get("packages")
    if not isinstance(table.get("lock-version"), str) or not isinstance(packages, list):
        raise RepositoryError(
            f"{relative} has no lock-version or no packages", "write it again, as with `uv export`"
        )
    where = Where(relative)
    for package in packages:
        name = package.get("name") if isinstance(package, dict) else None
        if not isinstance(name, str):
            raise RepositoryError(
                f"{relative}: a package without a name", "write it again, as with `uv export`"
            )
        asked.names.append(canonicalize_name(name))
        version = package.get("version")
        if name == "ipyparallel" and isinstance(version, str):
            try:
                lines.check_ipyparallel(Requirement(f"{name}=={version}"), where)
            except InvalidRequirement as error:
                raise RepositoryError(f"{relative}: {version!r} is no version", f"mend {relative}") from error
        _check_sources(asked, tree, package, where)
    asked.pylock = tree.inside(tree.root / relative, where, relative)


def read_pipfile(asked: Asked, tree: Tree, relative: str) -> None:
    """Collect the default section of a Pipfile.lock.

    Raises:
        RepositoryError: not one, or an entry that cannot be installed from here.
    """
    content = tree.json(relative)
    default = content.get("default") if isinstance(content, dict) else None
    if not isinstance(default, dict):
        raise RepositoryError(f"{relative} has no default section", "write it again with `pipenv lock`")
    for name, entry in default.items():
        if not isinstance(entry, dict):
            raise RepositoryError(
                f"{relative}: the entry of {name!r} is no object", "run `pipenv lock` again"
            )
        hashes = entry.get("hashes", [])
        if not isinstance(hashes, list):
            raise RepositoryError(
                f"{relative}: the hashes of {name!r} are no list", "run `pipenv lock` again"
            )
        text = _pipfile_line(name, entry)
        lines.add(
            asked,
            tree,
            text,
            Where(relative),
            hashes=[str(h) for h in hashes],
            editable=bool(entry.get("editable")),
        )
    meta = content.get("_meta")
    sources = meta.get("sources", []) if isinstance(meta, dict) else []
    # The first source is the index itself, which the caller configures; the others are extra ones.
    for source in sources[1:] if isinstance(sources, list) else []:
        url = source.get("url") if isinstance(source, dict) else None
        if isinstance(url, str) and index_url(url, Where(relative)) not in asked.index_urls:
            asked.index_urls.append(url)


def requires_python(tree: Tree, relative: str) -> str | None:
    """What a pylock.toml or a Pipfile.lock says about the Python."""
    if relative.endswith(".toml"):
        value = (tree.toml(relative) or {}).get("requires-python")
        return value if isinstance(value, str) else None
    meta = tree.json(relative).get("_meta")
    requires = meta.get("requires") if isinstance(meta, dict) else None
    version = requires.get("python_version") if isinstance(requires, dict) else None
    return python.wish(version, Where(relative)) if isinstance(version, str) else None


def _pipfile_line(name: str, entry: dict[str, Any]) -> str:
    extras = entry.get("extras") or []
    full = name + (f"[{','.join(map(str, extras))}]" if isinstance(extras, list) and extras else "")
    marker = f" ; {entry['markers']}" if entry.get("markers") else ""
    if entry.get("git"):
        ref = f"@{entry['ref']}" if entry.get("ref") else ""
        below = f"#subdirectory={entry['subdirectory']}" if entry.get("subdirectory") else ""
        url = str(entry["git"])
        return f"{full} @ {url if url.startswith('git+') else 'git+' + url}{ref}{below}{marker}"
    for key in ("file", "path"):
        if entry.get(key):
            return f"{full} @ {entry[key]}{marker}"
    version = entry.get("version", "")
    return f"{full}{'' if version == '*' else version}{marker}"


def _projects(tree: Tree, folder: str) -> dict[str, str]:
    """The pyproject.toml files of a project and of its workspace's members, by relative path."""
    top = f"{folder}/pyproject.toml".lstrip("/")
    table = tree.toml(top) or {}
    tool = table.get("tool")
    uv = tool.get("uv") if isinstance(tool, dict) else None
    workspace = uv.get("workspace") if isinstance(uv, dict) else None
    found = {top: tree.read(top) or ""}
    members = workspace.get("members", []) if isinstance(workspace, dict) else []
    for pattern in members if isinstance(members, list) else []:
        # What leads out, uv will not find in the copy and say so.
        if (
            not isinstance(pattern, str)
            or pattern.startswith("/")
            or ".." in pattern.split("/")
            or not pattern
        ):
            continue
        for path in sorted((tree.root / folder).glob(pattern)):
            name = (path / "pyproject.toml").relative_to(tree.root).as_posix()
            if tree.exists(name):
                found[name] = tree.read(name) or ""
    return found


def _check_sources(asked: Asked, tree: Tree, package: dict[str, Any], where: Where) -> None:
    entries = [package.get(key) for key in ("vcs", "directory", "archive", "sdist")]
    wheels = package.get("wheels")
    entries += wheels if isinstance(wheels, list) else []
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        url, path = entry.get("url"), entry.get("path")
        if isinstance(url, str):
            lines.refuse_variables(url, where)
            git = "git+" if entry is package.get("vcs") and not url.startswith("git+") else ""
            lines.check_url(tree, git + url, where)
            commit = str(entry.get("commit-id", ""))
            if entry is package.get("vcs") and not re.fullmatch(r"[0-9a-f]{40,64}", commit):
                raise RepositoryError(
                    f"{where}: {package['name']} has no commit-id: nothing locks what its branch points at",
                    "write the lock again, as with `uv export --format pylock.toml`",
                )
        elif isinstance(path, str):
            lines.refuse_variables(path, where)
            asked.local_paths.append(lines.local_path(tree, path, where, where.file.rpartition("/")[0]))
