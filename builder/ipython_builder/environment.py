"""A specification becomes an installed environment with a content key, made once and shared [uv].

Two steps, each with its own key. What is asked for (the *request*) is resolved to exact versions (the *pins*);
the environment's key is a hash of everything that decides its bytes. A request that was resolved before needs
no index and no installer: that is a warm `up`. Environments are read-only; each cluster has a thin one of its
own over it (`make_thin`), where `%pip install` lands.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ipython_builder import bytecode, installer, interpreters, runtime
from ipython_builder.errors import BuilderError, Transient
from ipython_builder.events import Reporter
from ipython_builder.interpreters import Interpreter
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec

MARKER = ".complete.json"  # written last: an environment without it is half-made and never used
_FORMAT = 1  # raise it when the same inputs shall give another environment


@dataclass(frozen=True)
class Environment:
    """An installed environment.

    Attributes:
        key: 24 hex digits that change with anything that decides its bytes.
        path: its folder, read-only.
        python: the interpreter it is for, outside the folder.
    """

    key: str
    path: Path
    python: Interpreter

    @property
    def bin(self) -> Path:
        return self.path / "bin"

    @property
    def site_packages(self) -> Path:
        return _site_packages(self.path, self.python)


def ensure(spec: Spec, settings: Settings, reporter: Reporter, *, upgrade: bool = False) -> Environment:
    """The environment that `spec` asks for, with our runtime in it, made if it is not there.

    Args:
        upgrade: ask the index again, although this request was resolved before.

    Raises:
        RepositoryError: requirements that cannot be had, that conflict, or whose hash does not match.
        Unavailable: the index cannot be reached.
        BuilderError: the disk is full or cannot be written to.
    """
    python = interpreters.find(spec.python, settings, wanted_by=spec.python_from)
    work = installer.Installer(settings, reporter, python)
    request = _digest(
        python=_identity(python),
        uv=version("uv"),
        lines=spec.lines,
        constraints=spec.constraints,
        pylock=spec.pylock.read_text() if spec.pylock else None,
        local=[_content(path) for path in spec.local_paths],
        indexes=[settings.index_url, *settings.extra_index_urls, *spec.index_urls],
        runtime=[runtime.REQUIREMENTS, runtime.preferred_versions()],
        wheel=_wheel(settings),
    )
    pointer = _cache(settings, "environments", "requests") / request
    if not upgrade and not _moves(spec):
        found = _known(pointer, settings, python)
        if found:
            return found
    with _locked(pointer, reporter):
        if not upgrade and not _moves(spec):
            found = _known(pointer, settings, python)  # made while we waited
            if found:
                return found
        if spec.hashed or spec.pylock:
            key = request  # a lock is its own resolution
            environment = _make(key, settings, reporter, python, lambda path: work.install_locked(spec, path))
        else:
            pins = work.resolve(spec)
            key = _digest(request=request, pins=pins)
            environment = _make(
                key, settings, reporter, python, lambda path: work.install_pins(pins, spec, path)
            )
        _write(pointer, environment.key)
        return environment


def ensure_viewer(settings: Settings, reporter: Reporter) -> Environment:
    """The viewer's own environment, from our lock, for the Python that runs us."""
    python = interpreters.find(">=3.11", settings)
    key = _digest(
        python=_identity(python), uv=version("uv"), lock=runtime.viewer_lock(), wheel=_wheel(settings)
    )
    environment = _known_key(key, settings, python)
    if environment:
        return environment
    work = installer.Installer(settings, reporter, python)
    with _locked(_cache(settings, "environments", "requests") / key, reporter):
        return _known_key(key, settings, python) or _make(
            key, settings, reporter, python, work.install_viewer
        )


def make_thin(environment: Environment, path: Path) -> None:
    """A cluster's own environment over a shared one: a link, ``pyvenv.cfg``, a ``.pth``, and the scripts.

    An existing one at `path` is put over `environment` with what was installed into it kept, as long as it is for
    the same Python; else it is made anew. Takes milliseconds.
    """
    site_packages = _site_packages(path, environment.python)
    if path.exists() and not site_packages.is_dir():
        shutil.rmtree(path)
    site_packages.mkdir(parents=True, exist_ok=True)
    bin_folder = path / "bin"
    bin_folder.mkdir(exist_ok=True)
    base = environment.python.path
    (path / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {environment.python.version}\n"
    )
    # addsitedir, not a plain path: the .pth files of the shared environment count too.
    (site_packages / "_ipython_builder_shared.pth").write_text(
        f"import site; site.addsitedir({str(environment.site_packages)!r})\n"
    )
    for name in ("python", "python3"):
        link = bin_folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(base)
    # Scripts such as pip and ipython must run in this environment, not in the one below it.
    below, here = str(environment.path).encode(), str(path).encode()
    for script in environment.bin.iterdir():
        target = bin_folder / script.name
        if script.is_symlink() or not script.is_file() or target.exists():
            continue
        head, newline, body = script.read_bytes().partition(b"\n")
        if head.startswith(b"#!") and (below in head or below in body[:512]):
            target.write_bytes(head.replace(below, here) + newline + body.replace(below, here))
            target.chmod(0o755)


