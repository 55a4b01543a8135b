"""A repository's environment in an image: installed over what the builder image has, and over what was saved.

unchanged   the previous image has saved it whole: put back, no index is asked
satisfied   the builder image has it all: nothing is done, no index is asked
else        versions are chosen, those that are there preferred; what was saved in them is put back, and
            only the rest is installed
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ipython_builder import asking, bytecode, installer, interpreters, keys, runtime
from ipython_builder.build import artifacts, bill, installed, placing
from ipython_builder.build.artifacts import Marker, Saved
from ipython_builder.build.installed import OURS, Installed
from ipython_builder.errors import BuilderError, RepositoryError
from ipython_builder.events import Reporter, counted
from ipython_builder.interpreters import Interpreter
from ipython_builder.places import Places
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec


@dataclass(frozen=True)
class Target:
    """The environment of an image, and what is at hand to change it.

    Attributes:
        settings: with the cache of this build.
        environ: what installers have beside what they always have.
    """

    places: Places
    settings: Settings
    reporter: Reporter
    environ: Mapping[str, str]

    @property
    def root(self) -> Path:
        return self.places.app_root

    def installer(self, python: Interpreter, preferred: str = "") -> installer.Installer:
        return installer.Installer(
            self.settings, self.reporter, python, preferred=preferred, environ=self.environ
        )


@contextmanager
def opened(places: Places, settings: Settings, reporter: Reporter) -> Iterator[Target]:
    """The environment with a cache beside it, so that files are linked and not copied; gone at the end.

    A cache that is mounted into the build stays, and files are copied from it.

    Raises:
        BuilderError: something in the image cannot be written, whatever it was.
    """
    beside, mounted = places.app_root / ".cache", places.root / "var/cache/ipython-builder"
    kept = mounted.is_dir() and os.access(mounted, os.W_OK | os.X_OK)
    cache = mounted if kept else beside
    temporary = beside / "tmp"
    environ = {"TMPDIR": str(temporary), "UV_CACHE_DIR": str(cache / "uv")}
    if kept:
        environ["UV_LINK_MODE"] = "copy"
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        yield Target(places, replace(settings, cache_dir=cache), reporter, environ)
    except OSError as error:
        raise BuilderError(
            f"{error.filename or places.app_root} cannot be written: {error.strerror or error}",
            "free some space where containers are kept"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "build as a user of group 0, over an image of ipython-builder",
        ) from error
    finally:
        placing.remove(beside)
        for name in (".lock", ".gitignore", "CACHEDIR.TAG"):  # uv's
            with suppress(OSError):
                (places.app_root / name).unlink()


def python(places: Places, spec: Spec) -> Interpreter:
    """The Python of the image.

    Raises:
        RepositoryError: the repository wants another one.
        BuilderError: there is no environment.
    """
    found = interpreters.ask(places.app_root / "bin" / "python")
    if found is None:
        raise BuilderError(
            f"there is no environment in {places.app_root}", "build FROM ipython-builder or an image of it"
        )
    if spec.python and not SpecifierSet(spec.python).contains(found.version, prereleases=True):
        raise RepositoryError(
            f"{spec.python_from} asks for Python {spec.python}; this builder image has {found.version}",
            f"change {spec.python_from}, or make a builder whose base has that Python: make images BASE=…",
        )
    return found


def make_base(target: Target, spec: Spec) -> None:
    """What a builder image itself has: an environment with our runtime, and `spec` in it.

    Raises:
        RepositoryError, Unavailable, BuilderError: as `Installer` does.
    """
    where = target.root / "bin" / "python"
    found = interpreters.ask(where) if where.exists() else None
    if found is None:
        found = interpreters.find(spec.python, target.settings, wanted_by=spec.python_from)
        target.installer(found).make(target.root)
    for folder in (target.places.etc, target.places.source, target.places.state):
        folder.mkdir(parents=True, exist_ok=True)
    before = installed.marks(target.root)
    known = _lock(target.places.base_lock)
    _install(target, spec, found, None, known, [])
    _finish(target, found, before)
    write_bill(target, spec, [known, _given(spec)])
    text = target.places.lock.read_text(encoding="utf-8")
    bill.write(target.places.base_lock, text)
    # A repository that asks for nothing is satisfied by this.
    key = _key(Spec(spec.root), target, found)
    bill.write(target.places.marker, str(Marker(key, keys.digest(base=text), found.version, {})))


def install(target: Target, spec: Spec) -> None:
    """What `spec` asks for, with lock, bill of materials and marker.

    Raises:
        RepositoryError: requirements that cannot be had, or another Python is wanted.
        Unavailable, BuilderError: as `Installer` does.
    """
    places, reporter = target.places, target.reporter
    found = python(places, spec)
    base = _lock(places.base_lock)
    base_key = keys.digest(base=_text(places.base_lock))
    key = _key(spec, target, found)
    saved = _saved(target, base_key)
    before = installed.marks(target.root)
    here = artifacts.marker(places.marker)
    moves = keys.moves(spec)
    quiet = True
    if saved and saved.marker.key == key and not moves:
        count = _restore(target, found, saved, saved.marker.packages)
        reporter.log(f"nothing to install: {counted(count, 'package')} of the previous image put back")
        before = installed.marks(target.root)
    elif here and here.key == key and not moves:
        reporter.log("nothing to install: the image has what is asked for")
    elif (
        not moves
        and not _suspects(spec, base, installed.read(target.root))
        and target.installer(found).satisfied(spec, target.root)
    ):
        reporter.log("nothing to install: the builder image has what is asked for")
    else:
        before = _install(target, spec, found, saved, base, installed.read(target.root))
        quiet = False
    _finish(target, found, before)
    for line in target.installer(found).contradictions(target.root):
        name = (re.findall("`([^`]+)`", line) or [""])[0]
        advice = f": with {name} among the requirements, versions that go together are chosen" if name else ""
        reporter.warning(line.replace("The package ", "", 1) + advice)
    earlier = saved.lock if saved else {}
    locks = [base, earlier, _lock(places.lock), _given(spec)]
    distributions = write_bill(target, spec, locks, quiet=quiet)
    over = {one.name: one.version for one, entry in distributions if base.get(one.name) != entry}
    bill.write(places.marker, str(Marker(key, base_key, found.version, over)))


def write_bill(
    target: Target, spec: Spec, known: Sequence[Mapping[str, bill.Entry]], *, quiet: bool = False
) -> list[tuple[Installed, bill.Entry]]:
    """Write lock and bill of materials of what is there.

    Args:
        known: locks that may have the hashes.
        quiet: the index is not asked for those that are missing.
    """
    distributions = installed.read(target.root)
    found = interpreters.ask(target.root / "bin" / "python")
    assert found is not None
    work = target.installer(found)

    def ask(pins: list[str]) -> str:
        return "" if quiet else work.hashes(spec, pins)

    entries = bill.entries(distributions, known, ask, target.places.upload)
    bill.write(target.places.lock, bill.lock(entries))
    bill.write(target.places.bill, bill.bill(distributions, entries))
    bare = [entry.pin for entry in entries if not entry.hashes and not entry.remark]
    if bare:
        target.reporter.warning(f"{target.places.lock.name} has no hash of {', '.join(bare)}: none is known")
    return list(zip(distributions, entries, strict=True))


# -- the steps ------------------------------------------------------------------------------------


def _install(
    target: Target,
    spec: Spec,
    found: Interpreter,
    saved: Saved | None,
    base: Mapping[str, bill.Entry],
    there: list[Installed],
) -> dict[str, tuple[int, int]]:
    """Choose versions, put back what was saved in them, install the rest; return what was not touched."""
    preferred = {entry.name: entry.pin for entry in saved.lock.values() if not entry.remark} if saved else {}
    preferred |= {one.name: one.pin for one in there if not one.origin}
    ours = [
        line
        for line in runtime.preferred_versions().splitlines()
        if canonicalize_name(line.partition("==")[0]) not in preferred
    ]
    work = target.installer(found, "\n".join([*preferred.values(), *ours]))
    pins = work.resolve(spec)
    if saved:
        wanted = dict(_exact([*pins.splitlines(), *asking.bounds(spec)]))
        fitting = {
            one.name: one.version
            for one in saved.distributions
            if not one.origin and wanted.get(one.name) == one.version
        }
        if fitting:
            count = _restore(target, found, saved, fitting)
            target.reporter.log(f"{counted(count, 'package')} of the previous image put back")
    before = installed.marks(target.root)
    here = installed.read(target.root)
    made_here = [name for name, _ in re.findall(r"(?m)^([A-Za-z0-9._-]+)(\[[^]]*\])? @ file:", pins)]
    work.add(spec, pins, target.root, again=[*made_here, *_suspects(spec, base, here)])
    return before


def _finish(target: Target, found: Interpreter, before: Mapping[str, tuple[int, int]]) -> None:
    """What is new gets its bytecode and the group's rights, and loses what names the hour it came."""
    where = installed.site_packages(target.root)
    untouched = {name for name, mark in installed.marks(target.root).items() if before.get(name) == mark}
    new = [one for one in installed.read(target.root) if one.info.name not in untouched]
    for one in new:
        installed.mend(one.info)
    store = target.settings.cache_dir / "bytecode" / f"{found.version}-{keys.identity(found)[-8:]}"
    bytecode.ensure(target.root / "bin" / "python", where, store, target.reporter, leave=untouched)
    for one in new:
        for name in one.files(target.root):
            # A file that was copied has the mode that it had in somebody's cache.
            placing.share(target.root / name)


