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
_COPY = "cp -R --preserve=timestamps"
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

    @property
    def environment(self) -> Plan | None:
        """The plan up to its dependencies, for an image to stand on; None where all is one layer."""
        layers = [step.layer if isinstance(step, Run) else "" for step in self.steps]
        if "dependencies" not in layers:
            return None
        return Plan(self.builder, self.steps[: layers.index("dependencies") + 1])


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
    if ASSEMBLE in facts.own:
        script = f"{_told(facts)}{_AT.upload}/{ASSEMBLE}"
        steps.append(_assemble("everything", f"{SOURCE}{_AT.source}", script, facts.digest))
    elif PRE_BUILD in facts.own:
        steps += _with_hook(facts)
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
    keep = f"rm -rf {kept}/tree && {_COPY} {upload} {kept}/tree"
    hook = _with_tree(MOUNTED, f"ipython-builder s2i assemble --pre-build && {keep}", facts.digest)
    own = _told(facts) + "ipython-builder s2i assemble --no-hooks"
    gone = r"error: what the pre-build hook made is no longer in the cache\n next: build with --no-cache\n"
    there = f"{{ test -d {kept}/tree || {{ printf '{gone}' >&2; exit 1; }}; }}"
    return [
        Run("pre-build", hook, (_mount(f"{SOURCE}{_AT.source}"), _CACHE, cache)),
        Run(
            "everything",
            f"{there} && {_with_tree(f'{kept}/tree', own, facts.digest)}",
            (_CACHE, cache, *_SECRETS),
        ),
        *_post_build(facts),
    ]


def _post_build(facts: Facts) -> list[Step]:
    if POST_BUILD not in facts.own:
        return []
    return [Run("post-build", "umask 0002 && ipython-builder s2i assemble --source", (_CACHE,))]


def _assemble(layer: str, folder: str, script: str, digest: str) -> Run:
    """A step that has a folder of the context as its own where S2I has the repository, and leaves nothing."""
    return Run(layer, _with_tree(MOUNTED, script, digest), (_mount(folder), _CACHE, *_SECRETS))


def _with_tree(tree: str, script: str, digest: str) -> str:
    """The line of a step for which a copy of `tree` is where S2I has the repository."""
    # The digest: not every engine looks at the content of what is mounted before it takes a layer it has.
    upload = _AT.upload
    return f": {digest}; umask 0002 && {_COPY} {tree} {upload} && {script} && rm -rf {upload}"


def _mount(folder: str) -> str:
    return f"--mount=type=bind,source={folder},target={MOUNTED}"


def _told(facts: Facts) -> str:
    """What stands before a command that shall know where the repository is from."""
    return "".join(f"{name}={shlex.quote(value)} " for name, value in sorted(facts.origin.items()))
