"""A specification becomes an installed environment with a content key, made once and shared [uv].

What is asked for (the *request*) is resolved to exact versions (the *pins*); the environment's key is a hash
of both, so of everything that decides its bytes. A request that was resolved before needs no index and no
installer: that is a warm `up`. Environments are read-only; each cluster has a thin one over it (`thin`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ipython_builder import bytecode, installer, interpreters, keys
from ipython_builder.errors import BuilderError, Transient
from ipython_builder.events import Reporter
from ipython_builder.interpreters import Interpreter
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec

MARKER = ".complete.json"  # written last: an environment without it is half-made and never used
WAIT_SECONDS = 1800.0
UNDER_WAY_SECONDS = 3600.0  # how long an `up` may take from its environment to its record


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
        return site_packages(self.path, self.python)


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
    with _in_cache(settings):
        request = keys.request(spec, settings, python)
        pointer = _cache(settings, "environments", "requests") / request
        again = upgrade or keys.moves(spec)
        if not again and (found := _known(pointer, settings, python)):
            return found
        with _locked(pointer, reporter):
            if not again and (found := _known(pointer, settings, python)):
                return found  # made while we waited
            work = installer.Installer(settings, reporter, python)
            pins = work.resolve(spec)
            key = keys.digest(request=request, pins=pins)
            made = _make(key, settings, reporter, python, lambda path: work.install(spec, pins, path))
            _write(pointer, key)
            return made


def ensure_viewer(settings: Settings, reporter: Reporter) -> Environment:
    """The viewer's own environment, from our lock."""
    # A --python is meant for the repository's environment.
    python = interpreters.find(">=3.11", replace(settings, python=None))
    with _in_cache(settings):
        work = installer.Installer(settings, reporter, python)
        return _make(keys.viewer(python), settings, reporter, python, work.install_viewer)


def claim(environment: Environment, settings: Settings, owner: Path) -> None:
    """Keep `environment` from being pruned as long as the folder `owner` is there and its record names it.

    Claims stand beside the environments, not in the list of clusters: several homes may share one cache.

    Raises:
        Transient: it was pruned in this very moment.
    """
    name = hashlib.sha256(bytes(owner)).hexdigest()[:16]
    _write(_cache(settings, "environments", "claims", environment.key) / name, str(owner))
    if not (environment.path / MARKER).is_file():
        raise Transient("the environment was removed by `prune` in this moment", "try again")


def prune(settings: Settings, reporter: Reporter) -> list[Path]:
    """Remove environments that nobody claims, and half-made ones; return what was removed."""
    removed = []
    root = _cache(settings, "environments")
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        claims = root / "claims" / path.name
        if path.name in ("requests", "claims") or not path.is_dir() or _claimed(claims):
            continue
        with _in_cache(settings), _locked(root / "requests" / path.name, reporter):
            # Put out of reach first, then looked at again: who claims it from now on sees that it is gone.
            path.chmod(0o700)
            marker, aside = path / MARKER, path / f"{MARKER}.pruned"
            if marker.is_file():
                marker.replace(aside)
            if _claimed(claims):
                aside.replace(marker)
                path.chmod(0o555)
                continue
            remove(path)
        removed.append(path)
    for claims in list((root / "claims").iterdir()) if (root / "claims").is_dir() else []:
        if not (root / claims.name).is_dir() and not _claimed(claims):
            try:
                claims.rmdir()
            except OSError:
                pass  # somebody claims it in this moment, and will see that it is gone
    requests = root / "requests"
    for pointer in list(requests.iterdir()) if requests.is_dir() else []:
        if pointer.suffix == "" and pointer.is_file() and not (root / pointer.read_text().strip()).is_dir():
            pointer.unlink(missing_ok=True)
    return removed


def _claimed(claims: Path) -> bool:
    """Whether a claim on the environment of this name still holds; those that do not are removed."""
    held = False
    for one in list(claims.iterdir()) if claims.is_dir() else []:
        try:
            owner, age = Path(one.read_text()), time.time() - one.stat().st_mtime
        except FileNotFoundError:
            continue
        record = owner / "cluster.json"
        # Without a record yet, or with one that names another environment still, an `up` may be under way.
        named = not record.is_file() or claims.name in record.read_text() or age < UNDER_WAY_SECONDS
        if owner.is_dir() and named:
            held = True
        else:
            one.unlink(missing_ok=True)
    return held


def site_packages(path: Path, python: Interpreter) -> Path:
    """Where packages are in an environment at `path`."""
    return path / "lib" / f"python3.{python.minor}" / "site-packages"


def remove(path: Path) -> None:
    """Delete an environment, read-only folders and all."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _make(
    key: str, settings: Settings, reporter: Reporter, python: Interpreter, install: Callable[[Path], None]
) -> Environment:
    """Build in place (scripts hold their own path), mark it complete at the end, remove it if that fails."""
    if known := _known_key(key, settings, python):
        return known
    path = _cache(settings, "environments") / key
    with _locked(_cache(settings, "environments", "requests") / key, reporter):
        if known := _known_key(key, settings, python):
            return known
        try:
            remove(path)  # what a killed process left
            install(path)
            store = _cache(settings, "bytecode") / f"{python.version}-{keys.identity(python)[-8:]}"
            bytecode.ensure(path / "bin" / "python", site_packages(path, python), store, reporter)
            _write(
                path / MARKER, json.dumps({"key": key, "python": str(python.path), "made": int(time.time())})
            )
            for folder, _, _ in os.walk(path):
                os.chmod(folder, 0o555)  # noqa: S103
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


def _cache(settings: Settings, *names: str) -> Path:
    return settings.cache_dir.joinpath(*names)


def _write(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text)
    half.replace(path)


@contextmanager
def _in_cache(settings: Settings) -> Iterator[None]:
    """What the disk refuses while the cache is written to, as an error of ours."""
    try:
        yield
    except OSError as error:
        elsewhere = "set IPYTHON_BUILDER_CACHE_DIR to a folder that can be written to"
        why = error.strerror or str(error)
        if not settings.cache_dir.is_dir():
            raise BuilderError(f"the cache {settings.cache_dir} cannot be made: {why}", elsewhere) from error
        raise BuilderError(
            f"{error.filename or settings.cache_dir}: {why}", f"free some space there, or {elsewhere}"
        ) from error


@contextmanager
def _locked(pointer: Path, reporter: Reporter) -> Iterator[None]:
    """One maker at a time; who waits says so once. The kernel frees the lock of a process that is killed."""
    path = pointer.with_name(pointer.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for attempt in range(int(WAIT_SECONDS / 0.1)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 0:
                    reporter.log("another process is making this environment: waiting for it")
                time.sleep(0.1)
        else:
            raise Transient(
                f"another process has held {path} for {WAIT_SECONDS / 60:.0f} minutes", "try later"
            )
        yield
