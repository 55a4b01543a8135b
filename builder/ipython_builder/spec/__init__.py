"""Checkout -> Spec: which files speak, and what they ask for. Nothing of the repository is executed.

Precedence, first to last: uv.lock, pylock.toml, requirements.txt (hashed or not), requirements.in,
pyproject.toml, environment.yml, Pipfile.lock. Where ``binder/`` or ``.binder/`` is there and has one of them,
the root's do not speak, as with Binder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ipython_builder.errors import UsageError
from ipython_builder.spec import conda, config, lines, locks, notebooks, pyproject, requirements
from ipython_builder.spec import python as pythons
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Notice, Spec, Where
from ipython_builder.spec.others import hooks, name_the_rest, system_packages

__all__ = ["Notice", "Spec", "Where", "read"]

_Reader = Callable[[Asked, Tree, str], object]
_SPEAKERS: tuple[tuple[str, str, _Reader], ...] = (
    ("uv.lock", "uv.lock", locks.read_uv),
    ("pylock.toml", "pylock.toml", locks.read_pylock),
    ("requirements.txt", "requirements", requirements.read),
    ("requirements.in", "requirements", requirements.read),
    ("pyproject.toml", "pyproject", pyproject.read),
    ("environment.yml", "environment.yml", conda.read),
    ("environment.yaml", "environment.yml", conda.read),
    ("Pipfile.lock", "Pipfile.lock", locks.read_pipfile),
)


def read(root: Path, *, extra: Sequence[str] = ()) -> Spec:
    """What the repository in `root` asks for.

    Args:
        extra: requirement lines of the caller, added to the repository's.

    Raises:
        RepositoryError: a file is broken, asks for what cannot be had here, or is refused; with file and line.
        UsageError: a line of `extra` is none.
    """
    tree = Tree(root)
    asked = Asked()
    settings = config.read(tree)
    folders = _folders(tree)
    present = {
        name: file
        for folder in reversed(folders)
        for name, _, _ in _SPEAKERS
        if tree.exists(file := f"{folder}{name}") and (name != "pyproject.toml" or pyproject.speaks(tree, file))
    }
    speaking = [name for name, _, _ in _SPEAKERS if name in present and present[name].startswith(_first(folders, present))]
    file, kind, conda_python = None, "none", ""
    for name, its_kind, reader in _SPEAKERS:
        if speaking and name == speaking[0]:
            file, kind = present[name], its_kind
            said = reader(asked, tree, file)
            conda_python = said if isinstance(said, str) else ""
    hashed = bool(asked.lines) and not asked.unhashed
    if kind == "requirements" and hashed:
        kind = "requirements-hashed"
    elif kind == "requirements" and any(" --hash=" in line for line in asked.lines):
        asked.notice(file or "", f"some lines have hashes, but {asked.unhashed[0]} has none: not all is checked")
    for number, text in enumerate(settings.requirements, 1):
        lines.add(asked, tree, text, Where(f"{config.FILE} (requirements, entry {number})"))
    for url in settings.extra_index_urls:
        if url not in asked.index_urls:
            asked.index_urls.append(url)
    for text in extra:
        _add_extra(asked, tree, text)
    wanted, wanted_by = _python(asked, tree, folders, settings.python, file, kind, conda_python)
    name_the_rest(asked, tree, folders, file)
    return Spec(
        root=tree.root,
        file=file,
        kind=kind,
        lines=tuple(asked.lines),
        constraints=tuple(asked.constraints),
        hashed=bool(asked.lines) and not asked.unhashed,
        pylock=asked.pylock,
        python=wanted,
        python_from=wanted_by,
        index_urls=tuple(asked.index_urls),
        find_links=tuple(asked.find_links),
        options=tuple(asked.options),
        prereleases=asked.prereleases,
        local_paths=tuple(asked.local_paths),
        names=tuple(asked.names),
        system_packages=system_packages(asked, tree, folders),
        preload=settings.preload,
        notebooks=notebooks.find(asked, tree, settings.notebooks),
        hooks=hooks(asked, tree),
        serves_itself=next((name for name in ("jupyterlab", "notebook") if name in asked.names), None),
        notices=tuple(asked.notices),
    )
