"""Files that say something to other builders: named where they are not obeyed, so that nobody wonders."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ipython_builder.errors import RepositoryError
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Where

HOOKS = (".ipython-builder/pre-build", ".ipython-builder/post-build")
_HOOK_HINT = "not obeyed: a command that must run at build time is written as .ipython-builder/post-build"
_NOT_PYTHON = "not obeyed: only Python environments are built"
# Where Binder looks for them: its folder, else the root.
_BINDER = {
    "postBuild": _HOOK_HINT,
    "start": "not obeyed: variables for a session are given to whoever starts it",
    "install.R": _NOT_PYTHON,
    "DESCRIPTION": _NOT_PYTHON,
    "Project.toml": _NOT_PYTHON,
    "REQUIRE": _NOT_PYTHON,
    "default.nix": "not obeyed: Nix is not used",
    "Pipfile": "not obeyed: run `pipenv lock`, its Pipfile.lock is read",
    "poetry.lock": "not obeyed: `poetry export --output requirements.txt` writes what is read",
    "conda-lock.yml": "not obeyed: conda is not used",
    "setup.py": "not executed to learn what it needs: list that in requirements.txt (./ there installs it)",
}


def name_the_rest(
    asked: Asked, tree: Tree, folders: Sequence[str], present: Sequence[str], file: str | None
) -> None:
    """A notice for everything that might have been expected to count and does not.

    Args:
        present: the files that say what to install.
        file: the one of them that speaks.
    """
    where, _, name = (file or "").rpartition("/")
    for other in present:
        folder, _, its_name = other.rpartition("/")
        belongs = folder == where and (name, its_name) in {
            ("uv.lock", "pyproject.toml"),
            ("pylock.toml", "pyproject.toml"),
            ("requirements.txt", "requirements.in"),
        }
        if other != file and not belongs:
            asked.notice(other, f"not obeyed, because {file} speaks")
    if name == "requirements.in":
        asked.notice(
            file or "", "no versions are locked: `ipython-builder lock` writes a requirements.txt from it"
        )
    for one, message in _BINDER.items():
        found = next((f"{folder}{one}" for folder in folders if tree.exists(f"{folder}{one}")), None)
        answered = (
            (one == "setup.py" and (tree.root in asked.local_paths or tree.exists("pyproject.toml")))
            or (one == "Pipfile" and name == "Pipfile.lock")
            or (one == "start" and found == "start" and not re.match(r"#!", _head(tree, found)))
        )
        if found and not answered:
            asked.notice(found, message)
    for folder in folders:
        if folder and tree.exists(f"{folder}Dockerfile"):
            asked.notice(f"{folder}Dockerfile", "not obeyed: `ipython-builder build` makes the image")


def system_packages(asked: Asked, tree: Tree, folders: Sequence[str]) -> tuple[str, ...]:
    """The names in apt.txt.

    Raises:
        RepositoryError: a line is no name of a package.
    """
    file = next((f"{folder}apt.txt" for folder in folders if tree.exists(f"{folder}apt.txt")), None)
    if file is None:
        return ()
    found: list[str] = []
    for number, raw in enumerate((tree.read(file) or "").split("\n"), 1):
        for word in raw.partition("#")[0].split():
            if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?", word):
                raise RepositoryError(
                    f"{Where(file, number)}: {word[:80]!r} is no name of a system package",
                    "write one name a line",
                )
            if word not in found:
                found.append(word)
    if found:
        asked.notice(
            file, f"system packages are not installed, they have to be there already: {' '.join(found)}"
        )
    return tuple(found)


def hooks(asked: Asked, tree: Tree) -> tuple[str, ...]:
    """The hooks that exist."""
    found = tuple(hook for hook in HOOKS if tree.exists(hook))
    for hook in found:
        path = tree.inside(tree.root / hook, Where(hook), hook)
        if not path.is_file():
            raise RepositoryError(f"{hook} is no file", "make it an executable script")
        asked.notice(hook, "a hook: it runs in image builds, elsewhere only with --allow-hooks")
    return found


def _head(tree: Tree, relative: str) -> str:
    path = tree.root / relative
    if not path.is_file():
        return ""
    with tree.inside(path, Where(relative), relative).open("rb") as stream:
        return stream.read(2).decode("latin-1")
