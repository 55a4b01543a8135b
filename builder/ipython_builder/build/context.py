"""The folder that an engine is given: what of a repository becomes part of an image, as it shall be there.

Modes and times are the same wherever it is built: group 0 may do what the owner may, times are the commit's.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ipython_builder import tree
from ipython_builder.build.request import EARLIEST
from ipython_builder.errors import RepositoryError
from ipython_builder.source import Checkout

# In a folder that somebody works in: what programs keep there for themselves.
_WORKING = frozenset({"__pycache__", ".ipynb_checkpoints", "node_modules", ".venv", "venv"})
_SCRIPTS = ".s2i/bin"  # S2I makes what is in it executable
_IGNORE, _ENVIRONMENT = ".s2iignore", ".s2i/environment"


@dataclass(frozen=True)
class Staged:
    """What was written.

    Attributes:
        files: relative paths, sorted.
        left_out: what is in the repository's folder and not in the image, relative, sorted.
        bytes: the size of all files together.
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...]
    bytes: int


def time_of(checkout: Checkout) -> int:
    """Seconds: when the commit was made; without one the earliest time that every file format knows."""
    return max(checkout.epoch, EARLIEST)


def stage(checkout: Checkout, target: Path) -> Staged:
    """Copy what of `checkout` becomes part of an image to `target`, which is made.

    Left out: git's own files, what ``.s2iignore`` names, links that lead out, what is neither file nor
    folder; of a folder that somebody works in also what git ignores, environments and caches.

    Raises:
        RepositoryError: a file cannot be read.
        OSError: `target` cannot be written.
    """
    root, epoch = checkout.root.resolve(), time_of(checkout)
    ignored = set(tree.ignored(root)) if checkout.in_place else set()
    named = _ignore_rules(root)
    files: list[str] = []
    left_out: list[str] = []
    size = 0

    def wanted(entry: os.DirEntry[str], name: str) -> bool:
        if entry.name == ".git":
            return False
        if checkout.in_place and (entry.name in _WORKING or name in ignored or _is_environment(entry)):
            return False
        return not named(name) and (not entry.is_symlink() or _stays(Path(entry.path), root))

    def copy(folder: Path, into: Path) -> None:
        nonlocal size
        into.mkdir(parents=True)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            name = PurePosixPath(os.path.relpath(entry.path, root)).as_posix()
            if not wanted(entry, name):
                if entry.name != ".git":
                    left_out.append(name)
                continue
            place = into / entry.name
            if entry.is_symlink():
                place.symlink_to(_relative(Path(entry.path), root))
            elif entry.is_dir(follow_symlinks=False):
                copy(Path(entry.path), place)
                continue
            elif entry.is_file(follow_symlinks=False):
                shutil.copyfile(entry.path, place)
                runs = entry.stat().st_mode & stat.S_IXUSR or name.rpartition("/")[0] == _SCRIPTS
                place.chmod(0o775 if runs else 0o664)
                size += entry.stat().st_size
            else:
                left_out.append(name)
                continue
            os.utime(place, (epoch, epoch), follow_symlinks=False)
            files.append(name)
        into.chmod(0o775)
        os.utime(into, (epoch, epoch))

    try:
        copy(root, target)
    except PermissionError as error:
        raise RepositoryError(
            f"{error.filename} cannot be read by this user", "mend its mode, or name it in .s2iignore"
        ) from error
    return Staged(tuple(sorted(files)), tuple(sorted(left_out)), size)


def write(path: Path, text: str, epoch: int) -> None:
    """A file of the context that is not the repository's, with the folders to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o664)
    os.utime(path, (epoch, epoch))
    path.parent.chmod(0o775)
    os.utime(path.parent, (epoch, epoch))


def digest(folder: Path, *more: str) -> str:
    """16 hex digits that change with any name, mode bit or content below `folder`, and with `more`."""
    whole = hashlib.sha256("\0".join(more).encode())
    for path in sorted(folder.rglob("*")):
        whole.update(os.fsencode(path.relative_to(folder)) + b"\0")
        if path.is_symlink():
            whole.update(os.fsencode(os.readlink(path)))
        elif path.is_file():
            whole.update(bytes([bool(path.stat().st_mode & stat.S_IXUSR)]))
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def environment(root: Path) -> dict[str, str]:
    """The variables in .s2i/environment, as S2I reads it.

    Raises:
        RepositoryError: a line of it is none.
    """
    found = {}
    for number, raw in enumerate(_lines(root, _ENVIRONMENT), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.isascii() or not key.isidentifier() or not value.isprintable():
            raise RepositoryError(
                f"{_ENVIRONMENT}:{number}: {key[:40]!r} … is no variable", "write it as in NAME=value"
            )
        found[key] = value
    return found


def _is_environment(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and any(
        os.path.lexists(Path(entry.path, name)) for name in ("pyvenv.cfg", "conda-meta")
    )


def _stays(link: Path, root: Path) -> bool:
    """Whether what a link points at is below `root`; a dangling one that stays inside is kept as it is."""
    return Path(os.path.realpath(link)).is_relative_to(root)


def _relative(link: Path, root: Path) -> str:
    """A link's target; an absolute one would lead to another place in the image."""
    target = os.readlink(link)
    return os.path.relpath(os.path.realpath(link), link.parent) if os.path.isabs(target) else target


def _ignore_rules(root: Path) -> Callable[[str], bool]:
    """Patterns of .s2iignore: one a line, ``!`` takes back, the last that fits decides."""
    rules = [line.strip() for line in _lines(root, _IGNORE)]
    rules = [line for line in rules if line and not line.startswith("#")]

    def named(name: str) -> bool:
        answer = False
        for rule in rules:
            if _fits(name, rule.removeprefix("!").strip("/")):
                answer = not rule.startswith("!")
        return answer

    return named


def _fits(name: str, pattern: str) -> bool:
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def _lines(root: Path, name: str) -> Sequence[str]:
    path = root / name
    if not path.is_file() or not _stays(path, root):
        return []
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{name} cannot be read as text", "save it as UTF-8") from error
