"""What every platform can do: the verbs of the command line, as a protocol."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ipython_builder import cluster
from ipython_builder.errors import BuilderError, UsageError
from ipython_builder.platforms.public import UNSAID, Public
from ipython_builder.source import Source

IN_NAMESPACES = ("kubernetes", "openshift")  # platforms that clusters of other people are on too


@dataclass(frozen=True)
class Up:
    """What `up` was asked for.

    Attributes:
        label: None for a random one.
        engines: how many; None for as many as there are, or one a CPU at the first start.
        extra: requirement lines beside the repository's.
        password: the viewer's, when it shall not be a random one.
        port: the viewer's; None for a free one.
        host: the address the viewer listens on; None for the one it has, or the settings'.
        builder: the image to build on, where there is an image; None for the one it has, or ours.
        fork: whether engines are forked; None for what it was told before, or what the repository says.
        image: one that a registry has, where clusters are run from a registry; with `build` it is made of
            the source and pushed there first.
        public: the viewer's public host name, where clusters are in namespaces.
    """

    source: Source
    label: str | None = None
    user: str | None = None
    engines: int | None = None
    extra: tuple[str, ...] = ()
    password: str | None = None
    port: int | None = None
    host: str | None = None
    upgrade: bool = False
    allow_hooks: bool = False
    fork: bool | None = None
    builder: str | None = None
    image: str | None = None
    build: bool = False
    public: Public = UNSAID


@dataclass(frozen=True)
class Where:
    """Where a command shall look, where it is told.

    Attributes:
        on: the platform; None for the one that has the label.
        namespace, context: in which Kubernetes; None for what kubectl would take.
        user: whose viewer, where a cluster has several.
    """

    on: str | None = None
    namespace: str | None = None
    context: str | None = None
    user: str | None = None


@dataclass(frozen=True)
class Console:
    """How to become an IPython with the cluster behind it."""

    argv: list[str]
    environ: dict[str, str]
    cwd: Path


def need_linux() -> None:
    """Raises BuilderError where there is no /proc, and what else of Linux a cluster of processes needs."""
    if not sys.platform.startswith("linux"):
        raise BuilderError(
            f"clusters on one's own machine need Linux, and this is {sys.platform}",
            "here `check` and `lock` work; run the rest in a Linux machine or container",
        )


def check_engines(count: int) -> None:
    """Raises UsageError for a number of engines that cannot be meant."""
    if not 0 <= count <= cluster.MAX_ENGINES:
        raise UsageError(
            f"{count} engines cannot be had", f"any number from 0 to {cluster.MAX_ENGINES:,} can"
        )


def check_same(
    label: str, asked: Source, *, same: bool, source: str, ref: str | None, context_dir: str | None
) -> None:
    """See that `asked` is what the cluster of this label is made of.

    Args:
        same: whether it is the same place; what narrows it is looked at here.

    Raises:
        UsageError: it is another source, ref or folder.
    """
    narrowed = [(asked.ref, ref, "ref"), (asked.context_dir, context_dir, "context-dir")]
    if not same or any(wanted and wanted != has for wanted, has, _ in narrowed):
        place = " ".join([source, *(f"--{name} {has}" for _, has, name in narrowed if has)])
        raise UsageError(
            f"{label} is already a cluster of {place}",
            f"use another --label, or `ipython-builder down {label}` first",
        )


def new_label(taken: Collection[str]) -> str:
    """A random label that is not `taken`."""
    while (label := cluster.random_label()) in taken:
        pass
    return label


def not_running(label: str) -> BuilderError:
    """What to say of a cluster that is there and does not run."""
    return BuilderError(f"{label} does not run", f"start it: ipython-builder up --label {label} SOURCE")


class Platform(Protocol):
    """A place where clusters run. Every method raises `errors.BuilderError` and says what to do next."""

    def up(self, request: Up) -> dict[str, Any]:
        """Start a cluster, or put right the one of that label; returns the `up --json` object."""

    def labels(self) -> list[str]: ...

    def status(self, label: str, *, memory: bool = False) -> dict[str, Any]:
        """The `status --json` object, true even when nothing of the cluster lives.

        Args:
            memory: look at the roles' memory too, which takes a moment where there are many.
        """

    def scale(self, label: str, count: int) -> dict[str, Any]: ...

    def password(self, label: str) -> str: ...

    def viewer(self, label: str) -> AbstractContextManager[tuple[str, str]]:
        """The viewer's base URL and password, for its REST API; good for as long as the block lasts."""

    def logs(self, label: str, role: str | None, *, follow: bool, last: int) -> Iterator[str]: ...

    def log_names(self, label: str) -> list[str]: ...

    def console(self, label: str, words: tuple[str, ...]) -> Console: ...

    def down(self, label: str, *, discard: bool) -> str | None:
        """Stop and remove; returns where changed notebooks were kept, if any."""
