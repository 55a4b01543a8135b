"""A repository's own packages are built in a copy: what a build leaves beside its sources is nobody's.

Builds write into the folder that they are given (``build/``, ``*.egg-info``). In a person's folder that would
be dirt, in a clone it would look like somebody's work, and it would change the key of the very environment
that was made. The copy keeps what a build may look at: files above the package, and what git says of it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ipython_builder import commands
from ipython_builder.spec import Spec

_BUILT_BY = ("pyproject.toml", "setup.py", "setup.cfg")
_PASSED_OVER = frozenset({".git", "__pycache__", "node_modules", ".tox", ".nox", ".ipynb_checkpoints"})
_LARGE = 16_000_000  # bytes from which a file is linked: it is data, and no build changes it


@dataclass(frozen=True)
class Mirror:
    """Where a tree is, and where its copy is; the same where nothing had to be copied.

    Attributes:
        spec: with the packages in the copy.
    """

    spec: Spec
    tree: Path
    copy: Path

    def there(self, text: str) -> str:
        """`text` with the packages of the tree in the copy."""
        return _moved(text, self.spec.local_paths, self.tree, self.copy)

    def back(self, text: str) -> str:
        """`text` with the names of the copy as those of the tree."""
        return text.replace(self.copy.as_uri(), self.tree.as_uri()).replace(str(self.copy), str(self.tree))

    def sign(self, environment: Path) -> None:
        """Have what was installed from the copy say where it is really from (PEP 610)."""
        if self.copy == self.tree:
            return
        for said in environment.glob("lib/*/site-packages/*.dist-info/direct_url.json"):
            text = said.read_text(encoding="utf-8")
            if self.copy.as_uri() in text:
                text = self.back(text)
                _rewrite(said, text)
                digest = (
                    base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
                )
                name = f"{said.parent.name}/{said.name},"
                record = said.with_name("RECORD")
                lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
                entry = f"{name}sha256={digest},{len(text.encode())}\n"
                _rewrite(record, "".join(entry if line.startswith(name) else line for line in lines))


@contextmanager
def of(spec: Spec) -> Iterator[Mirror]:
    """`spec` with a copy of each folder that is a package of the repository, as long as it is needed."""
    packages = [path for path in spec.local_paths if path.is_dir() and _is_asked_for(path, spec)]
    if not packages:
        yield Mirror(spec, spec.root, spec.root)
        return
    tree = _top(spec, packages)
    with commands.scratch() as folder:
        copy = folder.resolve() / (tree.name or "root")
        copy.mkdir()
        _git(tree, copy)
        whole = [path for path in packages if not any(other in path.parents for other in packages)]
        for package in whole:
            _frame(tree, copy, package)
            _copy(package, copy / package.relative_to(tree))
        yield Mirror(_moved_spec(spec, tree, copy), tree, copy)


def _is_asked_for(path: Path, spec: Spec) -> bool:
    """Whether it is built, and not only a folder of distributions that are at hand."""
    if spec.pylock:
        return any((path / name).is_file() for name in _BUILT_BY)
    named = re.compile(rf"{re.escape(path.as_uri())}(?=[\s\[;#]|$)")
    return any(named.search(line) for line in (*spec.lines, *spec.constraints))


def _top(spec: Spec, packages: list[Path]) -> Path:
    """The folder from which on everything has its place in the copy."""
    common = Path(os.path.commonpath([spec.root, *packages, *([spec.pylock.parent] if spec.pylock else [])]))
    return next((path for path in (common, *common.parents) if (path / ".git").exists()), common)


def _git(tree: Path, copy: Path) -> None:
    """Let the copy be another working tree of the same repository: its versions may come from tags."""
    git = tree / ".git"
    if git.is_dir():
        (copy / ".git").write_text(f"gitdir: {git}\n")
    elif git.is_file():
        where = git.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
        (copy / ".git").write_text(f"gitdir: {os.path.abspath(tree / where)}\n")


def _frame(tree: Path, copy: Path, package: Path) -> None:
    """Folders on the way to the package; what lies beside the way is linked, for a build may refer to it."""
    folder, target = tree, copy
    for part in package.relative_to(tree).parts:
        for entry in os.scandir(folder):
            beside = target / entry.name
            if entry.name not in (part, ".git") and not os.path.lexists(beside):
                beside.symlink_to(entry.path)
        folder, target = folder / part, target / part
        if target.is_symlink():
            target.unlink()
        target.mkdir(exist_ok=True)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    a_package = any((source / name).is_file() for name in _BUILT_BY)
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        to = target / entry.name
        if entry.is_symlink():
            to.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            built = entry.name.endswith(".egg-info") or (a_package and entry.name in ("build", "dist"))
            if not built and not _is_passed_over(entry):
                _copy(Path(entry.path), to)
        elif entry.is_file() and entry.name != ".git":
            if entry.stat().st_size >= _LARGE:
                to.symlink_to(entry.path)
            else:
                shutil.copy2(entry.path, to)


def _is_passed_over(entry: os.DirEntry[str]) -> bool:
    return entry.name in _PASSED_OVER or os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


def _moved_spec(spec: Spec, tree: Path, copy: Path) -> Spec:
    pylock = spec.pylock
    if pylock and pylock.is_relative_to(tree):
        pylock = copy / pylock.relative_to(tree)
        if pylock.is_symlink() or not pylock.exists():  # uv takes its paths from where the file really is
            text = (tree / pylock.relative_to(copy)).read_text(encoding="utf-8")
            pylock.unlink(missing_ok=True)
            pylock.write_text(text, encoding="utf-8")
    return replace(
        spec,
        lines=tuple(_moved(line, spec.local_paths, tree, copy) for line in spec.lines),
        constraints=tuple(_moved(line, spec.local_paths, tree, copy) for line in spec.constraints),
        pylock=pylock,
    )


def _moved(text: str, paths: tuple[Path, ...], tree: Path, copy: Path) -> str:
    for path in paths:
        if path.is_dir() and path.is_relative_to(tree):
            to = (copy / path.relative_to(tree)).as_uri()
            text = re.sub(rf"{re.escape(path.as_uri())}(?=[\s\[;#]|$)", to, text, flags=re.MULTILINE)
    return text


def _rewrite(path: Path, text: str) -> None:
    """Written anew: the file may be one with that of a cache."""
    half = path.with_name(f".{path.name}")
    half.write_text(text, encoding="utf-8")
    half.replace(path)
