"""Kubernetes: a cluster is the objects of the templates in one namespace, found by its label."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from ipython_builder import cluster, processors
from ipython_builder.build import image, reference
from ipython_builder.errors import BuilderError, Transient, Unavailable, UsageError
from ipython_builder.events import counted
from ipython_builder.platforms import objects, pods
from ipython_builder.platforms.asking import Clusters
from ipython_builder.platforms.base import Up, check_engines, check_same, new_label, not_running
from ipython_builder.platforms.elsewhere import Elsewhere
from ipython_builder.platforms.kubectl import Kubectl, failure, no_such_kind
from ipython_builder.platforms.objects import Names, Order
from ipython_builder.platforms.parts import KINDS
from ipython_builder.platforms.pods import Found
from ipython_builder.platforms.public import GATEWAYS, OWN, ROUTES, UNSAID, Public
from ipython_builder.platforms.waiting import LOOK, Watch

GONE_SECONDS = 120.0


class Kubernetes(Clusters):
    """Clusters in a Kubernetes that has nothing but Kubernetes' own kinds."""

    name = "kubernetes"
    openshift = False
    kinds: tuple[str, ...] = objects.KINDS

    def up(self, request: Up) -> dict[str, Any]:
        """See `Platform`."""
        label = cluster.check_label(request.label) if request.label else new_label(self.store.labels())
        if request.engines is not None:
            check_engines(request.engines)
        with self.store.locked(label):
            before = self.store.load(label)
            kube = self.client(self._place(before))
            self.check(kube)
            public = request.public.after(before.public if before else UNSAID)
            public.check()
            request = replace(request, public=self._gateway(kube, public))
            found = self._found(kube, label)
            new = found.deployment("controller") is None
            joins = not new and (before is None or before.joined)
            if joins:
                self._judge_joining(label, request, found)
            else:
                self.judge(request, before)
            made = self._made(label, request, kube, before, found, joins=joins)
            if not new and pods.image(found.deployment("controller")) != made.image:
                self.reporter.log("another image: files that were changed in the workspace stay as they are")
            names = Names(label, made.user)
            objects.check_names(names, made.namespace, route=self.openshift)
            mine = found.deployment("viewer", made.user) is None
            discard = not self._claims(kube, made)
            if new:
                self._be_first(made, kube)
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

    def _be_first(self, made: Elsewhere, kube: Kubectl) -> None:
        """Make the cluster's key, if it is not there: of several who start one at once only one can.

        Raises:
            Transient: somebody else was first.
        """
        name = Names(made.label, made.user).cluster
        if kube.get((f"secret/{name}",)):
            return
        what, ours = f"the Secret {name} cannot be made", cluster.random_label()
        key = objects.secret(name, {"ipython-cluster": made.label}, key=cluster.new_key())
        key["metadata"]["annotations"] = {f"{OWN}maker": ours}
        try:
            answer = kube.run("create", "--filename=-", what=what, stdin=json.dumps(key), check=False)
        except BaseException:
            # Cut off: whether it is there is not known, and somebody else's is not ours to remove.
            for one in kube.get((f"secret/{name}",)):
                if pods.noted(one, "maker") == ours:
                    kube.run("delete", "secret", name, "--ignore-not-found", what=what)
            raise
        if "AlreadyExists" in answer.stderr:
            raise Transient(
                f"somebody else is starting {made.label} in {made.namespace}",
                "try again: when it is there, you get a notebook at it",
            )
        if answer.returncode:
            raise failure(what, answer.stderr, kube)

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
            has = pods.noted(controller, "source") or ""
            narrowed = pods.noted(controller, "ref"), pods.noted(controller, "context-dir")
            if not joins:
                check_same(
                    label, asked, same=has == source, source=has, ref=narrowed[0], context_dir=narrowed[1]
                )
            # A notebook at somebody's cluster has that one's notebooks, whatever is here.
            source, (ref, folder) = has, narrowed
            doing = "a notebook at it" if joins else "putting it right"
            self.reporter.log(f"{label} is there already, in {kube.place.namespace}: {doing}")
        if before and request.user not in (None, before.user) and found.deployment("viewer", before.user):
            raise UsageError(
                f"your notebook at {label} is that of {before.user}",
                f"leave --user out, or remove that one first: ipython-builder down {label}",
            )
        user = request.user or (before.user if before else None)
        if user is None and controller is None and (user := self._workspace_of(kube, label)):
            self.reporter.log(f"going on with the workspace of {user}")
        count = pods.wants(found, "engine") if controller is not None else processors.count()
        return Elsewhere(
            label=label,
            platform=self.name,
            user=user or cluster.random_label(),
            source=source,
            ref=ref,
            context_dir=folder,
            builder=request.builder or (before.builder if before else ""),
            host="",
            port=0,
            engines=count if request.engines is None else request.engines,
            image=request.image or (before.image if before else pods.image(controller)),
            namespace=kube.place.namespace or "",
            context=kube.place.context or "",
            public=request.public,
            address=before.address if before else "",
            joined=joins,
        )

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
            self._unserved(kube, made, every)
            phase.done(f"{made.label} is in {made.namespace}")
        if made.public.host is not None:
            made = replace(made, address=made.public.url)
        self.store.save(made)
        return made

    def _gateway(self, kube: Kubectl, public: Public) -> Public:
        """The same, and whether its Gateway speaks HTTPS.

        Raises:
            UsageError: there is no such Gateway.
        """
        if public.tls_secret and not kube.get((f"secret/{public.tls_secret}",)):
            self.reporter.warning(f"there is no Secret {public.tls_secret} with a certificate yet")
        if not public.gateway:
            return public
        parent = public.parent
        namespace = parent.get("namespace", kube.place.namespace or "")
        answer = kube.run(
            *("get", GATEWAYS, parent["name"], f"--namespace={namespace}"),
            "--output=jsonpath={.spec.listeners[*].protocol}",
            what=f"the Gateway {public.gateway} cannot be looked at", check=False,
        )  # fmt: skip
        if no_such_kind(answer):
            raise UsageError("this cluster has no Gateway API", "leave --gateway out: an Ingress is made")
        if "NotFound" in answer.stderr:
            raise UsageError(
                f"there is no Gateway {parent['name']} in {namespace}",
                f"`{kube.program} get {GATEWAYS} --all-namespaces` shows what there is",
            )
        # Who may not look at it may still have a route at it.
        protocols = answer.stdout.split() if not answer.returncode else ["HTTPS"]
        return replace(public, secure="HTTPS" in protocols)

    def _unserved(self, kube: Kubectl, made: Elsewhere, every: list[objects.Object]) -> None:
        """Remove what has served the viewer before, and shall not now."""
        if made.public.host is None:
            return
        served = {"Ingress": "ingresses", "HTTPRoute": ROUTES}
        wanted = [served.get(one["kind"]) for one in every]
        name = Names(made.label, made.user).viewer
        for kind in self._with_routes(kube, "ingresses"):
            if kind not in wanted:
                what = f"what has served {name} cannot be removed"
                kube.run("delete", kind, name, "--ignore-not-found", what=what)

    def order(self, made: Elsewhere, request: Up) -> Order:
        """What the objects are made for."""
        return Order(
            names=Names(made.label, made.user),
            engines=made.engines,
            source=made.source,
            ref=made.ref or "",
            context_dir=made.context_dir or "",
            image=made.image,
            public=made.public,
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
        if names.cluster not in there and not made.joined:
            wanted.append(objects.secret(names.cluster, mine, key=cluster.new_key()))
        if names.viewer not in there or request.password:
            own = mine | {"ipython-user": made.user}
            # An empty one: the viewer makes its own, and keeps it in its volume.
            wanted.append(objects.secret(names.viewer, own, password=request.password or ""))
        if wanted:
            kube.apply(wanted, "the secrets cannot be made")

    def _wait(self, made: Elsewhere, kube: Kubectl) -> dict[str, Any]:
        """Wait until all is ready.

        Raises:
            BuilderError: a part does not come up.
        """

        def ready(found: Found) -> dict[str, Any] | None:
            if not all(pods.arrived(found, kind, made.user) for kind in KINDS):
                return None
            state = self._state(made, kube, found)
            return state if state["engines"]["registered"] >= made.engines else None

        title = f"starting the notebook and {counted(made.engines, 'engine')}"
        with self.reporter.phase("start", title) as phase:
            state = Watch(made, kube, lambda: self._found(kube, made.label), phase).until(ready)
            phase.done(f"notebook and {counted(state['engines']['registered'], 'engine')} are ready")
        return state

    def scale(self, label: str, count: int) -> dict[str, Any]:
        """See `Platform`."""
        check_engines(count)
        with self.store.locked(label):
            made, kube = self._known(label)

            def arrived(found: Found) -> dict[str, Any] | None:
                if len(found.of_kind("engine")) != count or not pods.arrived(found, "engine"):
                    return None
                state = self._state(made, kube, found)
                return state if state["engines"]["registered"] == count else None

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
                state = Watch(made, kube, lambda: self._found(kube, label), phase).until(arrived)
                phase.done(counted(count, "engine"))
        return state

    def down(self, label: str, *, discard: bool) -> str | None:
        """See `Platform`. Viewers of others are left, and named."""
        with self.store.locked(label), self.reporter.phase("down", f"stopping {label}") as phase:
            try:
                made, kube = self._known(label, kept=discard)
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
                f"`ipython-builder down {label} --on {self.name} --namespace {made.namespace} --user USER` "
                "removes one"
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
        kinds = [
            kind
            for kind in self._with_routes(kube, *self.kinds)
            if discard or kind != "persistentvolumeclaim"
        ]
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
