"""What decides the bytes of an environment, as hashes: same key, same files; another key, other files.

The order of lines decides nothing: uv is given them in one order (`installer`), so it does not count here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ipython_builder import runtime
from ipython_builder.interpreters import Interpreter
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec

_LINKS = 5  # two links to folders in each of many folders would be a file tree without an end
_FORMAT = 3  # raise it when the same inputs shall give another environment


def request(spec: Spec, settings: Settings, python: Interpreter) -> str:
    """The key of what is asked for, before versions are chosen."""
    return digest(
        python=identity(python),
        uv=version("uv"),
        kind=spec.kind,
        lines=sorted(set(spec.lines)),
        constraints=sorted(set(spec.constraints)),
        options=[spec.options, spec.find_links, spec.prereleases],
        pylock=spec.pylock.read_text() if spec.pylock else None,
        local=[content(path) for path in spec.local_paths],
        indexes=[settings.index_url, *settings.extra_index_urls, *spec.index_urls],
        runtime=[runtime.REQUIREMENTS, runtime.preferred_versions()],
        wheel=runtime.wheel_key(),
    )


def viewer(python: Interpreter) -> str:
    """The key of the viewer's environment."""
    lock = runtime.viewer_lock()
    return digest(python=identity(python), uv=version("uv"), lock=lock, wheel=runtime.wheel_key())


def moves(spec: Spec) -> bool:
    """Whether a git line names a branch or nothing: what it points at is looked up each time."""
    lines = (*spec.lines, *spec.constraints)
    return any("git+" in line and not re.search(r"@[0-9a-f]{40}(?:$|[#\s;])", line) for line in lines)


def identity(python: Interpreter) -> str:
    """What decides which files fit this interpreter: version, place, machine."""
    return f"{python.version} {os.uname().machine} {digest(path=str(python.path))}"


def digest(**material: Any) -> str:
    """24 hex digits that change with anything in `material`."""
    text = json.dumps(material | {"format": _FORMAT}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def content(path: Path) -> str:
    """A hash of a file, or of a folder's files by name, mode bit and content, without what builds leave."""
    if path.is_file():
        return _file(path)
    whole = hashlib.sha256()
    for file in members(path):
        executable = bool(file.stat().st_mode & stat.S_IXUSR)
        whole.update(os.fsencode(file.relative_to(path)))
        whole.update(f"\0{executable}\0{_file(file)}".encode())
    return whole.hexdigest()


def members(path: Path) -> Iterator[Path]:
    """The files of a local package that decide what is installed of it, in one order; links are followed."""
    yield from _below(path, frozenset({os.path.realpath(path)}), _LINKS)


def _below(path: Path, above: frozenset[str], links: int) -> Iterator[Path]:
    """Args:
    above: where we have come from, for links that lead round.
    links: how many more links to folders are followed on one way.
    """
    left_out = {"__pycache__"}
    if any((path / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")):
        left_out |= {"build", "dist"}
    folders = []
    for name in sorted(os.listdir(path)):
        file = path / name
        if file.is_dir():
            if not name.startswith(".") and name not in left_out and not name.endswith(".egg-info"):
                folders.append(file)
        elif file.is_file() and not name.endswith((".pyc", ".ipynb")):
            yield file
    for folder in folders:
        real = os.path.realpath(folder)
        left = links - folder.is_symlink()
        if real not in above and left >= 0:
            yield from _below(folder, above | {real}, left)


def _file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
