"""Kubernetes: a cluster is the objects of the templates in one namespace, found by its label.

What is in the namespace is the truth, and this machine notes only where that is. So everybody who may look
into the namespace can ask for a cluster with `--on`, whoever has made it.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipython_builder import cluster, commands, processors
from ipython_builder.build import image, reference
from ipython_builder.errors import BuilderError, Unavailable, UsageError
from ipython_builder.events import Phase, Reporter, counted
from ipython_builder.platforms import objects, pods, said
from ipython_builder.platforms.base import Console, Up, check_engines, check_same, new_label, not_running
from ipython_builder.platforms.elsewhere import Elsewhere, Elsewheres
from ipython_builder.platforms.kubectl import Kubectl, Place, client
from ipython_builder.platforms.objects import Names, Order
from ipython_builder.platforms.parts import KINDS
from ipython_builder.platforms.pods import Found, Trouble
from ipython_builder.settings import Settings

START_SECONDS = 300.0  # an image may have to be pulled; an engine more may take another second
GONE_SECONDS = 120.0
LOOK = 0.5
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


class Kubernetes:
    """Clusters in a Kubernetes that has nothing but Kubernetes' own kinds."""

    name = "kubernetes"
    openshift = False
    kinds: tuple[str, ...] = objects.KINDS

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
        self._said = ""

    def client(self, place: Place) -> Kubectl:
        """The program, in a place that is named in full."""
        if place not in self._clients:
            self._clients[place] = client(self.name, place)
        return self._clients[place]

    # -- up -----------------------------------------------------------------------------------------------

    def up(self, request: Up) -> dict[str, Any]:
        """See `Platform`."""
        label = cluster.check_label(request.label) if request.label else new_label(self.store.labels())
        if request.engines is not None:
            check_engines(request.engines)
        with self.store.locked(label):
            before = self.store.load(label)
            kube = self.client(self._place(before))
            self.check(kube)
            found = self._found(kube, label)
            new = found.deployment("controller") is None
            joins = not new and (before is None or before.joined)
            if joins:
                self._judge_joining(label, request, found)
            else:
                self.judge(request, before)
            made = self._made(label, request, kube, before, found, joins=joins)
            names = Names(label, made.user)
            objects.check_names(names, made.namespace, route=self.openshift)
            mine = found.deployment("viewer", made.user) is None
            discard = not self._claims(kube, made)
            try:
                self.store.save(made)
                made = self.ensure(made, request, kube, joins=joins)
                state = self._wait(made, kube)
            except BaseException:
                if new or mine:
                    self._undo(made, kube, discard=discard, every=new)
                elif before:
                    self.store.save(before)
                raise
        return self._description(made, kube, state)

    def check(self, kube: Kubectl) -> None:
        """See that this cluster has what is needed, before anything is made."""

    def _judge_joining(self, label: str, request: Up, found: Found) -> None:
        """Refuse what would change the cluster of somebody else; a notebook at it changes nothing."""
        has = pods.image(found.deployment("controller"))
        if request.build or request.image not in (None, has):
            raise UsageError(
                f"{label} runs {has}, and was not made from here",
                "leave --image and --build out to have a notebook at it, or use another --label",
            )
        if request.engines not in (None, pods.wants(found, "engine")):
            raise UsageError(
                f"{label} has {counted(pods.wants(found, 'engine'), 'engine')}, and was not made from here",
                f"leave -n out, and scale it: ipython-builder scale {label} {request.engines}",
            )

    def judge(self, request: Up, before: Elsewhere | None) -> None:
        """Refuse what cannot be meant here."""
        if request.image is None and not (before and before.image):
            raise UsageError(
                "Kubernetes runs an image from a registry that its nodes reach, and none was named",
                "name it with --image; with --build it is made of SOURCE and pushed there first",
            )
        if request.image and not reference.parse(request.image).remote and request.build:
            raise UsageError(
                f"--build pushes to a registry, and {request.image} names none",
                "write it as in registry.example.org/me/notebooks",
            )

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

    def _made(
        self,
        label: str,
        request: Up,
        kube: Kubectl,
        before: Elsewhere | None,
        found: Found,
        *,
        joins: bool,
    ) -> Elsewhere:
        """What the cluster is made of, from what is asked for and what is there.

        Raises:
            UsageError: the label is another source's.
        """
        asked = request.source
        source = str(asked.folder or asked.text)
        ref, folder = asked.ref, asked.context_dir
        controller = found.deployment("controller")
        if controller is not None:
            has = pods.noted(controller, "source")
            narrowed = pods.noted(controller, "ref"), pods.noted(controller, "context-dir")
            if has is None:
                raise UsageError(
                    f"there is a cluster {label} in {kube.place.namespace} already, made by other means",
                    "use another --label",
                )
            check_same(label, asked, same=has == source, source=has, ref=narrowed[0], context_dir=narrowed[1])
            ref, folder = narrowed
            doing = "a notebook at it" if joins else "putting it right"
            self.reporter.log(f"{label} is there already, in {kube.place.namespace}: {doing}")
        user = request.user or (before.user if before else None)
        if user is None and controller is None:
            user = self._workspace_of(kube, label)
        count = pods.wants(found, "engine") if controller is not None else processors.count()
        return Elsewhere(
            label=label,
            platform=self.name,
            user=user or cluster.random_label(),
            source=source,
            ref=ref,
            context_dir=folder,
            builder=request.builder or (before.builder if before else ""),
            host=request.host or (before.host if before else ""),
            port=0,
            engines=count if request.engines is None else request.engines,
            image=request.image or (before.image if before else pods.image(controller)),
            namespace=kube.place.namespace or "",
            context=kube.place.context or "",
            address=before.address if before else "",
            joined=joins,
        )

    def _workspace_of(self, kube: Kubectl, label: str) -> str | None:
        """The user of the workspace that an earlier `down` has kept, if there is one.

        Raises:
            UsageError: there are several.
        """
        claims = kube.get(("persistentvolumeclaims",), f"--selector={objects.mark(label)}")
        users = {str(pods.labels(one).get(pods.USER)) for one in claims}
        if len(users) > 1:
            raise UsageError(
                f"{label} has kept workspaces of {', '.join(sorted(users))}",
                "say whose to go on with, or a new one's: --user",
            )
        if not users:
            return None
        user = users.pop()
        self.reporter.log(f"going on with the workspace of {user}")
        return user

    def ensure(self, made: Elsewhere, request: Up, kube: Kubectl, *, joins: bool) -> Elsewhere:
        """Have the image and all objects; returns what the cluster is made of.

        Args:
            joins: the cluster is somebody else's, and only a viewer is wanted.
        """
        if request.build:
            made = replace(made, image=self._build(made, request))
        order = self.order(made, request)
        with self.reporter.phase("objects", f"making objects in {made.namespace}") as phase:
            self._secrets(made, request, kube)
            every = objects.viewer_of(order, openshift=False)
            every += [] if joins else objects.cluster_of(order, openshift=False)
            kube.apply([one for one in every if one["kind"] != "Secret"], "the objects cannot be made")
            phase.done(f"{made.label} is in {made.namespace}")
        if made.host:
            made = replace(made, address=f"http{'s' if request.tls_secret else ''}://{made.host}/")
        self.store.save(made)
        return made

    def order(self, made: Elsewhere, request: Up) -> Order:
        """What the objects are made for."""
        return Order(
            names=Names(made.label, made.user),
            engines=made.engines,
            source=made.source,
            ref=made.ref or "",
            context_dir=made.context_dir or "",
            image=made.image,
            host=made.host,
            tls_secret=request.tls_secret or "",
            ingress_class=request.ingress_class or "",
        )

    def _build(self, made: Elsewhere, request: Up) -> str:
        """Make the image and push it; returns its name with the digest, so that nodes fetch this one."""
        wish = image.Wish(
            source=replace(request.source, ref=made.ref, context_dir=made.context_dir),
            image=reference.target(made.image),
            builder=reference.parse(made.builder or "ipython-builder", "the builder's name"),
            push=True,
            extra=request.extra,
            cached=not request.upgrade,
        )
        built = image.make(wish, self.settings, self.reporter)
        return f"{wish.image}@{built['digest']}" if built["digest"] else str(wish.image)

    def _secrets(self, made: Elsewhere, request: Up, kube: Kubectl) -> None:
        """Have the cluster's key, and the viewer's password: what is there stays."""
        names = Names(made.label, made.user)
        there = {pods.name(one) for one in kube.get(("secrets",), f"--selector={objects.mark(made.label)}")}
        wanted = []
        mine = {"ipython-cluster": made.label}
        if names.cluster not in there:
            wanted.append(objects.secret(names.cluster, mine, key=cluster.new_key()))
        if names.viewer not in there or request.password:
            own = mine | {"ipython-user": made.user}
            # An empty one: the viewer makes its own, and keeps it in its volume.
            wanted.append(objects.secret(names.viewer, own, password=request.password or ""))
        if wanted:
            kube.apply(wanted, "the secrets cannot be made")

    # -- waiting ------------------------------------------------------------------------------------------

    def _wait(self, made: Elsewhere, kube: Kubectl) -> dict[str, Any]:
        """Wait until all is ready.

        Raises:
            BuilderError: a part does not come up.
        """
        title = f"starting the notebook and {counted(made.engines, 'engine')}"
        with self.reporter.phase("start", title) as phase:
            deadline = time.monotonic() + START_SECONDS + made.engines
            while True:
                found = self._found(kube, made.label)
                waiting = [kind for kind in KINDS if not pods.arrived(found, kind, made.user)]
                if not waiting:
                    state = self._state(made, kube, found)
                    if state["engines"]["registered"] >= made.engines:
                        break
                self._look(made, kube, found, phase, late=time.monotonic() > deadline)
                time.sleep(LOOK)
            phase.done(f"notebook and {counted(state['engines']['registered'], 'engine')} are ready")
        return state

    def _look(self, made: Elsewhere, kube: Kubectl, found: Found, phase: Phase, *, late: bool) -> None:
        """Say how far it is, and give up where waiting is of no use."""
        troubles = pods.troubles(found, made.user)
        for one in troubles:
            if one.hopeless or late:
                raise self._failure(one, kube)
        far = []
        for kind in KINDS:
            mine = found.of_kind(kind, made.user)
            far.append(f"{kind} {sum(map(pods.ready, mine))}/{pods.wants(found, kind, made.user)}")
        why = [f"{one.kind}: {one.what}" for one in troubles[:1]]
        if why and why[0] != self._said:
            self.reporter.log(why[0])
            self._said = why[0]
        phase.progress(", ".join(far + why))
        if late:
            raise BuilderError(
                f"the cluster did not start in {START_SECONDS:.0f} s: {', '.join(far)} are ready",
                f"look at `{kube.program} describe pods --selector={objects.mark(made.label)}`",
            )

    def _failure(self, trouble: Trouble, kube: Kubectl) -> BuilderError:
        words = ""
        if trouble.pod:
            log: list[str] = []
            for before in ((), ("--previous",)):
                answer = kube.run(
                    *("logs", trouble.pod, "--tail=8", *before), what="its log cannot be read", check=False
                )
                log = answer.stdout.splitlines() if not answer.returncode else []
                if log:
                    break
            words = "".join(f"\n  {line}" for line in log[-8:])
        return BuilderError(
            f"the cluster did not start: {trouble.kind}: {trouble.what}{words}", "mend what it names"
        )

    # -- what can be asked --------------------------------------------------------------------------------

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

    def scale(self, label: str, count: int) -> dict[str, Any]:
        """See `Platform`."""
        check_engines(count)
        with self.store.locked(label):
            made, kube = self._known(label)
            if self._found(kube, label).deployment("engine") is None:
                raise not_running(label)
            name = Names(label, made.user).engine
            with self.reporter.phase("scale", f"scaling to {counted(count, 'engine')}") as phase:
                kube.run(
                    *("scale", f"deployment/{name}", f"--replicas={count}"), what=f"{name} cannot be scaled"
                )
                made = replace(made, engines=count)
                if self.store.load(label):
                    self.store.save(made)
                deadline = time.monotonic() + START_SECONDS + count
                while True:
                    found = self._found(kube, label)
                    state = self._state(made, kube, found)
                    gone = len(found.of_kind("engine")) == count and pods.arrived(found, "engine")
                    if gone and state["engines"]["registered"] == count:
                        break
                    self._look(made, kube, found, phase, late=time.monotonic() > deadline)
                    time.sleep(LOOK)
                phase.done(counted(count, "engine"))
        return state

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
        chosen = self._pods_of(role, self._found(kube, label), label)
        heard: queue.Queue[str | None] = queue.Queue()

        def listen(kind: str, pod: str) -> None:
            more = ("--follow",) if follow else ()
            kube.follow(
                *("logs", pod, f"--tail={last}", *more),
                on_line=lambda line: heard.put(f"{kind}: {line}" if len(chosen) > 1 else line),
            )
            heard.put(None)

        if follow:
            for kind, pod in chosen:
                threading.Thread(target=listen, args=(kind, pod), daemon=True).start()
            for _ in chosen:
                while (line := heard.get()) is not None:
                    yield line
            return
        for kind, pod in chosen:
            listen(kind, pod)
            while (line := heard.get()) is not None:
                yield line

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

    # -- down ---------------------------------------------------------------------------------------------

    def down(self, label: str, *, discard: bool) -> str | None:
        """See `Platform`. Viewers of others are left, and named."""
        with self.store.locked(label), self.reporter.phase("down", f"stopping {label}") as phase:
            try:
                made, kube = self._known(label)
                others = [user for user in self._found(kube, label).users() if user != made.user]
            except Unavailable as error:
                if self.store.load(label):
                    error.hint = f"{error.hint}; if it is gone for good, remove {self.store.path(label)}"
                raise
            claim = Names(label, made.user).viewer
            there = self._claims(kube, made)
            every = not self.user and not made.joined
            self._remove(made, kube, discard=discard, every=every)
            if self.user is None or not others:
                self.store.remove(label)
            phase.done(f"stopped {label}" if every else f"removed the viewer of {made.user}")
        if others and every:
            whose = ", ".join(others)
            self.reporter.warning(
                f"viewers of other users of {label} are left: {whose}; "
                f"`ipython-builder down {label} --on {self.name} --user USER` removes one"
            )
        if discard or not there:
            return None
        return (
            f"the volume claim {claim} in {made.namespace}; "
            f"`{kube.program} --namespace {made.namespace} delete persistentvolumeclaim {claim}` removes them"
        )

    def _claims(self, kube: Kubectl, made: Elsewhere) -> list[dict[str, Any]]:
        mine = f"--selector={objects.mark(made.label)},{pods.USER}={made.user}"
        return kube.get(("persistentvolumeclaims",), mine)

    def _undo(self, made: Elsewhere, kube: Kubectl, *, discard: bool, every: bool) -> None:
        """Put away what an `up` has made that failed; why it failed is what is raised."""
        self.reporter.log("taking away what was made")
        try:
            self._remove(made, kube, discard=discard, every=every, at_once=True)
            self.store.remove(made.label)
        except BuilderError as error:
            self.reporter.warning(f"{error.message}; `ipython-builder down {made.label}` tries again")

    def _remove(
        self, made: Elsewhere, kube: Kubectl, *, discard: bool, every: bool, at_once: bool = False
    ) -> None:
        """Remove this user's viewer, with `every` what is no viewer too; wait until it is gone.

        Args:
            at_once: nobody has work in there yet.
        """
        kinds = [kind for kind in self.kinds if discard or kind != "persistentvolumeclaim"]
        label = objects.mark(made.label)
        selectors = [f"{label},{pods.USER}={made.user}"] + ([f"{label},!{pods.USER}"] if every else [])
        for selector in selectors:
            self._delete(kube, kinds, selector, f"{made.label} cannot be removed")
            if at_once:
                words = ("delete", "pods", f"--selector={selector}", "--grace-period=1", "--wait=false")
                kube.run(*words, "--ignore-not-found", what="pods cannot be removed", check=False)
        deadline = time.monotonic() + GONE_SECONDS
        while time.monotonic() < deadline:
            left = [one for one in selectors if kube.get(("pods",), f"--selector={one}")]
            if not left:
                return
            time.sleep(LOOK)
        raise BuilderError(
            f"pods of {made.label} are still there after {GONE_SECONDS:.0f} s",
            f"look at `{kube.program} get pods --selector={label}`",
        )

    def _delete(self, kube: Kubectl, kinds: list[str], selector: str, what: str) -> None:
        words = (f"--selector={selector}", "--ignore-not-found", "--wait=false")
        kube.run("delete", ",".join(kinds), *words, what=what)

    # -- parts --------------------------------------------------------------------------------------------

    def _known(self, label: str) -> tuple[Elsewhere, Kubectl]:
        """What is known of a cluster, and the program where it is.

        Raises:
            UsageError: there is none.
        """
        made = self.store.load(cluster.check_label(label))
        here = made is not None and made.platform == self.name
        if made is not None and here and self.user in (None, made.user):
            return made, self.client(self._place(made))
        kube = self.client(self._place(made) if made is not None and here else self.place)
        found = self._found(kube, label)
        if not found.deployments:
            raise UsageError(
                f"there is no cluster {label!r} in {kube.place.namespace}",
                f"`{kube.program} get deployments --selector=ipython-cluster` shows what there is",
            )
        user, parts = self._whose(label, found), found.deployment("controller") or found.deployments[0]
        return Elsewhere(
            label=label,
            platform=self.name,
            user=user,
            source=pods.noted(parts, "source") or "",
            ref=pods.noted(parts, "ref"),
            builder="",
            host="",
            port=0,
            engines=pods.wants(found, "engine"),
            namespace=kube.place.namespace or "",
            context=kube.place.context or "",
            address=self.public(kube, Names(label, user)) if user else "",
        ), kube

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
        for one in kube.get((f"ingress/{names.viewer}",)):
            tls = "s" if one["spec"].get("tls") else ""
            return f"http{tls}://{one['spec']['rules'][0]['host']}/"
        return ""

    def _inside(self, kube: Kubectl, target: str, *words: str) -> str | None:
        """What our tool prints in a pod; None where it does not run."""
        argv = ("exec", target, "--", "ipython-builder", *words)
        answer = kube.run(*argv, what=f"{target} cannot be asked", check=False)
        return answer.stdout if answer.stdout.strip() else None

    def _description(self, made: Elsewhere, kube: Kubectl, state: dict[str, Any]) -> dict[str, Any]:
        names = Names(made.label, made.user)
        forward = f"{kube.program} --namespace {made.namespace} port-forward service/{names.viewer} 8080"
        return {
            "label": made.label,
            "user": made.user,
            "platform": self.name,
            "namespace": made.namespace,
            "state": state["state"],
            "url": made.url or "http://127.0.0.1:8080/",
            "forward": None if made.url else forward,
            "password": self._password(made, kube),
            "viewer": {"url": made.url or None, "name": names.viewer},
            "controller": {
                "host": names.controller,
                "ports": [cluster.FIRST_PORT, cluster.FIRST_PORT + cluster.PORT_COUNT - 1],
                "name": names.controller,
            },
            "engines": {name: state["engines"][name] for name in ("requested", "registered")},
            "environment": {"image": made.image},
            "source": made.source,
            "commit": made.commit,
            "notebooks": state["notebooks"],
            "seconds": {name: round(took, 3) for name, took in self.reporter.seconds.items()},
        }
