"""Clusters in namespaces as far as one only looks: what they are, what they say, what is in their pods.

What is in the namespace is the truth, and this machine notes only where that is. So everybody who may look
into the namespace can ask for a cluster with `--on`, whoever has made it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipython_builder import cluster, commands
from ipython_builder.errors import BuilderError, Unavailable, UsageError
from ipython_builder.events import Reporter
from ipython_builder.platforms import objects, pods, said
from ipython_builder.platforms.base import Console, not_running
from ipython_builder.platforms.elsewhere import Elsewhere, Elsewheres
from ipython_builder.platforms.kubectl import Kubectl, Place, client, failure
from ipython_builder.platforms.objects import Names
from ipython_builder.platforms.pods import Found
from ipython_builder.platforms.public import ROUTES
from ipython_builder.settings import Settings

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


class Clusters:
    """Clusters in namespaces.

    Attributes:
        name: of the platform.
        user: whose viewer is meant, where a cluster has several.
    """

    name: str

    def __init__(
        self, store: Elsewheres, settings: Settings, reporter: Reporter, place: Place, user: str | None = None
    ) -> None:
        """`user` is whose viewer is meant, where a cluster has several."""
        self.user = user
        self.store = store
        self.settings = settings
        self.reporter = reporter
        self.place = place
        self._clients: dict[Place, Kubectl] = {}

    def client(self, place: Place) -> Kubectl:
        """The program, in a place that is named in full."""
        if place not in self._clients:
            self._clients[place] = client(self.name, place)
        return self._clients[place]

    def labels(self) -> list[str]:
        """See `Platform`."""
        return [one.label for one in self.store.all() if one.platform == self.name]

    def status(self, label: str, *, memory: bool = False) -> dict[str, Any]:
        """See `Platform`. The controller's supervisor is asked in its pod."""
        noted = self.store.load(cluster.check_label(label))
        try:
            made, kube = self._known(label)
            return self._state(made, kube, self._found(kube, label))
        except BuilderError as error:
            # One that cannot be asked hides no other in `ls`.
            if noted is None or noted.platform != self.name:
                raise
            return pods.unknown(noted, error.message)

    def _state(self, made: Elsewhere, kube: Kubectl, found: Found) -> dict[str, Any]:
        told: dict[str, Any] = {}
        running = [one for one in found.of_kind("controller") if pods.ready(one)]
        if running:
            answer = self._inside(kube, pods.name(running[0]), "status", made.label, "--json")
            try:
                told = json.loads(answer or "{}")
            except ValueError:
                pass
        return pods.state(made, found, told)

    def password(self, label: str) -> str:
        """See `Platform`. Only the viewer has it."""
        made, kube = self._known(label)
        return self._password(made, kube)

    def _password(self, made: Elsewhere, kube: Kubectl) -> str:
        target = f"deployment/{Names(made.label, made.user).viewer}"
        answer = self._inside(kube, target, "password", made.label)
        if answer is None:
            raise not_running(made.label)
        return answer.strip()

    @contextmanager
    def viewer(self, label: str) -> Iterator[tuple[str, str]]:
        """See `Platform`. By a tunnel of kubectl: what is public differs from place to place."""
        made, kube = self._known(label)
        password = self._password(made, kube)
        argv = kube.argv("port-forward", f"deployment/{Names(label, made.user).viewer}", ":8080")
        with commands.beside(argv, _FORWARDING, timeout=30) as found:
            yield f"http://127.0.0.1:{found[1]}/", password

    def logs(self, label: str, role: str | None, *, follow: bool, last: int) -> Iterator[str]:
        """See `Platform`. A pod has one log of all that is in it."""
        _, kube = self._known(label)
        chosen = dict(self._pods_of(role, self._found(kube, label), label))

        def listen(name: str, say: said.Say) -> None:
            more = ("--follow",) if follow else ()
            before = f"{name}: " if len(chosen) > 1 else ""
            argv = ("logs", chosen[name], f"--tail={last}", *more)
            kube.follow(*argv, on_line=lambda line: say(f"{before}{line}"))

        if follow:
            yield from said.together(chosen, listen)
            return
        for name in chosen:
            lines: list[str] = []
            listen(name, lines.append)
            yield from lines

    def _pods_of(self, role: str | None, found: Found, label: str) -> list[tuple[str, str]]:
        """(what it is called, pod) of those whose logs hold what a role says.

        Raises:
            UsageError: there are none.
        """
        number = (role or "").partition("-")[2]
        chosen = []
        for one in said.kinds(role):
            for count, pod in enumerate(found.of_kind(one)):
                if not number or int(number) == count:
                    called = f"{one}-{count}" if one == "engine" else one
                    chosen.append((called, pods.name(pod)))
        if not chosen:
            raise UsageError(
                f"there is no log of {role or label}", f"look at `ipython-builder status {label}`"
            )
        return chosen

    def log_names(self, label: str) -> list[str]:
        """See `Platform`."""
        _, kube = self._known(label)
        return [called for called, _ in self._pods_of(None, self._found(kube, label), label)]

    def console(self, label: str, words: tuple[str, ...]) -> Console:
        """See `Platform`. It runs in the viewer's pod, beside the notebooks."""
        made, kube = self._known(label)
        viewer = Names(label, made.user).viewer
        if not any(map(pods.ready, self._found(kube, label).of_kind("viewer", made.user))):
            raise not_running(label)
        terminal = ["--tty"] if sys.stdin is not None and sys.stdin.isatty() else []
        argv = kube.argv("exec", "--stdin", *terminal, f"deployment/{viewer}", "--")
        argv[0] = shutil.which(argv[0]) or argv[0]
        argv += ["ipython-builder", "console", label, *words]
        return Console(argv, dict(os.environ), Path.cwd())

    def _known(self, label: str, *, kept: bool = False) -> tuple[Elsewhere, Kubectl]:
        """What is known of a cluster, and the program where it is.

        Args:
            kept: a workspace that an earlier `down` has left will do.

        Raises:
            UsageError: there is none.
        """
        made = self.store.load(cluster.check_label(label))
        here = made is not None and made.platform == self.name
        if made is not None and here and self.user in (None, made.user):
            return made, self.client(self._place(made))
        kube = self.client(self._place(made) if made is not None and here else self.place)
        found = self._found(kube, label)
        if found.deployments:
            user = self._whose(label, found)
        elif not kept or not (user := self._workspace_of(kube, label) or ""):
            raise UsageError(
                f"there is no cluster {label!r} in {kube.place.namespace}",
                f"`{kube.program} get deployments --selector=ipython-cluster` shows what there is",
            )
        parts = found.deployment("controller") or found.deployment("viewer")
        return Elsewhere(
            label=label,
            platform=self.name,
            user=user,
            source=pods.noted(parts, "source") or "",
            ref=pods.noted(parts, "ref"),
            image=pods.image(parts),
            builder="",
            host="",
            port=0,
            engines=pods.wants(found, "engine"),
            namespace=kube.place.namespace or "",
            context=kube.place.context or "",
            address=self.public(kube, Names(label, user)) if user else "",
        ), kube

    def _place(self, before: Elsewhere | None) -> Place:
        """Where the cluster is, or shall be.

        Raises:
            UsageError: it is somewhere else.
        """
        asked = self.place
        if before is None:
            return asked
        for wanted, has, option in (
            (asked.namespace, before.namespace, "--namespace"),
            (asked.context, before.context or None, "--context"),
        ):
            if wanted and wanted != has:
                raise UsageError(
                    f"{before.label} is a cluster in {option} {has}",
                    f"leave {option} out, or use another --label",
                )
        return Place(before.namespace, before.context or None)

    def _found(self, kube: Kubectl, label: str) -> Found:
        return Found.of(kube.get(("deployments", "pods"), f"--selector={objects.mark(label)}"))

    def _workspace_of(self, kube: Kubectl, label: str) -> str | None:
        """The user of the workspace that an earlier `down` has kept, if there is one.

        Raises:
            UsageError: there are several, and none was named.
        """
        claims = kube.get(("persistentvolumeclaims",), f"--selector={objects.mark(label)}")
        users = sorted({str(pods.labels(one).get(pods.USER)) for one in claims})
        if self.user:
            return self.user if self.user in users else None
        if len(users) > 1:
            raise UsageError(
                f"{label} has kept workspaces of {', '.join(users)}", "say whose with --user, or a new one's"
            )
        return users[0] if users else None

    def _whose(self, label: str, found: Found) -> str:
        """The user whose viewer is meant; empty where there is none.

        Raises:
            UsageError: there are several, or it is not there.
        """
        users = found.users()
        if self.user and self.user not in users:
            raise UsageError(f"{label} has no viewer of {self.user!r}", f"it has those of {', '.join(users)}")
        if not self.user and len(users) > 1:
            raise UsageError(
                f"{label} has viewers of {len(users)} users", f"name one with --user: {', '.join(users)}"
            )
        return self.user or (users[0] if users else "")

    def public(self, kube: Kubectl, names: Names) -> str:
        """The viewer's public URL; empty where it has none."""
        kinds = self._with_routes(kube, "ingress")
        found = [one for kind in kinds for one in kube.get((f"{kind}/{names.viewer}",))]
        return next((pods.noted(one, "url") or "" for one in found), "")

    def _with_routes(self, kube: Kubectl, *kinds: str) -> list[str]:
        """These, and routes of Gateway API, where this cluster has them."""
        words = ("get", ROUTES, "--selector=none=none", "--output=name")
        there = not kube.run(*words, what="routes cannot be looked at", check=False).returncode
        return [*kinds, ROUTES] if there else list(kinds)

    def _inside(self, kube: Kubectl, target: str, *words: str) -> str | None:
        """What our tool prints in a pod; None where it does not run.

        Raises:
            Unavailable: nobody can be asked.
        """
        what = f"{target} cannot be asked"
        answer = kube.run("exec", target, "--", "ipython-builder", *words, what=what, check=False)
        if answer.stdout.strip():
            return answer.stdout
        problem = failure(what, answer.stderr, kube)
        if isinstance(problem, Unavailable):
            raise problem
        return None