def prune(settings: Settings, in_use: set[str], reporter: Reporter) -> list[Path]:
    """Remove environments whose key is not in `in_use`, and half-made ones; return what was removed."""
    removed = []
    root = _cache(settings, "environments")
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.name in ("requests", "half") or path.name in in_use or not path.is_dir():
            continue
        with _locked(root / "requests" / path.name, reporter):
            remove(path)
        removed.append(path)
    requests = root / "requests"
    for pointer in list(requests.iterdir()) if requests.is_dir() else []:
        if pointer.suffix == "" and pointer.is_file() and not (root / pointer.read_text().strip()).is_dir():
            pointer.unlink(missing_ok=True)
    return removed


def remove(path: Path) -> None:
    """Delete an environment, read-only folders and all."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _make(
    key: str, settings: Settings, reporter: Reporter, python: Interpreter, install: Callable[[Path], None]
) -> Environment:
    """Build in place (scripts hold their own path), mark it complete at the very end, remove it when that fails."""
    known = _known_key(key, settings, python)
    if known:
        return known
    path = _cache(settings, "environments") / key
    try:
        remove(path)
        install(path)
        store = _cache(settings, "bytecode") / f"{python.version}-{_identity(python)[-8:]}"
        bytecode.ensure(path / "bin" / "python", _site_packages(path, python), store, reporter)
        _write(path / MARKER, json.dumps({"key": key, "python": str(python.path), "made": int(time.time())}))
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o555)  # noqa: S103
    except OSError as error:
        remove(path)
        raise BuilderError(
            f"the environment cannot be made in {path.parent}: {error.strerror}",
            "free some space, or set IPYTHON_BUILDER_CACHE_DIR to a folder that can be written to",
        ) from error
    except BaseException:
        remove(path)
        raise
    return Environment(key, path, python)


def _known(pointer: Path, settings: Settings, python: Interpreter) -> Environment | None:
    try:
        key = pointer.read_text().strip()
    except OSError:
        return None
    return _known_key(key, settings, python)


def _known_key(key: str, settings: Settings, python: Interpreter) -> Environment | None:
    path = _cache(settings, "environments") / key
    return Environment(key, path, python) if (path / MARKER).is_file() else None


def _moves(spec: Spec) -> bool:
    """Whether a git line names a branch or nothing: what it points at is looked up each time."""
    return any("git+" in line and not re.search(r"@[0-9a-f]{40}(?:$|[#\s;])", line) for line in spec.lines)


def _wheel(settings: Settings) -> str:
    return runtime.wheel(_cache(settings, "runtime")).parent.name


def _site_packages(path: Path, python: Interpreter) -> Path:
    major, minor = python.version.split(".")[:2]
    return path / "lib" / f"python{major}.{minor}" / "site-packages"


def _identity(python: Interpreter) -> str:
    """What decides which files fit this interpreter: version, place, machine."""
    return f"{python.version} {os.uname().machine} {_digest(path=str(python.path))}"


def _digest(**material: Any) -> str:
    text = json.dumps(material | {"format": _FORMAT}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _content(path: Path) -> str:
    """A hash of a file, or of a folder's files by name, mode bit and content; what builds leave behind is not counted."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for folder, names, files in os.walk(path):
        names[:] = sorted(
            n for n in names if not n.startswith(".") and n not in ("__pycache__", "build", "dist")
        )
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_symlink() or not file.is_file() or name.endswith((".pyc", ".ipynb")):
                continue
            executable = bool(file.stat().st_mode & stat.S_IXUSR)
            digest.update(f"{file.relative_to(path)}\0{executable}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _cache(settings: Settings, *names: str) -> Path:
    return settings.cache_dir.joinpath(*names)


def _write(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text)
    half.replace(path)


@contextmanager
def _locked(pointer: Path, reporter: Reporter) -> Iterator[None]:
    """One maker at a time for one request; who waits says so once."""
    import fcntl

    path = pointer.with_name(pointer.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise BuilderError(
            f"the cache {path.parent} cannot be written to: {error.strerror}",
            "set IPYTHON_BUILDER_CACHE_DIR to a folder that can be",
        ) from error
    with file:
        for attempt in range(6000):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 0:
                    reporter.log("another process is making this environment: waiting for it")
                time.sleep(0.1)
        else:
            raise Transient(
                "another process has been making this environment for ten minutes", "try again later"
            )
        yield
