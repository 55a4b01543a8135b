"""Which Python of this machine an environment is made with.

A name proves nothing: a shim called ``python3.12`` may run another version, or none. So each candidate is run
once and says itself what it is. It reports the real interpreter behind shims and virtual environments.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ipython_builder import commands
from ipython_builder.errors import BuilderError, RepositoryError, UsageError
from ipython_builder.settings import Settings

OLDEST = (3, 9)
_ASK = """
import sys
v = sys.version_info
level = {"alpha": "a", "beta": "b", "candidate": "rc"}.get(v[3], "")
print("%d.%d.%d%s" % (v[0], v[1], v[2], level + str(v[4]) if level else ""))
print(sys.implementation.name + ("t" if "t" in getattr(sys, "abiflags", "") else ""))
print(getattr(sys, "_base_executable", "") or sys.executable)
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython that was seen running.

    Attributes:
        path: the executable itself, symlinks resolved.
        version: such as ``3.13.0``.
    """

    path: Path
    version: str

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])


def find(
    specifier: str,
    settings: Settings,
    *,
    wanted_by: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Interpreter:
    """The Python to use: the one in the settings, else the one that runs us, else the newest there is.

    Args:
        specifier: a PEP 440 specifier set; empty for any.
        wanted_by: the file that asked, for the error.
        environ: the caller's (None: this process's).

    Raises:
        RepositoryError: none satisfies.
        UsageError: the Python of the settings is not there.
    """
    environ = os.environ if environ is None else environ
    wanted = SpecifierSet(specifier)
    if settings.python and (preferred := _preferred(settings.python, wanted, environ)):
        return preferred
    if found := next(_search(wanted, environ), None):
        return found
    there = ", ".join(one.version for one in installed(environ)) or "none"
    asked = (
        f"{wanted_by} asks for Python {specifier}"
        if wanted_by
        else f"Python {specifier or '>=3.9'} is asked for"
    )
    hint = "install one that fits, or name it with --python PATH"
    if not any(_may_satisfy(minor, wanted) for minor in range(OLDEST[1], 200)):
        asked += f", and only {OLDEST[0]}.{OLDEST[1]} and newer can be used"
        hint = f"change {wanted_by or 'the wish'}"
    raise RepositoryError(f"{asked}; this machine has {there}", hint)


def installed(environ: Mapping[str, str] | None = None) -> list[Interpreter]:
    """Every usable Python of this machine, newest first; asks each one."""
    environ = os.environ if environ is None else environ
    found = {one for path, _ in _candidates(environ) if (one := ask(path))}
    if running := _running():
        found.add(running)
    return sorted(found, key=lambda one: (_key(one.version), str(one.path)), reverse=True)


@functools.cache
def ask(path: Path) -> Interpreter | None:
    """What `path` is, by running it once; None if it is no CPython that can be used."""
    environ = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LD_LIBRARY_PATH", "PYENV_ROOT")
        if name in os.environ
    }
    try:
        result = commands.run([path, "-I", "-S", "-c", _ASK], env=environ, cwd=Path("/"), timeout=10)
    except (BuilderError, OSError):  # not there, not executable, of another machine, hanging
        return None
    answer = result.stdout.splitlines()
    if result.returncode != 0 or len(answer) != 3 or answer[1] != "cpython":
        return None
    found = Interpreter(Path(os.path.realpath(answer[2])), answer[0])
    return found if _key(found.version) >= OLDEST and found.path.is_file() else None


def _running() -> Interpreter | None:
    """The Python that runs us, outside its virtual environment; nothing is started for it."""
    if sys.implementation.name != "cpython" or "t" in getattr(sys, "abiflags", ""):
        return None
    base = Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))
    if not base.is_file() or Path(sys.base_prefix).resolve() not in base.parents:
        return ask(Path(sys.executable))
    if sys.version_info.releaselevel != "final":
        return ask(base)
    return Interpreter(base, "{}.{}.{}".format(*sys.version_info))


def _preferred(text: str, wanted: SpecifierSet, environ: Mapping[str, str]) -> Interpreter | None:
    """The Python of the settings, if it satisfies; the running one among several of a version."""
    if re.fullmatch(r"\d+(\.\d+){0,2}", text):
        fitting = SpecifierSet(f"=={text}.*" if text.count(".") < 2 else f"=={text}")
        found = list(_search(fitting, environ))
        if not found:
            versions = ", ".join(one.version for one in installed(environ)) or "none"
            raise UsageError(
                f"Python {text} is not on this machine; there is {versions}", "install it, or name its path"
            )
        return next((one for one in found if _satisfies(one, wanted)), None)
    # Absolute, but not resolved: the link in a virtual environment says more when it is run as it is.
    one = ask(Path(os.path.abspath(os.path.expanduser(text))))
    if one is None:
        raise UsageError(
            f"{text} is no Python that can be used (CPython 3.9 or newer)", "name a path or a version"
        )
    return one if _satisfies(one, wanted) else None


def _search(wanted: SpecifierSet, environ: Mapping[str, str]) -> Iterator[Interpreter]:
    """Those that satisfy: the running one, then the newest first; none is run before it is needed."""
    running = _running()
    if running and _satisfies(running, wanted):
        yield running
    for minor, group in groupby(_candidates(environ), key=lambda pair: pair[1]):
        if minor is None or _may_satisfy(minor, wanted):
            found = [one for path, _ in group if (one := ask(path)) and _satisfies(one, wanted)]
            # Among equals the first on PATH: sorting keeps their order.
            yield from sorted(found, key=lambda one: _key(one.version), reverse=True)


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[Path, int | None]]:
    """(path, the minor version that its name claims) of whatever looks like a Python, newest first."""
    home = Path(environ.get("HOME") or "~").expanduser()
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    managed = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    # A relative entry would let the folder we are called in choose, and that may be a stranger's repository.
    folders = [Path(part) for part in environ.get("PATH", "").split(os.pathsep) if part.startswith("/")]
    # Shims only repeat the versions that are looked at below, and each takes a tenth of a second to say so.
    folders = [folder for folder in folders if folder != pyenv / "shims"]
    folders += [Path("/usr/bin"), Path("/usr/local/bin")]
    for parent in (pyenv / "versions", Path("/opt/python"), managed):
        folders += [child / "bin" for child in _children(parent)]
    found: dict[Path, int | None] = {}
    for folder in dict.fromkeys(folders):
        for path in _children(folder):
            match = re.fullmatch(r"python3(?:\.(\d+))?", path.name)
            # A plain python3 counts only where no numbered name stands beside it.
            minor = int(match[1]) if match and match[1] else None
            usable = minor >= OLDEST[1] if minor is not None else all(o.parent != folder for o in found)
            if match and usable:
                found.setdefault(path, minor)
    return iter(sorted(found.items(), key=lambda pair: -1 if pair[1] is None else pair[1], reverse=True))


def _children(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder), reverse=True)]
    except OSError:
        return []


def _satisfies(one: Interpreter, wanted: SpecifierSet) -> bool:
    try:
        return wanted.contains(one.version, prereleases=True)
    except InvalidSpecifier:  # an arbitrary-equality clause
        return False


def _may_satisfy(minor: int, wanted: SpecifierSet) -> bool:
    return minor >= OLDEST[1] and any(wanted.contains(f"3.{minor}.{micro}") for micro in range(60))


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
