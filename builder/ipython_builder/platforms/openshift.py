"""OpenShift: Kubernetes that builds images, gives host names with HTTPS, and has a catalogue of templates."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipython_builder import templates
from ipython_builder.build import words
from ipython_builder.commands import Result
from ipython_builder.errors import BuilderError, Unavailable, UsageError
from ipython_builder.platforms import objects, pods
from ipython_builder.platforms.base import Up
from ipython_builder.platforms.elsewhere import Elsewhere
from ipython_builder.platforms.kubectl import Kubectl, failure, no_such_kind
from ipython_builder.platforms.kubernetes import Kubernetes
from ipython_builder.platforms.objects import Names, Order

SHARED = "openshift"  # the namespace of what everybody may build on


class OpenShift(Kubernetes):
    """Clusters in OpenShift."""

    name = "openshift"
    openshift = True
    kinds = objects.OPENSHIFT_KINDS

    def judge(self, request: Up, before: Elsewhere | None) -> None:
        """See `Kubernetes`. Without an image, OpenShift makes one."""
        if request.image is not None:
            super().judge(request, before)

    def check(self, kube: Kubectl) -> None:
        """See `Kubernetes`.

        Raises:
            UsageError: it is no OpenShift.
        """
        what = "routes cannot be looked at"
        answer = kube.run("get", "routes", "--selector=none=none", "--output=name", what=what, check=False)
        if no_such_kind(answer):
            raise UsageError("this cluster is no OpenShift: it has no routes", "use --on kubernetes")
        if answer.returncode:
            raise failure(what, answer.stderr, kube)

    def ensure(self, made: Elsewhere, request: Up, kube: Kubectl, *, joins: bool) -> Elsewhere:
        """See `Kubernetes`."""
        names = Names(made.label, made.user)
        if joins:
            return self._join(made, request, kube)
        if request.build:
            made = replace(made, image=self._build(made, request))
        order = self.order(made, request)
        if not made.image:
            tag, namespace = self._builder(kube, request.builder or made.builder or "ipython-builder")
            made = replace(made, builder=f"{namespace}/{tag}" if namespace else tag)
            order = replace(
                order, image=None, builder=tag, builder_namespace=namespace,
                binary=request.source.folder is not None,
            )  # fmt: skip
        every = objects.cluster_of(order, openshift=True)
        builds = [one for one in every if one["kind"] in objects.BUILD_KINDS]
        with self.reporter.phase("objects", f"making objects in {made.namespace}") as phase:
            self._secrets(made, request, kube)
            if builds:
                kube.apply(builds, "the build cannot be made")
            phase.done(f"{made.label} is in {made.namespace}")
        if builds:
            self._run_build(names, order, request, kube)
            # Named here: until a trigger had done it no pod could be made, which would look like a failure.
            found_tag = self._tag(kube, f"{names.cluster}:latest", made.namespace)
            order = replace(order, built="" if found_tag.returncode else found_tag.stdout.strip())
            every = objects.cluster_of(order, openshift=True)
        every += objects.viewer_of(order, openshift=True)
        return self._finish(made, every, kube)

    def _join(self, made: Elsewhere, request: Up, kube: Kubectl) -> Elsewhere:
        """Have a viewer at the cluster of somebody else, with its image and what builds change of it."""
        controller = self._found(kube, made.label).deployment("controller")
        order = self.order(made, request)
        if controller is not None and pods.triggered(controller):
            order = replace(order, image=None, built=made.image)
        self._secrets(made, request, kube)
        return self._finish(made, objects.viewer_of(order, openshift=True), kube)

    def _finish(self, made: Elsewhere, every: list[objects.Object], kube: Kubectl) -> Elsewhere:
        """Have these objects, but for what has been made before them."""
        done = ("Secret", *objects.BUILD_KINDS)
        kube.apply([one for one in every if one["kind"] not in done], "the objects cannot be made")
        made = replace(made, address=self.public(kube, Names(made.label, made.user)))
        self.store.save(made)
        return made

    def _builder(self, kube: Kubectl, wish: str) -> tuple[str, str]:
        """(image stream tag, its namespace or "" for this one) of a builder image that is there.

        Raises:
            Unavailable: it is not.
        """
        place, _, name = wish.rpartition("/")
        tag = name if ":" in name else f"{name}:latest"
        for namespace in [place] if place else [kube.place.namespace or "", SHARED]:
            found = self._tag(kube, tag, namespace)
            if no_such_kind(found):
                raise Unavailable(
                    "this cluster builds no images: it has no image streams", "name an image with --image"
                )
            if found.returncode == 0:
                return tag, "" if namespace == kube.place.namespace else namespace
        raise Unavailable(
            f"there is no builder image {wish} in {place or f'{kube.place.namespace} or {SHARED}'}",
            "make it with `ipython-builder template install`, or look at `oc get builds` if it is being made",
        )

    def _tag(self, kube: Kubectl, tag: str, namespace: str) -> Result:
        """An image stream tag: where its image is, if it is there."""
        return kube.run(
            *("get", f"imagestreamtag/{tag}", f"--namespace={namespace}"),
            "--output=jsonpath={.image.dockerImageReference}",
            what=f"{tag} cannot be looked for", check=False,
        )  # fmt: skip

    def _run_build(self, names: Names, order: Order, request: Up, kube: Kubectl) -> None:
        """Have the image built, and follow it.

        Raises:
            BuilderError: the build failed; the last that it said.
        """
        argv = ["start-build", names.cluster, "--follow", "--wait"]
        if order.binary:
            folder = Path(str(request.source.folder))
            argv.append(f"--from-dir={folder / order.context_dir if order.context_dir else folder}")
        elif order.ref:
            argv.append(f"--commit={order.ref}")
        with self.reporter.phase("build", f"building {names.cluster} in {kube.place.namespace}") as phase:
            done = kube.follow(*argv, on_line=phase.progress)
            if done.returncode:
                raise words.failure(f"the build of {names.cluster} failed", done.stderr)
            phase.done(f"built {names.cluster}")

    def _with_routes(self, kube: Kubectl, *kinds: str) -> list[str]:
        """See `Kubernetes`. Here a Route serves the viewer."""
        return list(kinds)

    def _delete(self, kube: Kubectl, kinds: list[str], selector: str, what: str) -> None:
        """See `Kubernetes`. Not every OpenShift has builds and image streams."""
        words = (f"--selector={selector}", "--ignore-not-found", "--wait=false")
        answer = kube.run("delete", ",".join(kinds), *words, what=what, check=False)
        if no_such_kind(answer):
            theirs = [kind for kind in kinds if kind not in objects.KINDS]
            super()._delete(kube, [kind for kind in kinds if kind not in theirs], selector, what)
            for kind in theirs:
                answer = kube.run("delete", kind, *words, what=what, check=False)
                if answer.returncode and not no_such_kind(answer):
                    raise failure(what, answer.stderr, kube)
        elif answer.returncode:
            raise failure(what, answer.stderr, kube)

    def public(self, kube: Kubectl, names: Names) -> str:
        """See `Kubernetes`."""
        for one in kube.get((f"route/{names.viewer}",)):
            admitted = one.get("status", {}).get("ingress") or [{}]
            host = admitted[0].get("host") or one["spec"].get("host")
            return f"https://{host}/" if host else ""
        return ""


def installed(namespace: str, repository: str | None) -> list[dict[str, Any]]:
    """The builder images and templates as they are installed for others to use.

    Args:
        namespace: where they will be; templates look for their builder there, whoever uses them.
        repository: where the builder images are built from; None for the public one.
    """
    builder: list[dict[str, Any]] = copy.deepcopy(templates.builder())
    for one in builder:
        if one["kind"] == "BuildConfig" and repository:
            one["spec"]["source"]["git"]["uri"] = repository
    found = []
    for name in templates.packaged():
        template = copy.deepcopy(templates.load(name).raw)
        for parameter in template["parameters"]:
            if parameter["name"] == "IPYTHON_BUILDER_NAMESPACE":
                parameter["value"] = namespace
        found.append(template)
    return [*builder, *found]


def install(kube: Kubectl, repository: str | None) -> list[str]:
    """Have builder images and templates in this place; what there is now, as ``kind/name``.

    Raises:
        BuilderError: the cluster is no OpenShift, or one may not do that there.
    """
    namespace = kube.place.namespace or ""
    every = installed(namespace, repository)
    try:
        kube.apply(every, f"templates cannot be installed in {namespace}")
    except BuilderError as error:
        if "does not know" in error.message:
            error.hint = "templates need OpenShift; for other clusters: `ipython-builder up --on kubernetes`"
        raise
    return [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in every]
