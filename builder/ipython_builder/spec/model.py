"""What a repository asks for, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Notice:
    """A file that is read but not obeyed, or something else a person should know.

    Attributes:
        file: relative to the checkout's root; empty for what was given on the command line.
        message: one sentence without the file's name.
    """

    file: str
    message: str


class Where(NamedTuple):
    """A place in the repository, as errors name it: ``binder/requirements.txt:3``."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Pool:
    """What engines shall have imported before they start; ``[pool]`` of .ipython-builder.toml.

    Attributes:
        preload: modules beside those that the notebooks import.
        exclude: modules and packages that are never imported beforehand.
        fork: whether engines are forked from a process that has imported all that.
        timeout: seconds that the import of one module may take.
        file: where it was said, as errors name it.
    """

    preload: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    fork: bool = True
    timeout: float = 30.0
    file: str = ""


@dataclass(frozen=True)
class Spec:
    """What a repository asks for. Reading it executed nothing of the repository.

    Attributes:
        root: the checkout's root, resolved.
        file: which file speaks, relative to root; None: none does.
        kind: "uv.lock" "pylock.toml" "requirements-hashed" "requirements" "pyproject" "environment.yml"
            "Pipfile.lock" "none".
        lines: self-contained requirement lines (includes resolved, comments dropped, local paths absolute as
            ``file://`` URLs, markers, extras and hashes kept), installable from any working directory.
        constraints: lines that bind versions and ask for nothing.
        hashed: there are lines and every one has hashes.
        pylock: a pylock.toml to be handed to uv as it is; `lines` then only has what is asked for beside it.
        python: a PEP 440 specifier set such as ``==3.11.*``; empty for no wish.
        python_from: the file that said so.
        index_urls: indexes the files ask for beside the caller's. Files written for pip mean "the best
            version of all of them", not "the first index that has the name".
        find_links: URLs or absolute folders that hold distributions.
        options: the other lines of a requirements file that uv obeys (``--no-binary numpy``, ``--no-index``).
        prereleases: a file says ``--pre``, which uv obeys on the command line only.
        local_paths: what lines and find_links point at; its content belongs into the environment's key.
        names: canonical names of all distributions asked for or locked (local folders have none).
        system_packages: apt.txt.
        pool: what engines shall have imported before they start.
        notebooks: relative paths, sorted.
        hooks: those of .ipython-builder/pre-build and post-build that exist.
        serves_itself: "jupyterlab" or "notebook" if the repository itself requires it.
        notices: in the order a person should read them.
    """

    root: Path
    file: str | None = None
    kind: str = "none"
    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    hashed: bool = False
    pylock: Path | None = None
    python: str = ""
    python_from: str | None = None
    index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    prereleases: bool = False
    local_paths: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    pool: Pool = Pool()
    notebooks: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    serves_itself: str | None = None
    notices: tuple[Notice, ...] = ()

    def requirements_txt(self) -> str:
        """Lines, options and find-links as one file; indexes and constraints are for the caller to add."""
        links = [f"--find-links {link}" for link in self.find_links]
        return "".join(f"{line}\n" for line in (*self.options, *links, *self.lines))


@dataclass
class Asked:
    """What readers collect on the way to a Spec; one for all files of a repository."""

    lines: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    unhashed: list[str] = field(default_factory=list)
    index_urls: list[str] = field(default_factory=list)
    find_links: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    prereleases: bool = False
    local_paths: list[Path] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    pylock: Path | None = None

    def notice(self, where: Where | str, message: str) -> None:
        """Say something once, however many lines give rise to it."""
        notice = Notice(where.file if isinstance(where, Where) else where, message)
        if notice not in self.notices:
            self.notices.append(notice)
