"""Checkout -> Spec: which files speak, and what they ask for. Nothing of the repository is executed.

Precedence, first to last: uv.lock, pylock.toml, requirements.txt (hashed or not), requirements.in,
pyproject.toml, environment.yml, Pipfile.lock. Where ``binder/`` or ``.binder/`` is there and has one of them,
the root's do not speak, as with Binder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ipython_builder.commands import redact
from ipython_builder.errors import RepositoryError, UsageError
from ipython_builder.spec import config, lines, locks, notebooks, pyproject, requirements
from ipython_builder.spec import python as pythons
from ipython_builder.spec.files import Tree
from ipython_builder.spec.model import Asked, Notice, Pool, Spec, Where
from ipython_builder.spec.others import hooks, name_the_rest, system_packages

__all__ = ["Notice", "Pool", "Spec", "Where", "read"]


def _read_conda(asked: Asked, tree: Tree, relative: str) -> str:
    from ipython_builder.spec import conda  # a YAML reader costs more than all the others, and few need it

    return conda.read(asked, tree, relative)


_Reader = Callable[[Asked, Tree, str], object]
_SPEAKERS: tuple[tuple[str, str, _Reader], ...] = (
    ("uv.lock", "uv.lock", locks.read_uv),
    ("pylock.toml", "pylock.toml", locks.read_pylock),
    ("requirements.txt", "requirements", requirements.read),
    ("requirements.in", "requirements", requirements.read),
    ("pyproject.toml", "pyproject", pyproject.read),
    ("environment.yml", "environment.yml", _read_conda),
    ("environment.yaml", "environment.yml", _read_conda),
    ("Pipfile.lock", "Pipfile.lock", locks.read_pipfile),
)


def read(
    root: Path, *, top: Path | None = None, extra: Sequence[str] = (), speaker: str | None = None
) -> Spec:
    """What the repository in `root` asks for.

    Args:
        top: the repository's root, where `root` is a folder in it; it may have a .ipython-builder.toml.
        extra: requirement lines of the caller, added to the repository's.
        speaker: only files of this name may speak (`lock` reads requirements.in and nothing else).

    Raises:
        RepositoryError: a file is broken or refused, or asks for what cannot be had here; with file and line.
        UsageError: a line of `extra` is none.
    """
    tree = Tree(root, top)
    asked = Asked()
    above = Tree(top) if top is not None else None
    settings = config.read(tree, above if above is not None and above.root != tree.root else None)
    config.contradictions(asked, settings)
    folders = _folders(tree)
    candidates = [
        (f"{folder}{name}", kind, reader)
        for folder in folders
        for name, kind, reader in _SPEAKERS
        if speaker in (None, name) and tree.exists(f"{folder}{name}")
    ]
    file, kind, conda_python = None, "none", ""
    for candidate, its_kind, reader in candidates:
        if reader is not pyproject.read or pyproject.speaks(tree, candidate):
            file, kind = candidate, its_kind
            said = reader(asked, tree, file)
            conda_python = said if isinstance(said, str) else ""
            break
    else:
        for folder in folders if speaker is None else ():
            pyproject.refuse_poetry(tree, f"{folder}pyproject.toml")
    hashed = bool(asked.lines) and not asked.unhashed
    if kind == "requirements" and hashed:
        kind = "requirements-hashed"
    elif kind == "requirements" and any(" --hash=" in line for line in asked.lines):
        asked.notice(
            file or "", f"some lines have hashes, but {asked.unhashed[0]} has none: not all is checked"
        )
    for number, text in enumerate(settings.requirements, 1):
        lines.add(asked, settings.tree, text, Where(f"{settings.file} (requirements, entry {number})"))
    for url in settings.extra_index_urls:
        if url not in asked.index_urls:
            asked.index_urls.append(url)
    for text in extra:
        _add_extra(asked, tree, text)
    wanted, wanted_by = _python(asked, tree, folders, settings, file, kind, conda_python)
    present = [
        candidate
        for candidate, _, reader in candidates
        if reader is not pyproject.read or pyproject.declares(tree, candidate)
    ]
    name_the_rest(asked, tree, folders, present, file)
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
        pool=settings.pool,
        notebooks=notebooks.find(asked, tree, settings),
        hooks=hooks(asked, tree),
        serves_itself=next((name for name in ("jupyterlab", "notebook") if name in asked.names), None),
        notices=tuple(asked.notices),
    )


def _folders(tree: Tree) -> tuple[str, ...]:
    """Where files are looked for, first to last, with a slash behind each but the root."""
    for name in ("binder", ".binder"):
        if (tree.root / name).is_dir():
            tree.inside(tree.root / name, Where(name), name)
            return (f"{name}/", "")
    return ("",)


def _add_extra(asked: Asked, tree: Tree, text: str) -> None:
    # A name alone, as in git+ssh://git@host, is no secret; over https it may be a token.
    if re.search(r"https?://[^/\s]+@|://[^/\s@]*:[^/\s]*@", text):
        raise UsageError(
            f"--with {redact(text)!r} has a login in it, and what a cluster is made of is written down",
            "put the login into ~/.netrc, and leave it out of the URL",
        )
    try:
        lines.add(asked, tree, text, Where("--with"))
    except RepositoryError as error:
        raise UsageError(error.message, error.hint) from error


def _python(
    asked: Asked,
    tree: Tree,
    folders: Sequence[str],
    configured: config.Config,
    file: str | None,
    kind: str,
    conda_says: str,
) -> tuple[str, str | None]:
    wishes: list[tuple[str | None, str]] = [(configured.python, configured.file)]
    wishes += [(pythons.runtime_txt(asked, tree, f"{f}runtime.txt"), f"{f}runtime.txt") for f in folders]
    wishes += [
        (pythons.version_file(asked, tree, f"{f}.python-version"), f"{f}.python-version") for f in folders
    ]
    wishes += [(pyproject.requires_python(tree, f"{f}pyproject.toml"), f"{f}pyproject.toml") for f in folders]
    if file and kind in ("pylock.toml", "Pipfile.lock"):
        wishes.append((locks.requires_python(tree, file), file))
    if file and conda_says:
        wishes.append((pythons.relax(asked, file, conda_says), file))
    return pythons.choose(asked, [(text, name) for text, name in wishes if text])
