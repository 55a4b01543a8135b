"""A repository and a builder -> the layers of an image, by how often they change: steps as data. Pure.

    dependencies    what the request asks for; the same as long as the request is
    source          the notebooks and what is known of them
    post-build      only where the repository has that hook

Where the repository has a say in the installation (a pre-build hook, an assemble script of its own), its
whole tree decides, and all is one layer, as S2I makes it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from ipython_builder.places import Places

PRE_BUILD, POST_BUILD = ".ipython-builder/pre-build", ".ipython-builder/post-build"
ASSEMBLE, RUN = ".s2i/bin/assemble", ".s2i/bin/run"
USER = 1001
# Folders of the context, and where a step sees them.
REQUEST, SOURCE = "request", "source"
MOUNTED = "/tmp/ipython-builder-context"  # noqa: S108
CONFIG_SECRET, CA_SECRET = "ipython-builder-config", "ipython-builder-ca"
CONFIG_PATH, CA_PATH = "/run/secrets/ipython-builder/config.toml", "/run/secrets/ipython-builder/ca.crt"

_AT = Places()
_CACHE = f"--mount=type=cache,id=ipython-builder,target=/var/cache/ipython-builder,uid={USER},gid=0,mode=0775"
_SECRETS = tuple(
    f"--mount=type=secret,id={name},target={path},uid={USER},gid=0,mode=0440,required=false"
    for name, path in ((CONFIG_SECRET, CONFIG_PATH), (CA_SECRET, CA_PATH))
)


@dataclass(frozen=True)
class Variables:
    """Environment variables from here on, and of the image."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """A shell line in the container, with what it sees of outside; one layer, of this name."""

    layer: str
    line: str
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy:
    """A folder of the context that comes over a folder of the image; one layer, of this name."""

    layer: str
    folder: str
    target: str


@dataclass(frozen=True)
class Labels:
    """Labels of the image."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Command:
    """What the image runs."""

    words: tuple[str, ...]


Step = Variables | Run | Copy | Labels | Command


@dataclass(frozen=True)
class Plan:
    """An image on top of another one.

    Attributes:
        builder: the name of the image that it stands on.
        steps: what is done, in this order.
    """

    builder: str
    steps: tuple[Step, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that come on top of the builder's."""
        return tuple(step.layer for step in self.steps if isinstance(step, Run | Copy))


@dataclass(frozen=True)
class Facts:
    """What a plan depends on.

    Attributes:
        own: which of the files named above the repository has.
        digest: of the request; where all is one step, of the whole tree.
        origin: variables that say where the repository is from, as OpenShift sets them; of the one step only.
        variables: those of .s2i/environment.
        labels: as they shall be on the image.
    """

    own: frozenset[str]
    digest: str
    origin: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def one_step(own: frozenset[str]) -> bool:
    """Whether the whole tree decides what is installed."""
    return bool(own & {PRE_BUILD, ASSEMBLE})


def make(builder: str, facts: Facts) -> Plan:
    """The plan of an image."""
    steps: list[Step] = [Variables(facts.variables)] if facts.variables else []
    if PRE_BUILD in facts.own and ASSEMBLE not in facts.own:
        steps += _with_hook(facts)
    elif one_step(facts.own):
        script = f"{_AT.upload}/{ASSEMBLE}" if ASSEMBLE in facts.own else f"{_AT.scripts}/assemble"
        said = [f"{name}={shlex.quote(value)}" for name, value in sorted(facts.origin.items())]
        script = " ".join([*said, script])
        steps.append(_assemble("everything", f"{SOURCE}{_AT.source}", script, facts.digest))
    else:
        steps.append(
            _assemble("dependencies", REQUEST, "ipython-builder s2i assemble --dependencies", facts.digest)
        )
        steps.append(Copy("source", f"{SOURCE}{_AT.app_root}", str(_AT.app_root)))
        steps += _post_build(facts)
    steps.append(Labels(facts.labels))
    steps.append(Command((f"{_AT.source}/{RUN}" if RUN in facts.own else f"{_AT.scripts}/run",)))
    return Plan(builder, tuple(steps))


def _with_hook(facts: Facts) -> list[Step]:
    """A step for each of the repository's hooks, which see no secret, and between them one for our own.

    The tree that the first hook leaves goes to the next step by way of a cache, and so into no layer.
    """
    upload, kept = _AT.upload, "/var/cache/ipython-builder-hooked"
    cache = f"--mount=type=cache,id=ipython-builder-{facts.digest},target={kept},uid={USER},gid=0,mode=0775"
    hook = (
        f": {facts.digest}; umask 0002 && cp -R --preserve=timestamps {MOUNTED} {upload} && "
        f"ipython-builder s2i assemble --pre-build && rm -rf {kept}/tree && "
        f"cp -R --preserve=timestamps {upload} {kept}/tree && rm -rf {upload}"
    )
    said = "".join(f"{name}={shlex.quote(value)} " for name, value in sorted(facts.origin.items()))
    own = (
        f": {facts.digest}; umask 0002 && cp -R --preserve=timestamps {kept}/tree {upload} && "
        f"{said}ipython-builder s2i assemble --no-hooks && rm -rf {upload}"
    )
    mount = f"--mount=type=bind,source={SOURCE}{_AT.source},target={MOUNTED}"
    return [
        Run("pre-build", hook, (mount, _CACHE, cache)),
        Run("everything", own, (_CACHE, cache, *_SECRETS)),
        *_post_build(facts),
    ]


def _post_build(facts: Facts) -> list[Step]:
    if POST_BUILD not in facts.own:
        return []
    return [Run("post-build", "umask 0002 && ipython-builder s2i assemble --source", (_CACHE,))]


def _assemble(layer: str, folder: str, script: str, digest: str) -> Run:
    """A step that has a folder of the context as its own where S2I has the repository, and leaves nothing."""
    # The digest: not every engine looks at the content of what is mounted before it takes a layer it has.
    upload = _AT.upload
    line = (
        f": {digest}; umask 0002 && cp -R --preserve=timestamps {MOUNTED} {upload} && "
        f"{script} && rm -rf {upload}"
    )
    mount = f"--mount=type=bind,source={folder},target={MOUNTED}"
    return Run(layer, line, (mount, _CACHE, *_SECRETS))
