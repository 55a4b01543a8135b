"""Which notebooks a repository has, and which of them no program can open."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from ipython_builder.spec.config import Config
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked

_NOT_LOOKED_INTO = frozenset({"node_modules", "__pycache__", "__pypackages__", "site-packages"})
# Looking into notebooks must not make starting slow: beyond these bytes they are taken to be whole.
_LOOK_INTO = 50_000_000


def find(asked: Asked, tree: Tree, config: Config) -> tuple[str, ...]:
    """Relative paths of the notebooks that `config` leaves, sorted; broken ones too, each with a notice."""
    names = sorted(path.relative_to(tree.root).as_posix() for path in files(tree.root, (".ipynb",)))
    for name in [name for name in names if not name.isprintable()]:
        # A terminal, a URL and a JSON object could not show it; Linux allows any byte in a name.
        asked.notice(ascii(name), "not among the notebooks, because of its name: rename it")
        names.remove(name)
    if config.notebooks is not None:
        wanted: set[Path] = set()
        for pattern in config.notebooks:
            matched = _matching(config.tree.root, pattern)
            # A pattern of the root's file may be about another folder than the one that is used.
            if not matched & {tree.root / name for name in names} and config.tree is tree:
                asked.notice(config.file, f"no notebook matches {pattern!r}")
            wanted |= matched
        names = [name for name in names if tree.root / name in wanted]
    left = _LOOK_INTO
    for name in names:
        path = tree.root / name
        try:
            left -= path.stat().st_size
            reason = broken(path) if left > 0 else None
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
        if reason:
            asked.notice(name, reason)
    return tuple(names)


def files(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files below `root` with one of `suffixes` that are the repository's own.

    Not looked into: hidden folders, virtual environments, what other tools keep there, links that lead out.
    """
    for folder, folders, names in os.walk(root):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _NOT_LOOKED_INTO)
        for name in sorted(names):
            if name.endswith(suffixes) and not name.startswith("."):
                path = Path(folder, name)
                if path.is_symlink() and not path.resolve().is_relative_to(root):
                    continue
                if path.is_file():
                    yield path


def broken(path: Path) -> str | None:
    """Why this is no notebook that can be opened; None if it is one.

    Raises:
        OSError: it cannot be read.
    """
    raw = path.read_bytes()
    if raw.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs, not the notebook: fetch it with `git lfs pull`"
    try:
        content = json.loads(raw)
    except json.JSONDecodeError as error:
        if b"\n<<<<<<< " in raw:
            return "it is not JSON: marks of a merge conflict are in it"
        return f"it is not JSON (line {error.lineno}: {error.msg})" if raw.strip() else "it is empty"
    except (UnicodeDecodeError, RecursionError, ValueError):
        return "it is not JSON"
    if not isinstance(content, dict) or not ("cells" in content or "worksheets" in content):
        return "it is JSON, but no notebook"
    return None


def _matching(root: Path, pattern: str) -> set[Path]:
    try:
        return set(root.glob(pattern))
    except (ValueError, NotImplementedError, OSError):
        return set()
