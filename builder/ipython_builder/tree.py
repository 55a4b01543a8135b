"""What a tree on this machine is: its commit, links that lead out of it, content that is missing in it.

Only reads. git is run for one question, in a way that runs nothing the tree's own configuration names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ipython_builder import commands
from ipython_builder.errors import BuilderError

_POINTER = b"version https://git-lfs.github.com/spec/"
# A repository that lacks its commit could have git fetch it, through an ssh command of its own choice.
# Another user's folder may be read all the same, because this reading runs nothing.
_READ_ONLY = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}


def head(path: Path) -> tuple[str, int] | None:
    """Hash and time of the commit that `path` is checked out at.

    None where it is not under git's control: no repository, one without a commit, or a folder that only
    happens to lie in one and is not in its commit.
    """
    top = next((folder for folder in (path, *path.parents) if (folder / ".git").exists()), None)
    if top is None:
        return None
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _READ_ONLY
    try:
        commit = commands.run(["git", "rev-list", "-1", "--timestamp", "HEAD", "--"], env=env, cwd=path)
        if commit.returncode == 0 and top != path:
            inside = f"HEAD:{path.relative_to(top)}"
            if commands.run(["git", "cat-file", "-e", inside], env=env, cwd=path).returncode != 0:
                return None
    except BuilderError:  # no git on this machine: a folder can be used without
        return None
    words = commit.stdout.split()
    return (words[1], int(words[0])) if commit.returncode == 0 and len(words) == 2 else None


def ignored(path: Path) -> list[str]:
    """What git leaves out of its commits below `path`: files and whole folders, relative, without a slash.

    Empty where it is not under git's control.
    """
    if head(path) is None:
        return []
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | _READ_ONLY
    # A monitor of the file system is a program that the repository's configuration names.
    words = ["git", "-c", "core.fsmonitor=false", "ls-files", "-z", "--others", "--ignored"]
    found = commands.run([*words, "--exclude-standard", "--directory"], env=env, cwd=path)
    return [name.rstrip("/") for name in found.stdout.split("\0") if name] if not found.returncode else []


def faults(root: Path, skip: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    """Walk a tree without following links.

    Yields ("link", path) for symbolic links whose target is not below `root`, and ("pointer", path) for
    Git LFS pointers without their content. Folders and links whose name `skip` accepts are left out.
    """
    real = os.path.realpath(root).rstrip("/")
    stack = [str(root)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue  # what we may not read, nothing of ours will use
        for entry in found:
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if target != real and not target.startswith(f"{real}/") and not skip(entry.name):
                    yield "link", Path(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                if not skip(entry.name):
                    stack.append(entry.path)
            elif entry.is_file(follow_symlinks=False) and _is_pointer(entry):
                yield "pointer", Path(entry.path)


def _is_pointer(entry: os.DirEntry[str]) -> bool:
    try:
        if not len(_POINTER) < entry.stat(follow_symlinks=False).st_size < 1024:
            return False  # the specification's limit; most files are not even opened
        with open(entry.path, "rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def absent_submodules(path: Path) -> list[str]:
    """A line for each submodule in ``.gitmodules`` that is empty here, as in a zip from a git host."""
    if not (path / ".gitmodules").is_file():
        return []
    try:
        from git.config import GitConfigParser  # 0.2 s, and only repositories with submodules need it

        # No includes: the file is a stranger's, and could name any other one.
        parser = GitConfigParser(path / ".gitmodules", read_only=True, merge_includes=False)
        names = {str(parser.get(section, "path", fallback="")) for section in parser.sections()}
    except (
        Exception
    ) as error:  # GitPython lets through what configparser, odd bytes or git's absence bring up
        return [f".gitmodules cannot be read ({type(error).__name__}): submodules may be missing"]
    absent = sorted(name for name in names if name and not _has_content(path, name))
    return [f"the submodule {name} is not checked out" for name in absent]


def _has_content(path: Path, name: str) -> bool:
    folder = path / name
    if not folder.resolve().is_relative_to(path.resolve()):
        return True  # not ours to look at, and git would refuse it
    return folder.is_dir() and any(folder.iterdir())
