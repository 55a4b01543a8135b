"""From a repository to an image, on the host: what `build` does, as a list of steps.

The engine is chosen before anything is fetched, and the image gets its name when all of it is there.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ipython_builder import scrub, spec
from ipython_builder import source as sources
from ipython_builder.build import (
    choice,
    containerfile,
    context,
    engines,
    facts,
    leftovers,
    plan,
    reference,
    request,
)
from ipython_builder.build.reference import Reference
from ipython_builder.build.s2i import S2i
from ipython_builder.commands import redact
from ipython_builder.errors import BuilderError, UsageError
from ipython_builder.events import Phase, Reporter, counted
from ipython_builder.places import Places
from ipython_builder.settings import Settings
from ipython_builder.source import Checkout, Source
from ipython_builder.spec import Spec

LABEL = "io.openshift.s2i.scripts-url"  # what makes an image a builder
_AT = Places()


@dataclass(frozen=True)
class Wish:
    """What is asked for, judged.

    Attributes:
        image: the name that it shall have.
        builder: the image that it stands on.
        engine: "podman", "buildah", "docker" or "s2i"; None for the best there is.
        labels: over ours.
        extra: requirement lines beside the repository's.
        cached: whether layers that were built before may be taken.
    """

    source: Source
    image: Reference
    builder: Reference
    engine: str | None = None
    push: bool = False
    platform: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Sequence[str] = ()
    cached: bool = True


def make(wish: Wish, settings: Settings, reporter: Reporter) -> dict[str, Any]:
    """Make the image, and push it where that is asked for; what was made, as `build --json` prints it.

    Raises:
        UsageError: things are asked for that exclude each other.
        RepositoryError: the repository is at fault.
        Unavailable: no engine, no builder image, a registry or an index that does not answer.
        BuilderError: anything else that went wrong; nothing has the image's name then that had it not before.
    """
    _judge(wish)
    s2i = S2i() if wish.engine == "s2i" else None
    with reporter.phase("engine", "looking for an engine and the builder image") as phase:
        engine, base = choice.choose("docker" if s2i else wish.engine, wish.builder, phase.progress)
        _check(base, wish.platform)
        phase.done(f"{base.name} in {engine.name}")
    with tempfile.TemporaryDirectory(prefix="ipython-builder-") as name:
        folder = Path(name)
        checkout = sources.fetch(wish.source, folder / "checkout", settings, reporter)
        asked, files = _stage(wish, checkout, folder / "context" / plan.SOURCE, reporter)
        secrets = write_secrets(folder / "secrets", settings)
        hidden = scrub.index_secrets(settings)
        made = _plan(wish, checkout, asked, files, folder / "context", base.name, settings)
        order = engines.Order(
            folder / "context",
            context.time_of(checkout),
            wish.platform,
            {id: path for id, place in _SECRETS for at, path in secrets.items() if at == place},
            hidden,
            wish.cached,
        )
        how = "by s2i" if s2i else f"with {engine.name}"
        with reporter.phase("build", f"building {wish.image} {how}") as phase:
            if s2i:
                layers = []
                with _beneath(engine, made, order, phase) as beneath:
                    if beneath:
                        layers = ["dependencies", "source"]
                    s2i.build(
                        folder / "context" / f"{plan.SOURCE}{_AT.source}",
                        beneath or base.name,
                        wish.image,
                        _follow(phase),
                        origin=_said(_from(wish, checkout)),
                        secrets=secrets,
                        hidden=hidden,
                        again=not beneath and wish.cached and engine.find(wish.image) is not None,
                    )
            else:
                layers = list(made.layers)
                engine.tag(_built(engine, made, order, phase), wish.image)
            phase.done(f"built {wish.image} {how}")
    digest = ""
    if wish.push:
        with reporter.phase("push", f"pushing {wish.image}") as phase:
            try:
                digest = engine.push(wish.image, phase.progress)
            except BuilderError as error:
                error.hint = f"{error.hint}; the image is in {engine.name} all the same"
                raise
            phase.done(f"pushed {wish.image}")
    found = engine.find(wish.image)
    return {
        "image": str(wish.image),
        "id": found.id if found else None,
        "engine": "s2i" if s2i else engine.name,
        "builder": {"name": base.name, "id": base.id},
        "source": wish.source.text,
        "commit": checkout.commit,
        "layers": layers,
        "pushed": wish.push,
        "digest": digest or None,
        "labels": dict(found.labels) if found else {},
        "seconds": {phase: round(seconds, 3) for phase, seconds in reporter.seconds.items()},
    }


_SECRETS = ((plan.CONFIG_SECRET, plan.CONFIG_PATH), (plan.CA_SECRET, plan.CA_PATH))


# -- the steps ------------------------------------------------------------------------------------


def _built(engine: engines.Engine, made: plan.Plan, order: engines.Order, phase: Phase) -> str:
    """The id of the image that a plan gives."""
    (order.folder / "Containerfile").write_text(containerfile.text(made), encoding="utf-8")
    return engine.build(order, _follow(phase))


@contextmanager
def _beneath(
    engine: engines.Engine, made: plan.Plan, order: engines.Order, phase: Phase
) -> Iterator[str | None]:
    """The name of an image for s2i to stand on that has all that is to be installed; None where the
    repository has a say in that.

    S2I itself makes one layer of everything, and an incremental build carries all packages out of the last
    image and into the next. The engine takes the layer that it has.
    """
    beneath = made.environment
    if beneath is None:
        yield None
        return
    name = reference.parse(f"{leftovers.mark()}:environment")  # s2i takes no id
    engine.tag(_built(engine, beneath, order, phase), name)
    try:
        yield str(name)
    finally:
        engine.forget(name)


def _judge(wish: Wish) -> None:
    if wish.push and not wish.image.remote:
        raise UsageError(
            f"{wish.image} names no registry to push to",
            f"write it as in registry.example.org/{wish.image.path}, docker.io/me/{wish.image.title}",
        )
    if wish.engine == "s2i":
        options = {"--with": wish.extra, "--image-label": wish.labels, "--platform": wish.platform}
        for option, asked in options.items():
            if asked:
                raise UsageError(f"s2i knows nothing of {option}", f"leave {option} out, or --engine s2i")


def _check(base: engines.Image, platform: str | None) -> None:
    """That the builder is one, and for the right platform."""
    if LABEL not in base.labels:
        raise BuilderError(
            f"{base.name} is no builder image: it has no label {LABEL}",
            "name one that `make images` has made, or an image that is FROM it",
        )
    if platform and not f"{platform}/".startswith(f"{base.platform}/"):
        raise BuilderError(
            f"{base.name} is for {base.platform}, and {platform} is asked for",
            "name a builder image of that platform with --builder",
        )


def _stage(wish: Wish, checkout: Checkout, target: Path, reporter: Reporter) -> tuple[Spec, context.Staged]:
    """Read the repository, and write what of it becomes part of the image."""
    for warning in checkout.warnings:
        reporter.warning(warning)
    asked = spec.read(checkout.root, top=checkout.path, extra=wish.extra)
    root = target / _AT.source.relative_to("/")
    root.parent.mkdir(parents=True)
    with reporter.phase("stage", "copying the repository's files") as phase:
        files = context.stage(checkout, root)
        phase.done(f"{counted(len(files.files), 'file')}, {files.bytes / 1e6:.1f} MB")
    if files.left_out:
        more = f" and {len(files.left_out) - 5} more" if len(files.left_out) > 5 else ""
        reporter.log(f"not in the image: {', '.join(files.left_out[:5])}{more}")
    there = set(files.files)
    hooks = set(asked.hooks)
    for notice in asked.notices:
        if notice.file not in hooks:
            reporter.warning(f"{notice.file}: {notice.message}" if notice.file else notice.message)
    return replace(asked, notebooks=tuple(name for name in asked.notebooks if name in there)), files


def _plan(
    wish: Wish,
    checkout: Checkout,
    asked: Spec,
    files: context.Staged,
    folder: Path,
    builder: str,
    settings: Settings,
) -> plan.Plan:
    """What is to be done, with the files for it in the context."""
    epoch = context.time_of(checkout)
    root = folder / f"{plan.SOURCE}{_AT.source}"
    own = frozenset(files.files) & {plan.PRE_BUILD, plan.POST_BUILD, plan.ASSEMBLE, plan.RUN}
    origin = _from(wish, checkout)
    indexes = [redact(url) for url in (settings.index_url or "", *settings.extra_index_urls)]
    if plan.one_step(own):
        if wish.extra:
            raise UsageError(
                "this repository installs by a script of its own, which --with cannot reach",
                "write the requirement into the repository",
            )
        digest = context.digest(root, *indexes)
    else:
        context.write(folder / f"{plan.SOURCE}{_AT.facts}", facts.text(asked, origin), epoch)
        request.dump(asked, folder / plan.REQUEST)
        digest = context.digest(folder / plan.REQUEST, *indexes)
    return plan.make(
        builder,
        plan.Facts(
            own,
            digest,
            _said(origin),
            context.environment(root),
            _labels(wish, checkout, builder) | dict(wish.labels),
        ),
    )


def _from(wish: Wish, checkout: Checkout) -> facts.Origin:
    return facts.Origin(_origin(wish.source), checkout.ref, checkout.commit)


def _said(origin: facts.Origin) -> dict[str, str]:
    """The same as the variables that OpenShift sets in its builds."""
    said = {
        "OPENSHIFT_BUILD_SOURCE": origin.source,
        "OPENSHIFT_BUILD_REFERENCE": origin.ref,
        "OPENSHIFT_BUILD_COMMIT": origin.commit,
    }
    return {name: value for name, value in said.items() if value}


def _origin(source: Source) -> str:
    """Where others find the repository, without credentials; empty for a place on this machine."""
    return "" if source.url is None or source.url.startswith("file://") else source.text


def _labels(wish: Wish, checkout: Checkout, builder: str) -> dict[str, str]:
    """What the image says of itself, in the words of OCI, OpenShift and S2I."""
    origin = _origin(wish.source)
    commit, ref = checkout.commit, checkout.ref
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(checkout.epoch)) if commit else None
    found = {
        "org.opencontainers.image.title": wish.image.title,
        "org.opencontainers.image.description": f"Notebooks of {origin or wish.image.title}",
        "org.opencontainers.image.source": origin,
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.version": ref or (commit or "")[:12] or wish.image.tag,
        "org.opencontainers.image.created": made,
        "org.opencontainers.image.base.name": builder,
        "io.k8s.display-name": wish.image.title,
        "io.openshift.tags": "python,jupyter,ipython,ipyparallel",
        "io.openshift.build.source-location": origin,
        "io.openshift.build.source-context-dir": wish.source.context_dir,
        "io.openshift.build.commit.id": commit,
        "io.openshift.build.commit.ref": ref,
        "io.openshift.build.commit.date": made,
        "io.openshift.build.image": builder,
    }
    return {key: value for key, value in found.items() if value}


def _follow(phase: Phase) -> Callable[[str], None]:
    """What our own steps, and a repository's hooks in them, say in the container is said here too."""

    def say(line: str) -> None:
        if line.startswith("  "):
            phase.reporter.log(line.removeprefix("  "))
        elif line.startswith("! "):
            phase.reporter.warning(line.removeprefix("! "))
        else:
            phase.progress(line)  # how far the engine is

    return say


def write_secrets(folder: Path, settings: Settings) -> dict[str, Path]:
    """What the installation needs and no layer may have: its place in the container -> a file here."""
    values: dict[str, Any] = {}
    found: dict[str, Path] = {}
    folder.mkdir(mode=0o700)
    if settings.index_url:
        values["index_url"] = settings.index_url
    if settings.extra_index_urls:
        values["extra_index_urls"] = list(settings.extra_index_urls)
    if settings.ca_bundle:
        values["ca_bundle"] = plan.CA_PATH
        found[plan.CA_PATH] = _private(folder / "ca.crt", settings.ca_bundle.read_text(encoding="utf-8"))
    if values:
        # Every text and list that json writes is one of TOML too.
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        found[plan.CONFIG_PATH] = _private(folder / "config.toml", text)
    return found


def _private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path