def _restore(target: Target, found: Interpreter, saved: Saved, names: Mapping[str, str]) -> int:
    there = {one.name for one in installed.read(target.root)}
    replaced = sorted(there & set(names))
    if replaced:
        target.installer(found).uninstall(replaced, target.root)
    return saved.restore(names, target.places)


def _saved(target: Target, base: str) -> Saved | None:
    saved = artifacts.find(target.places, base, target.root / ".cache" / "artifacts")
    if saved and saved.marker.base != base:
        target.reporter.log("the builder image has changed since the previous image: all is installed anew")
        return None
    return saved


def _key(spec: Spec, target: Target, found: Interpreter) -> str:
    # Where packages are fetched from is the machine's affair: another index, or none, asks for nothing new.
    # Nor may a credential in its URL decide anything that ends in an image.
    plain = replace(target.settings, index_url=None, extra_index_urls=())
    return keys.digest(request=keys.request(spec, plain, found), base=_text(target.places.base_lock))


def _suspects(spec: Spec, base: Mapping[str, bill.Entry], there: list[Installed]) -> list[str]:
    """What is there in a version that the repository locks, and has none of the hashes that it gives."""
    given = _given(spec)
    known = {one.name: base[one.name] for one in there if one.name in base and base[one.name].pin == one.pin}
    return [
        name
        for name, entry in given.items()
        if name in known and known[name].pin == entry.pin and not set(entry.hashes) & set(known[name].hashes)
    ]


def _given(spec: Spec) -> dict[str, bill.Entry]:
    """The exact versions with hashes that the repository's own lines have."""
    return {name: e for name, e in bill.parse("\n".join(_plain(spec))).items() if e.hashes and name != OURS}


def _plain(spec: Spec) -> Iterator[str]:
    for line in spec.lines:
        name, equals, rest = line.partition("==")
        if equals and " --hash=" in rest and re.fullmatch(r"[A-Za-z0-9._-]+", name):
            yield f"{canonicalize_name(name)}=={rest}"


def _exact(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(name, version) of the lines that mean one version, and mean it on this Python."""
    for line in lines:
        try:
            wish = Requirement(line)
        except InvalidRequirement:
            continue
        versions = [one.version for one in wish.specifier if one.operator == "=="]
        if len(versions) == 1 and (wish.marker is None or wish.marker.evaluate({"extra": ""})):
            yield canonicalize_name(wish.name), versions[0]


def _lock(path: Path) -> dict[str, bill.Entry]:
    return bill.parse(_text(path))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
