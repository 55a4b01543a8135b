"""podman and docker: a cluster is three containers of one image, in a network of their own.

`up` goes image -> network, secrets, volumes -> containers -> ready. Everything has the cluster's label, so
what was cut off half-way is found and removed by it. Engines are in one container: see `parts.Names.engine`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipython_builder import cluster, ports, processors
from ipython_builder.build import image, reference
from ipython_builder.errors import BuilderError, Unavailable, UsageError
from ipython_builder.events import Phase, Reporter, counted
from ipython_builder.platforms import merged, parts, said
from ipython_builder.platforms.base import Console, Up, check_engines, check_same, new_label, not_running
from ipython_builder.platforms.containers import Client, PortInUse, client
from ipython_builder.platforms.elsewhere import Elsewhere, Elsewheres
from ipython_builder.platforms.parts import Names
from ipython_builder.platforms.stock import ANSWER_SECONDS, Stock
from ipython_builder.settings import Settings

START_SECONDS = 120.0  # an engine more may take another second
ASK_AGAIN = 0.3
LIVES = 3  # a part that ended that often will not come up


class Containers:
    """Clusters in one engine: "podman" or "docker"."""

    def __init__(self, name: str, store: Elsewheres, settings: Settings, reporter: Reporter) -> None:
        self.name = name
        self.store = store
        self.settings = settings
        self.reporter = reporter
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The engine's command line.

        Raises:
            Unavailable: it is not there.
        """
        if self._client is None:
            self._client = client(self.name)
        return self._client

    @property
    def stock(self) -> Stock:
        """What it has of clusters."""
        return Stock(self.client, self.reporter)

    # -- up -----------------------------------------------------------------------------------------------

    def up(self, request: Up) -> dict[str, Any]:
        """See `Platform`."""
        label = cluster.check_label(request.label) if request.label else new_label(self.store.labels())
        if request.engines is not None:
            check_engines(request.engines)
        with self.store.locked(label):
            before = self.store.load(label)
            new = before is None or not before.image
            made = self._new(label, request) if new or before is None else self._again(before, request)
            names = Names(label, made.user)
            kept = new and bool(self.client.inspect("volume", names.workspace))
            if new and before is None and kept:
                self._take_up(made, names)
            try:
                if new:
                    self.store.save(made)
                made = self._image(made, request)
                if before and before.image not in ("", made.image):
                    self._renew(before, made)
                self._ensure(made, request.password, free=new and request.port is None)
                state = self._wait(label)
                if state["engines"]["requested"] != made.engines:
                    self._scale(label, made.engines)
                    state = self.status(label)
            except BaseException:
                if new:
                    self._undo(label, names.workspace if kept else None)
                raise
        return self._description(label, state)

    def _undo(self, label: str, keep: str | None) -> None:
        """Put away what a new cluster has so far; why that is done is what is raised."""
        try:
            self._remove(label, keep=keep)
        except BuilderError as error:
            self.reporter.warning(f"{error.message}; `ipython-builder down {label}` tries again")

    def _new(self, label: str, request: Up) -> Elsewhere:
        host = request.host or self.settings.viewer_host
        ports.check_host(host)
        source = request.source
        return Elsewhere(
            label=label,
            platform=self.name,
            user=request.user or cluster.random_label(),
            source=str(source.folder or source.text),
            ref=source.ref,
            context_dir=source.context_dir,
            builder=request.builder or "ipython-builder",
            host=host,
            port=self._port(host, request.port),
            engines=processors.count() if request.engines is None else request.engines,
            extra=request.extra,
        )

    def _again(self, before: Elsewhere, request: Up) -> Elsewhere:
        """What there is, with what is asked for now.

        Raises:
            UsageError: the label is another source's.
        """
        asked = request.source
        same = str(asked.folder or asked.text) == before.source
        check_same(
            before.label,
            asked,
            same=same,
            source=before.source,
            ref=before.ref,
            context_dir=before.context_dir,
        )
        self.reporter.log(f"{before.label} is there already, in {self.name}: putting it right")
        host = request.host or before.host
        ports.check_host(host)
        changed = request.port not in (None, before.port) or host != before.host
        return replace(
            before,
            builder=request.builder or before.builder,
            extra=request.extra or before.extra,
            host=host,
            port=self._port(host, request.port) if changed else before.port,
            engines=before.engines if request.engines is None else request.engines,
        )

    def _take_up(self, made: Elsewhere, names: Names) -> None:
        """Go on with a workspace that an earlier `down` has kept.

        Raises:
            UsageError: it is another source's.
        """
        labels = self.client.inspect("volume", names.workspace)[0].get("Labels") or {}
        source = labels.get("ipython-source")
        if source != made.source:
            what = f"holds changed notebooks of {source}" if source else "is there, and not of our making"
            raise UsageError(
                f"the volume {names.workspace} {what}",
                f"use another --label, or remove it: {self.name} volume rm {names.workspace}",
            )
        self.reporter.log(f"going on with the notebooks kept in the volume {names.workspace}")

    def _image(self, made: Elsewhere, request: Up) -> Elsewhere:
        """Make the image; what is built already is taken as it is."""
        source = request.source
        if source.ref is None and source.context_dir is None:
            source = replace(source, ref=made.ref, context_dir=made.context_dir)
        wish = image.Wish(
            source=source,
            image=reference.parse(parts.image(made.label)),
            builder=reference.parse(made.builder, "the builder's name"),
            engine=self.name,
            extra=made.extra,
            cached=not request.upgrade,
        )
        built = image.make(wish, self.settings, self.reporter)
        return replace(made, image=str(built["id"]), commit=built["commit"])

    def _renew(self, before: Elsewhere, made: Elsewhere) -> None:
        """Let go of what stands on another image; notebooks that somebody has changed stay as they are."""
        self.reporter.log("what it is made of has changed: restarting it")
        changed = self.stock.changes(before)
        self.stock.stop(made.label)
        names = Names(made.label, made.user)
        self.stock.volume_rm(names.state("engine"))  # the number of engines is in the order now
        if changed:
            self.reporter.warning(
                f"the notebooks in the volume {names.workspace} have been changed, and stay as they are"
            )
        else:
            self.stock.volume_rm(names.workspace)

    def _ensure(self, made: Elsewhere, password: str | None, *, free: bool) -> None:
        """Have everything that belongs to it, and running.

        Args:
            free: whether the viewer may have another port, where somebody has taken the one chosen.
        """
        names = Names(made.label, made.user)
        engine = self.client
        with self.reporter.phase("containers", f"making containers in {made.platform}") as phase:
            if not engine.inspect("network", names.network):
                engine.run(
                    *("network", "create", *parts.labels(made, "network"), names.network),
                    what=f"the network {names.network} cannot be made",
                )
            for volume in (names.workspace, names.state("viewer"), names.state("engine")):
                self.stock.volume(made, volume)
            if not self.stock.has_secret(names.key):
                self.stock.secret(made, "key", cluster.new_key())
            there = ["key"]
            if password:
                self.stock.secret(made, "password", password)
            if password or self.stock.has_secret(names.password):
                there.append("password")
            found = self.stock.found(made.label)
            before = self.store.load(made.label)
            moved = before is not None and (before.host, before.port) != (made.host, made.port)
            self.store.save(made)
            for kind in parts.KINDS:
                if kind == "engine" and not made.engines and kind not in found:
                    continue  # there will be a container when there are engines
                phase.progress(f"starting {names.of(kind)}")
                fresh = kind == "viewer" and (moved or bool(password))
                made = self._part(made, kind, None if fresh else found.get(kind), there, free=free)
            phase.done(f"{made.label} is in {self.name}")

    def _part(
        self, made: Elsewhere, kind: str, found: dict[str, Any] | None, secrets: list[str], *, free: bool
    ) -> Elsewhere:
        """Have a container run; returns what the cluster is made of, where its port had to be another."""
        names = Names(made.label, made.user)
        name = names.of(kind)
        what = f"the container {name} cannot be started"
        if found and found["State"].get("Running"):
            return made
        if found:
            self.client.run("start", name, what=what)
            return made
        address = self.stock.address(names.network)
        while True:
            self.client.remove("rm", "--force", name, what=f"{name} cannot be removed")
            try:
                self.client.run(*parts.container(made, kind, self.client.kind, secrets, address), what=what)
                return made
            except PortInUse:
                if not free or kind != "viewer":
                    raise
            made = replace(made, port=self._port(made.host, None, above=made.port))
            self.store.save(made)

    def _wait(self, label: str) -> dict[str, Any]:
        """Wait until all is ready.

        Raises:
            BuilderError: a part does not come up.
        """
        made = self._known(label)
        names = Names(label, made.user)
        title = f"starting the notebook and {counted(made.engines, 'engine')}"
        with self.reporter.phase("start", title) as phase:
            deadline = time.monotonic() + START_SECONDS + made.engines
            for kind in ("engine", "viewer", "controller"):
                if kind != "engine" or made.engines:
                    self._wait_for(names.of(kind), kind, deadline, phase)
            state = self.status(label)
            phase.done(f"notebook and {counted(state['engines']['registered'], 'engine')} are ready")
        return state

    def _wait_for(self, name: str, kind: str, deadline: float, phase: Phase) -> None:
        while True:
            left = max(1, round(deadline - time.monotonic()))
            answer = self.client.run(
                *("exec", name, "ipython-builder", "s2i", "probe", "ready", "--wait", str(min(left, 30))),
                what=f"{name} cannot be asked",
                on_line=lambda line: phase.progress(f"{kind}: {line.strip()}"),
                timeout=left + ANSWER_SECONDS,
                check=False,
            )
            if answer.returncode == 0:
                return
            found = self.client.inspect("container", name)
            ended = not found or int(found[0].get("RestartCount") or 0) >= LIVES
            if ended or time.monotonic() > deadline:
                how = "ends again and again" if ended else "does not become ready"
                log = self.client.run("logs", "--tail", "8", name, what="its log cannot be read", check=False)
                words = "".join(f"\n  {line}" for line in (log.stdout + log.stderr).splitlines()[-8:])
                raise BuilderError(
                    f"the cluster did not start: its {kind} {how}{words}", "mend what it names"
                )
            time.sleep(ASK_AGAIN)

    # -- what can be asked --------------------------------------------------------------------------------

    def labels(self) -> list[str]:
        """See `Platform`."""
        return [one.label for one in self.store.all() if one.platform == self.name]

    def status(self, label: str, *, memory: bool = False) -> dict[str, Any]:
        """See `Platform`. Each supervisor is asked in its container, all at once."""
        made = self._known(label)
        try:
            found = self.stock.found(label)
        except Unavailable as error:
            return merged.state(made, {}, {}) | {
                "state": "unknown",
                "wrong": [{"what": error.message, "since": None, "role": "engine", "up": False}],
            }
        running = [kind for kind, one in found.items() if one["State"].get("Running")]
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda kind: self._ask(made, kind), running))
        return merged.state(
            made, found, {kind: one for kind, one in zip(running, answers, strict=True) if one}
        )

    def scale(self, label: str, count: int) -> dict[str, Any]:
        """See `Platform`."""
        check_engines(count)
        with self.store.locked(label):
            made = replace(self._known(label), engines=count)
            found = self.stock.found(label)
            if "controller" not in found:
                raise not_running(label)
            if "engine" in found:
                if not found["engine"]["State"].get("Running"):
                    raise BuilderError(
                        f"{Names(label, made.user).engine} does not run",
                        f"`ipython-builder up --label {label} {made.source}` starts it again",
                    )
                self._scale(label, count)
                self.store.save(made)
            elif count:
                self.store.save(made)
                self._ensure(made, None, free=False)
                return self._wait(label)
        return self.status(label)

    def _scale(self, label: str, count: int) -> None:
        """Have its own supervisor do it: engines that stay notice nothing."""
        made = self._known(label)
        with self.reporter.phase("scale", f"scaling to {counted(count, 'engine')}") as phase:
            name = Names(label, made.user).engine
            argv = ("exec", name, "ipython-builder", "scale", label, str(count), "--progress", "plain")
            answer = self.client.run(
                *argv, what=f"{name} cannot be asked", on_line=phase.progress, check=False
            )
            if answer.returncode:
                raise BuilderError(
                    f"the engines of {label} cannot be scaled:\n{said.error(answer.stderr)}",
                    f"look at `ipython-builder status {label}`",
                )
            phase.done(counted(count, "engine"))

    def password(self, label: str) -> str:
        """See `Platform`. Only the viewer has it."""
        made = self._known(label)
        name = Names(label, made.user).viewer
        answer = self.stock.inside(name, "ipython-builder", "password", label)
        if answer is None:
            raise not_running(label)
        return answer.strip()

    @contextmanager
    def viewer(self, label: str) -> Iterator[tuple[str, str]]:
        """See `Platform`."""
        yield self._known(label).url, self.password(label)

    def logs(self, label: str, role: str | None, *, follow: bool, last: int) -> Iterator[str]:
        """See `Platform`. A container has one log of all that is in it."""
        made = self._known(label)
        kinds = said.kinds(role)
        there = self.stock.found(label)
        chosen = {kind: Names(label, made.user).of(kind) for kind in kinds if kind in there}
        if not chosen:
            raise UsageError(
                f"there is no log of {role or label}", f"look at `ipython-builder status {label}`"
            )
        return said.lines(self.client, chosen, follow=follow, last=last)

    def log_names(self, label: str) -> list[str]:
        """See `Platform`."""
        return sorted(self.stock.found(label))

    def console(self, label: str, words: tuple[str, ...]) -> Console:
        """See `Platform`. It runs in the viewer's container, beside the notebooks."""
        made = self._known(label)
        found = self.stock.found(label).get("viewer")
        if not found or not found["State"].get("Running"):
            raise not_running(label)
        terminal = ["--tty"] if sys.stdin is not None and sys.stdin.isatty() else []
        argv = [shutil.which(self.client.program) or self.client.program, "exec", "--interactive", *terminal]
        argv += [Names(label, made.user).viewer, "ipython-builder", "console", label, *words]
        return Console(argv, dict(os.environ), Path.cwd())

    # -- down ---------------------------------------------------------------------------------------------

    def down(self, label: str, *, discard: bool) -> str | None:
        """See `Platform`."""
        with self.store.locked(label), self.reporter.phase("down", f"stopping {label}") as phase:
            made = self._known(label)
            kept = None
            workspace = Names(label, made.user).workspace
            if not discard and self.client.inspect("volume", workspace) and self.stock.changes(made):
                kept = workspace
            self._remove(label, keep=kept)
            phase.done(f"stopped {label}")
        if not kept:
            return None
        return f"the volume {kept} of {self.name}; `{self.name} volume rm {kept}` removes them"

    def _remove(self, label: str, *, keep: str | None) -> None:
        """Remove whatever has the label, but for the volume `keep`, and forget it."""
        self.stock.remove(label, keep=keep)
        self.store.remove(label)

    # -- parts --------------------------------------------------------------------------------------------

    def _known(self, label: str) -> Elsewhere:
        made = self.store.load(cluster.check_label(label))
        if made is None:
            raise UsageError(
                f"there is no cluster {label!r} in {self.name}", "`ipython-builder ls` shows all"
            )
        return made

    def _ask(self, made: Elsewhere, kind: str) -> dict[str, Any] | None:
        name = Names(made.label, made.user).of(kind)
        answer = self.stock.inside(name, "ipython-builder", "status", made.label, "--json")
        try:
            found: dict[str, Any] | None = json.loads(answer or "null")
        except ValueError:
            return None
        return found if found and found.get("roles") else None

    def _port(self, host: str, wanted: int | None, above: int = 0) -> int:
        """The port asked for, else a free one."""
        taken = [one.port for one in self.store.all()]
        return ports.viewer(host, [*taken, *range(cluster.VIEWER_PORT, above + 1)], wanted=wanted)

    def _description(self, label: str, state: dict[str, Any]) -> dict[str, Any]:
        made = self._known(label)
        names = Names(label, made.user)
        return {
            "label": label,
            "user": made.user,
            "platform": self.name,
            "state": state["state"],
            "url": made.url,
            "password": self.password(label),
            "viewer": {"url": made.url, "name": names.viewer},
            "controller": {
                "host": names.controller,
                "ports": [cluster.FIRST_PORT, cluster.FIRST_PORT + cluster.PORT_COUNT - 1],
                "name": names.controller,
            },
            "engines": {name: state["engines"][name] for name in ("requested", "registered")},
            "environment": state.get("environment", {}) | {"image": made.image},
            "source": made.source,
            "commit": made.commit,
            "notebooks": f"{state.get('notebooks', '')} in the volume {names.workspace}",
            "seconds": {name: round(took, 3) for name, took in self.reporter.seconds.items()},
        }
