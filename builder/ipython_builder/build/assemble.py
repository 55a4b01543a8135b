"""What happens in a container when an image is made: the repository's files in, an environment and facts out.

assemble       all of it, as S2I calls it
dependencies   the environment alone, from a specification that was read elsewhere
begin, finish  the hooks before and after it, alone: where an installation's secrets are out of their reach
base           the environment that a builder image itself has
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ipython_builder import commands, imports, scrub, source, spec
from ipython_builder.build import bill, environment, facts, installed, placing
from ipython_builder.build.environment import Target
from ipython_builder.build.facts import Origin
from ipython_builder.errors import BuilderError, RepositoryError
from ipython_builder.events import Reporter, counted
from ipython_builder.places import Places
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec

PRE, POST = ".ipython-builder/pre-build", ".ipython-builder/post-build"
_NOT_KEPT = frozenset({".git"})


def assemble(
    places: Places,
    settings: Settings,
    reporter: Reporter,
    origin: Origin | None = None,
    *,
    hooks: bool = True,
) -> None:
    """From what S2I has uploaded to everything an image holds; the upload is gone afterwards.

    Args:
        hooks: whether the repository's hooks are run; not where secrets are mounted.

    Raises:
        RepositoryError: the repository's files or requirements are at fault.
        Unavailable: the index cannot be reached.
        BuilderError: a hook failed, or the disk is full.
    """
    if not places.upload.is_dir() or not any(places.upload.iterdir()):
        raise RepositoryError(
            f"there is nothing in {places.upload}: the repository, or its context directory, is empty",
            "commit notebooks to it, and look at the ref and the context directory",
        )
    checkout = source.fetch(source.parse(str(places.upload)), places.upload, settings, reporter)
    for warning in checkout.warnings:
        reporter.warning(warning)
    asked = spec.read(places.upload)
    imports.preload(asked)  # for its errors: after an installation they would come late
    _tell(asked, reporter)
    environment.python(places, asked)
    origin = origin or Origin()
    origin = replace(origin, commit=origin.commit or checkout.commit)
    with environment.opened(places, settings, reporter) as target:
        if hooks:
            _run_hook(target, asked.root, PRE)
        environment.install(target, asked)
        found = installed.read(target.root)
        _missing(asked, [one.name for one in found], reporter)
        told = facts.text(asked, origin, folders=[installed.site_packages(target.root)])
        with reporter.phase("source", "putting the notebooks in place") as phase:
            placing.move_tree(places.upload, places.source, without=_NOT_KEPT)
            bill.write(places.facts, told)
            phase.done(f"put {counted(len(asked.notebooks), 'notebook')} into {places.source}")
        if hooks:
            _after(target, asked)
    placing.remove(places.artifacts)
    reporter.log(
        f"assembled: {counted(len(installed.read(places.app_root)), 'package')} in {places.app_root}"
    )


def dependencies(places: Places, settings: Settings, reporter: Reporter) -> None:
    """The environment of the specification in the upload; the upload is gone afterwards.

    Raises:
        RepositoryError, Unavailable, BuilderError: as `assemble` does.
    """
    from ipython_builder.build import request

    asked = request.load(places.upload)
    _tell(asked, reporter)
    with environment.opened(places, settings, reporter) as target:
        _run_hook(target, asked.root, PRE)
        environment.install(target, asked)
        _missing(asked, [one.name for one in installed.read(target.root)], reporter)
    placing.remove(places.upload)


def begin(places: Places, settings: Settings, reporter: Reporter) -> None:
    """The hook that runs before anything is installed, in what was uploaded.

    Raises:
        BuilderError: it failed.
    """
    with environment.opened(places, settings, reporter) as target:
        _run_hook(target, places.upload, PRE)


def finish(places: Places, settings: Settings, reporter: Reporter) -> None:
    """The hook that runs when the notebooks are in their place.

    Raises:
        BuilderError: it failed.
    """
    with environment.opened(places, settings, reporter) as target:
        _after(target, Spec(places.source))


def base(places: Places, settings: Settings, reporter: Reporter, requirements: Path | None = None) -> None:
    """The environment of a builder image, with base.lock; over one that is there, as an image on top of it.

    Args:
        requirements: a file of requirements, locked or not, that are installed too.

    Raises:
        RepositoryError, Unavailable, BuilderError: as `assemble` does.
    """
    with tempfile.TemporaryDirectory(prefix="ipython-builder-") as name:
        if requirements:
            shutil.copyfile(requirements, Path(name, "requirements.txt"))
        asked = spec.read(Path(name))
        with environment.opened(places, settings, reporter) as target:
            environment.make_base(target, asked)
            bill.write(places.facts, facts.text(Spec(Path(name)), Origin()))


# -- the steps ------------------------------------------------------------------------------------


def _tell(asked: Spec, reporter: Reporter) -> None:
    hooks = {PRE, POST}
    for notice in asked.notices:
        if notice.file in hooks or (asked.system_packages and notice.file.endswith("apt.txt")):
            continue  # these say what holds on one's own machine
        reporter.warning(f"{notice.file}: {notice.message}" if notice.file else notice.message)
    if asked.system_packages:
        reporter.warning(
            f"apt.txt: not installed here: {' '.join(asked.system_packages)}. System packages need an own"
            " Containerfile: FROM ipython-builder, USER 0, RUN apt-get install …, USER 1001"
        )


def _missing(asked: Spec, names: list[str], reporter: Reporter) -> None:
    for one in imports.missing(asked, resolved=names):
        more = len(one.notebooks) - 1
        who = f"{one.notebooks[0]} and {more} more import" if more else f"{one.notebooks[0]} imports"
        advice = f": add {one.distribution} to the requirements" if one.distribution else ""
        reporter.warning(f"nothing provides {one.module}, which {who}{advice}")


def _after(target: Target, asked: Spec) -> None:
    if not _run_hook(target, target.places.source, POST):
        return
    # It may have installed something.
    locks = [bill.parse(path.read_text(encoding="utf-8")) for path in _locks(target.places)]
    environment.write_bill(target, asked, locks)


def _locks(places: Places) -> list[Path]:
    return [path for path in (places.base_lock, places.lock) if path.is_file()]


def _run_hook(target: Target, root: Path, name: str) -> bool:
    """Run one of the repository's hooks, output shown; whether there was one.

    Raises:
        BuilderError: it cannot be run, or failed.
    """
    hook = root / name
    if not hook.is_file():
        return False
    if not os.access(hook, os.X_OK):
        hook.chmod(0o775)  # not every way to a container keeps that bit
    with target.reporter.phase("hooks", f"running {name}") as phase:
        answer = commands.run(
            [hook], cwd=root, env=_hook_environ(target), on_line=target.reporter.log, merged=True
        )
        if answer.returncode != 0:
            raise BuilderError(
                f"{name} ended with {answer.returncode}; what it said stands above", f"mend {name}"
            )
        phase.done(f"ran {name}")
    return True


def _hook_environ(target: Target) -> Mapping[str, str]:
    """What installers have, without what was given for this build alone: indexes, passwords, authorities."""
    plain = replace(target.settings, index_url=None, extra_index_urls=(), ca_bundle=None)
    environ = scrub.installer_environ(plain) | dict(target.environ)
    folder = target.root / "bin"
    return environ | {
        "PATH": f"{folder}{os.pathsep}{environ['PATH']}",
        "VIRTUAL_ENV": str(target.root),
        "IPYTHON_NOTEBOOK_DIR": str(target.places.source),
        # Nothing that is only of use to the next installation shall stay in an image.
        "PIP_NO_CACHE_DIR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
