"""All platforms behind one: each label is looked for where it is, so that only `up` needs to be told."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from ipython_builder import cluster
from ipython_builder.errors import UsageError
from ipython_builder.events import Reporter
from ipython_builder.platforms.base import (
    IN_NAMESPACES,
    Console,
    Platform,
    Up,
    Where,
    check_engines,
    need_linux,
)
from ipython_builder.platforms.elsewhere import Elsewheres
from ipython_builder.settings import Settings

NAMES = ("local", "podman", "docker", "kubernetes", "openshift")


class Everywhere:
    """Every cluster of this user, wherever it runs."""

    def __init__(self, settings: Settings, reporter: Reporter, where: Where | None = None) -> None:
        self.settings = settings
        self.reporter = reporter
        self.told = where or Where()
        self.store = Elsewheres(settings.state_dir / "elsewhere")

    def of(self, name: str) -> Platform:
        """The platform of this name. What it needs is imported now: most commands need one of them.

        Raises:
            BuilderError: it cannot be on this machine.
        """
        if name == "local":
            need_linux()
            from ipython_builder.platforms.local import Local

            return Local(self.settings, self.reporter)
        if name in IN_NAMESPACES:
            from ipython_builder.platforms.kubectl import Place

            place = Place(self.told.namespace, self.told.context)
            if name == "kubernetes":
                from ipython_builder.platforms.kubernetes import Kubernetes

                return Kubernetes(self.store, self.settings, self.reporter, place, self.told.user)
            from ipython_builder.platforms.openshift import OpenShift

            return OpenShift(self.store, self.settings, self.reporter, place, self.told.user)
        from ipython_builder.platforms.podman import Containers

        return Containers(name, self.store, self.settings, self.reporter)

    def where(self, label: str) -> str:
        """The name of the platform that has this label.

        Raises:
            UsageError: none has.
        """
        one = self.store.load(cluster.check_label(label))
        if self.told.on in IN_NAMESPACES:
            return self.told.on  # it may be somebody else's, of which nothing is noted here
        if one:
            return one.platform
        if label in self._local():
            return "local"
        if self.told.namespace or self.told.context:
            raise UsageError(
                f"nothing is noted here of a cluster {label!r}",
                "say where it is: --on kubernetes or openshift",
            )
        near = difflib.get_close_matches(label, self.labels(), n=1)
        there = f"did you mean {near[0]}?" if near else "`ipython-builder ls` shows what there is"
        raise UsageError(f"there is no cluster {label!r} on this machine", there)

    def up_on(self, name: str, request: Up) -> dict[str, Any]:
        """Start a cluster there.

        Raises:
            UsageError: the label belongs to a cluster that is somewhere else.
        """
        label = request.label
        if label:
            there = self.store.load(cluster.check_label(label))
            has = there.platform if there else "local" if label in self._local() else name
            if has != name:
                raise UsageError(
                    f"{label} is already a cluster in {has}" if has != "local" else
                    f"{label} is already a cluster of processes here",
                    f"use another --label, or `ipython-builder down {label}` first",
                )  # fmt: skip
        return self.of(name).up(request)

    def up(self, request: Up) -> dict[str, Any]:
        """See `Platform`."""
        return self.up_on("local", request)

    def labels(self) -> list[str]:
        """See `Platform`."""
        return sorted({*self._local(), *self.store.labels()})

    def status(self, label: str, *, memory: bool = False) -> dict[str, Any]:
        """See `Platform`."""
        return self._at(label).status(label, memory=memory)

    def scale(self, label: str, count: int) -> dict[str, Any]:
        """See `Platform`."""
        check_engines(count)
        return self._at(label).scale(label, count)

    def password(self, label: str) -> str:
        """See `Platform`."""
        return self._at(label).password(label)

    def viewer(self, label: str) -> AbstractContextManager[tuple[str, str]]:
        """See `Platform`."""
        return self._at(label).viewer(label)

    def logs(self, label: str, role: str | None, *, follow: bool, last: int) -> Iterator[str]:
        """See `Platform`."""
        return self._at(label).logs(label, role, follow=follow, last=last)

    def log_names(self, label: str) -> list[str]:
        """See `Platform`."""
        return self._at(label).log_names(label)

    def console(self, label: str, words: tuple[str, ...]) -> Console:
        """See `Platform`."""
        return self._at(label).console(label, words)

    def down(self, label: str, *, discard: bool) -> str | None:
        """See `Platform`."""
        return self._at(label).down(label, discard=discard)

    def _at(self, label: str) -> Platform:
        return self.of(self.where(label))

    def _local(self) -> list[str]:
        return self.of("local").labels()
