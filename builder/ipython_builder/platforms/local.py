"""This machine: a cluster is one supervisor with its roles, and one folder.

`up` goes source -> specification -> environments -> record -> supervisor, each step finished before the next
one begins, so that what is cut off half-way is told apart from what is whole and is done again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipython_builder import cluster, control, logs, ports, prepare, processes, record, source, spec
from ipython_builder.control import NoSupervisor
from ipython_builder.errors import BuilderError, Transient, UsageError
from ipython_builder.events import Phase, Reporter
from ipython_builder.platforms.base import Console, Up
from ipython_builder.record import Home, Record
from ipython_builder.roles import environ
from ipython_builder.settings import Settings

START_SECONDS = 120.0


class Local:
    """Clusters as plain processes of this machine."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self.settings = settings
        self.reporter = reporter
        self.root = settings.state_dir / "clusters"

    # -- up ----------------------------------------------------------------------------------------

    def up(self, request: Up) -> dict[str, Any]:
        _only_linux()
        label = cluster.check_label(request.label) if request.label else self._new_label()
        if request.engines is not None:
            check_engines(request.engines)
        home = Home(self.root / label)
        self._make_root()
        with self._locked(label):
            made = record.load(home)
            made = self._create(home, request) if made is None else self._again(home, made, request)
            prepare.secrets_for(home, request.password)
            state = self._start(home, made)
        return self._description(home, made, state)

    def _create(self, home: Home, request: Up) -> Record:
        """Everything up to the record; what a killed `up` left of it is removed first."""
        processes.sweep(home.path)
        shutil.rmtree(home.path, ignore_errors=True)
        workspace = self.settings.data_dir / "workspaces" / home.label
        checkout = self._checkout(request, workspace)
        try:
            made = self._record(home, request, checkout)
            record.save(home, made)
        except BaseException:
            shutil.rmtree(home.path, ignore_errors=True)
            if not checkout.in_place and not source.changes(checkout.path, checkout.commit or "HEAD"):
                shutil.rmtree(workspace, ignore_errors=True)
            raise
        return made

    def _again(self, home: Home, made: Record, request: Up) -> Record:
        """A label that is there already: the same source, put right and brought up to date."""
        if request.source.text != made.source and _place(request.source) != made.checkout:
            raise UsageError(
                f"{home.label} is already a cluster of {made.source}",
                f"use another --label, or `ipython-builder down {home.label}` first",
            )
        self.reporter.log(f"{home.label} is there already: putting it right")
        checkout = source.Checkout(
            Path(made.checkout),
            Path(made.notebooks),
            made.source,
            made.ref,
            made.commit,
            0,
            made.in_place,
            (),
        )
        extra = request.extra or made.extra
        updated = self._record(home, _with(request, extra=extra, label=home.label), checkout, made)
        if (updated.environment, updated.viewer_port) != (made.environment, made.viewer_port) and self._alive(
            home
        ):
            self.reporter.log("what it is made of has changed: restarting it")
            self._stop(home)
        record.save(home, updated)
        return updated

    def _checkout(self, request: Up, workspace: Path) -> source.Checkout:
        if workspace.exists() and any(workspace.iterdir()):
            raise BuilderError(
                f"{workspace} holds notebooks that were changed in an earlier cluster of this label",
                f"move the folder away, use it as SOURCE, or remove it: rm -r {workspace}",
            )
        workspace.parent.mkdir(parents=True, exist_ok=True)
        checkout = source.fetch(request.source, workspace, self.settings, self.reporter)
        for warning in checkout.warnings:
            self.reporter.warning(warning)
        return checkout

    def _record(
        self, home: Home, request: Up, checkout: source.Checkout, before: Record | None = None
    ) -> Record:
        """Read the repository, make both environments (side by side), choose ports."""
        from ipython_builder import environment, thin

        asked = spec.read(checkout.root, extra=request.extra)
        for notice in asked.notices:
            self.reporter.warning(f"{notice.file}: {notice.message}")
        if asked.hooks and request.allow_hooks:
            self._hook(checkout, "pre-build")
        with ThreadPoolExecutor() as pool:
            viewer = None
            if asked.serves_itself is None:
                viewer = pool.submit(environment.ensure_viewer, self.settings, Reporter(self.reporter.sink))
            env = environment.ensure(asked, self.settings, self.reporter, upgrade=request.upgrade)
            served = viewer.result() if viewer else None
        if asked.hooks and request.allow_hooks:
            self._hook(checkout, "post-build")
        thin.make(env, home.thin)
        others = [made for label in self.labels() if label != home.label and (made := self._load(label))]
        host = self.settings.viewer_host
        port = request.port or (before.viewer_port if before else None)
        if port and not (before and before.viewer_port == port) and not ports.free(host, port):
            raise BuilderError(
                f"port {port} on {host} is in use", "name another with --port, or none for a free one"
            )
        return Record(
            label=home.label,
            user=request.user or (before.user if before else cluster.random_label()),
            source=checkout.source,
            ref=checkout.ref,
            context_dir=request.source.context_dir,
            commit=checkout.commit,
            checkout=str(checkout.path),
            in_place=checkout.in_place,
            notebooks=str(checkout.root),
            environment=env.key,
            environment_path=str(env.path),
            python=env.python.version,
            viewer_environment=served.key if served else None,
            viewer_python=str((served.bin if served else home.thin / "bin") / "python"),
            viewer_module=asked.serves_itself or "jupyterlab",
            viewer_host=host,
            viewer_port=port or ports.viewer(host, [made.viewer_port for made in others]),
            first_port=before.first_port if before else ports.block([made.first_port for made in others]),
            engines=_count(request.engines, before),
            extra=request.extra,
        )

    def _hook(self, checkout: source.Checkout, name: str) -> None:
        from ipython_builder import commands, scrub

        path = checkout.path / ".ipython-builder" / name
        if path.is_file():
            with self.reporter.phase("hooks", f"running {name}") as phase:
                commands.run(
                    [path], cwd=checkout.path, env=scrub.installer_environ(self.settings),
                    on_line=phase.progress, check=True,
                )  # fmt: skip

    def _start(self, home: Home, made: Record) -> dict[str, Any]:
        """Have a supervisor, with everything ready; a live one is only told the number of engines."""
        with self.reporter.phase("start", f"starting the notebook and {made.engines} engines") as phase:
            if self._alive(home):
                control.ask(home.socket, "scale", count=made.engines)
            else:
                self._spawn(home)
            state = self._wait(home, made, phase)
            phase.done(f"notebook and {made.engines} engines are ready")
        return state

    def _spawn(self, home: Home) -> None:
        home.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = os.open(home.logs / "node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            subprocess.Popen(
                [sys.executable, "-P", "-m", "ipython_builder.node", str(home.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # The mark: a supervisor that nobody can ask any more is found and ended all the same.
                env=os.environ | {processes.MARK: str(home.path)},
                start_new_session=True,  # so that it survives this terminal
            )
        finally:
            os.close(log)

    def _wait(self, home: Home, made: Record, phase: Phase) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS + made.engines
        while time.monotonic() < deadline:
            try:
                state = control.ask(home.socket, "status")
            except NoSupervisor:
                state = {"state": "starting", "roles": [], "wrong": []}
            if state["state"] == "ready":
                return state
            if state["wrong"]:
                break
            if state["roles"]:
                viewer = next(role["state"] for role in state["roles"] if role["role"] == "viewer")
                phase.progress(f"notebook {viewer}, {state['engines']['registered']}/{made.engines} engines")
            time.sleep(0.03)
        reasons = "; ".join(state["wrong"]) or f"not ready after {START_SECONDS:.0f} s"
        tail = "\n".join(f"  {line}" for line in self._last_words(home, state))
        self._stop(home)
        raise BuilderError(
            f"the cluster did not start: {reasons}\n{tail}",
            f"read all of it with `ipython-builder logs {home.label}`",
        )

    def _last_words(self, home: Home, state: dict[str, Any]) -> list[str]:
        failing = [role["role"] for role in state["roles"] if role["state"] == "failing"] or ["supervisor"]
        try:
            return list(logs.lines(home.logs, failing[0], last=8))[-8:]
        except BuilderError:
            return []

    # -- the other verbs ---------------------------------------------------------------------------

    def labels(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(
            path.name for path in self.root.iterdir() if path.is_dir() and cluster.LABEL.fullmatch(path.name)
        )

    def status(self, label: str) -> dict[str, Any]:
        home = self._home(label)
        made = record.load(home)
        try:
            state = control.ask(home.socket, "status")
        except NoSupervisor:
            left = processes.of(home.path)
            wrong = [f"no supervisor, but {len(left)} of its processes live"] if left else []
            if made is None:
                wrong.append("its `up` was cut off")
            state = {
                "label": label,
                "state": "unsupervised" if left else "stopped" if made else "incomplete",
                "engines": {"requested": made.engines if made else 0, "registered": 0},
                "roles": [],
                "wrong": wrong,
            }
        if made:
            state |= {
                "url": _url(made), "source": made.source, "notebooks": made.notebooks, "commit": made.commit,
                "environment": _environment(made),
            }  # fmt: skip
        return state

    def scale(self, label: str, count: int) -> dict[str, Any]:
        check_engines(count)
        home = self._home(label)
        try:
            state = control.ask(home.socket, "scale", count=count)
        except NoSupervisor as error:
            raise BuilderError(
                f"{label} does not run", f"start it: ipython-builder up --label {label} SOURCE"
            ) from error
        deadline = time.monotonic() + START_SECONDS + count
        with self.reporter.phase("scale", f"scaling to {count} engines") as phase:
            while (
                state["engines"]["registered"] != count and not state["wrong"] and time.monotonic() < deadline
            ):
                phase.progress(f"{state['engines']['registered']}/{count} engines")
                time.sleep(0.03)
                state = control.ask(home.socket, "status")
            if state["engines"]["registered"] != count:
                why = "; ".join(state["wrong"]) or "too slow"
                raise BuilderError(
                    f"{state['engines']['registered']} of {count} engines came: {why}",
                    f"ipython-builder logs {label} engine",
                )
            phase.done(f"{count} engines")
        return state

    def password(self, label: str) -> str:
        try:
            return self._home(label).password.read_text().strip()
        except FileNotFoundError:
            raise BuilderError(
                f"{label} has no password yet: its `up` was cut off", "run `up` again"
            ) from None

    def viewer(self, label: str) -> tuple[str, str]:
        made = record.load(self._home(label))
        if made is None:
            raise BuilderError(f"{label} does not run: its `up` was cut off", "run `up` again")
        return _url(made), self.password(label)

    def logs(self, label: str, role: str | None, *, follow: bool, last: int) -> Iterator[str]:
        return logs.lines(self._home(label).logs, role, follow=follow, last=last)

    def console(self, label: str, words: tuple[str, ...]) -> Console:
        home = self._home(label)
        made = record.load(home)
        if made is None or not self._alive(home):
            raise BuilderError(
                f"{label} does not run", f"start it: ipython-builder up --label {label} SOURCE"
            )
        argv = [str(home.thin / "bin" / "python"), "-m", "ipython_cluster.console", *words]
        return Console(argv, environ(made, home, os.environ), Path(made.notebooks))

    def down(self, label: str, *, discard: bool) -> str | None:
        home = self._home(label)
        with self._locked(label), self.reporter.phase("down", f"stopping {label}") as phase:
            try:
                made = record.load(home)
            except BuilderError:
                made = None  # damaged: what it was made of is not needed to end it
            self._stop(home)
            kept = None
            workspace = self.settings.data_dir / "workspaces" / label
            if workspace.exists():
                changed = made and made.commit and source.changes(workspace, made.commit)
                if changed and not discard:
                    kept = str(workspace)
                else:
                    shutil.rmtree(workspace)
            shutil.rmtree(home.path, ignore_errors=True)
            phase.done(f"stopped {label}")
        (self.root / f".{label}.lock").unlink(missing_ok=True)
        return kept

    def environments_in_use(self) -> set[str]:
        """The keys of the environments that any cluster here, running or not, is made of.

        Raises:
            Transient: an `up` is under way, whose environments are in no record yet.
        """
        for lock in self.root.glob(".*.lock"):
            if _held(lock):
                label = lock.name.removeprefix(".").removesuffix(".lock")
                raise Transient(f"an up or down of {label} is under way", "try again when it is done")
        made = [found for label in self.labels() if (found := self._load(label))]
        return {key for one in made for key in (one.environment, one.viewer_environment) if key}

    # -- the folder and the supervisor -------------------------------------------------------------

    def _home(self, label: str) -> Home:
        home = Home(self.root / cluster.check_label(label))
        if not home.path.is_dir():
            import difflib

            near = difflib.get_close_matches(label, self.labels(), n=1)
            there = f"did you mean {near[0]}?" if near else "`ipython-builder ls` shows what there is"
            raise UsageError(f"there is no cluster {label!r} on this machine", there)
        return home

    def _load(self, label: str) -> Record | None:
        try:
            return record.load(Home(self.root / label))
        except BuilderError:
            return None

    def _alive(self, home: Home) -> bool:
        try:
            control.ask(home.socket, "status")
        except NoSupervisor:
            return False
        return True

    def _stop(self, home: Home) -> None:
        """Ask the supervisor, wait for it, and end whatever bears the cluster's mark all the same."""
        try:
            control.ask(home.socket, "stop")
        except (NoSupervisor, Transient):
            pass
        else:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and _held(home.lock):
                time.sleep(0.02)
        processes.sweep(home.path)

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BuilderError(
                f"{self.root} cannot be made: {error.strerror}",
                "set IPYTHON_BUILDER_STATE_DIR to another folder",
            ) from error

    def _new_label(self) -> str:
        while (label := cluster.random_label()) in self.labels():
            pass
        return label

    @contextmanager
    def _locked(self, label: str) -> Iterator[None]:
        """One `up` or `down` of a label at a time; freed by the kernel when that process is killed."""
        with (self.root / f".{label}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Transient(
                    f"another up or down of {label} is under way", "try again when it is done"
                ) from None
            yield

    def _description(self, home: Home, made: Record, state: dict[str, Any]) -> dict[str, Any]:
        pids = {role["role"]: role["pid"] for role in state["roles"]}
        host, first = "127.0.0.1", made.first_port
        return {
            "label": made.label,
            "user": made.user,
            "state": state["state"],
            "url": _url(made),
            "password": self.password(made.label),
            "viewer": {"url": _url(made), "pid": pids.get("viewer")},
            "controller": {
                "host": host,
                "ports": [first, first + cluster.PORT_COUNT - 1],
                "pid": pids.get("controller"),
            },
            "engines": state["engines"],
            "environment": _environment(made),
            "source": made.source,
            "commit": made.commit,
            "notebooks": made.notebooks,
            "seconds": {name: round(took, 3) for name, took in self.reporter.seconds.items()},
        }


def check_engines(count: int) -> None:
    """Raises UsageError for a number of engines that cannot be meant."""
    from ipython_builder.node import MAX_ENGINES

    if not 0 <= count <= MAX_ENGINES:
        raise UsageError(f"{count} engines cannot be had", f"any number from 0 to {MAX_ENGINES:,} can")


def _count(asked: int | None, before: Record | None) -> int:
    if asked is not None:
        return asked
    return before.engines if before else len(os.sched_getaffinity(0))


def _environment(made: Record) -> dict[str, str]:
    return {"key": made.environment, "path": made.environment_path, "python": made.python}


def _held(lock: Path) -> bool:
    """Whether a living process holds this lock."""
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _url(made: Record) -> str:
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(made.viewer_host, made.viewer_host)  # noqa: S104
    host = f"[{reached}]" if ":" in reached else reached
    return f"http://{host}:{made.viewer_port}/"


def _place(asked: source.Source) -> str | None:
    return str(asked.folder) if asked.folder else None


def _with(request: Up, **changes: Any) -> Up:
    from dataclasses import replace

    return replace(request, **changes)


def _only_linux() -> None:
    if not sys.platform.startswith("linux"):
        raise BuilderError(
            "clusters on one's own machine need Linux",
            "here `check` and `lock` work; run the rest in a Linux machine or container",
        )
