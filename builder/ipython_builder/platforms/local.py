"""This machine: a cluster is one supervisor with its roles, and one folder.

`up` goes source -> specification -> environments -> record -> supervisor, each step finished before the next
one begins, so that what is cut off half-way is told apart from what is whole and is done again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ipython_builder import cluster, control, logs, prepare, processes, record
from ipython_builder.control import NoSupervisor
from ipython_builder.errors import BuilderError, Transient, UsageError
from ipython_builder.events import Reporter
from ipython_builder.platforms import supervision
from ipython_builder.platforms.base import Console, Up, check_engines, new_label, not_running
from ipython_builder.platforms.making import Maker
from ipython_builder.platforms.turns import turn
from ipython_builder.record import Home, Record
from ipython_builder.roles import environ
from ipython_builder.settings import Settings


class Local:
    """Clusters as plain processes of this machine."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self.settings = settings
        self.reporter = reporter
        self.root = settings.state_dir / "clusters"

    def up(self, request: Up) -> dict[str, Any]:
        label = cluster.check_label(request.label) if request.label else new_label(self.labels())
        if request.engines is not None:
            check_engines(request.engines)
        home = Home(self.root / label)
        self._make_root()
        with self._locked(label):
            made = record.load(home)
            maker = self._maker(label)
            new = made is None
            if made is None:
                made = maker.new(home, request)
            else:
                before = made
                made = maker.again(home, made, request)
                if _restarts(before, made) and supervision.alive(home):
                    self.reporter.log("what it is made of has changed: restarting it")
                    supervision.stop(home)
                record.save(home, made)
            try:
                changed = (
                    request.password and home.password.exists() and request.password != self.password(label)
                )
                prepare.secrets_for(home, request.password)
                if changed and supervision.alive(home):
                    prepare.write_files(made, home)
                    control.ask(home.socket, "restart", role="viewer")
                state = supervision.start(home, made, self.reporter)
            except (KeyboardInterrupt, SystemExit):
                if new:  # nothing of it was there before the command was typed
                    self._remove(home, made, discard=False)
                raise
        return self._description(home, made, state)

    def labels(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(
            path.name for path in self.root.iterdir() if path.is_dir() and cluster.LABEL.fullmatch(path.name)
        )

    def status(self, label: str, *, memory: bool = False) -> dict[str, Any]:
        home = self._home(label)
        try:
            made = record.load(home)
        except BuilderError as error:
            return _silent(label, None, "damaged", [error.message])
        try:
            state = control.ask(home.socket, "status", timeout=5)
            if memory:  # a thousand engines take their time; that it lives is known by now
                state = control.ask(home.socket, "status", memory=True)
        except Transient as error:
            state = _silent(label, made, "unresponsive", [error.message])
        except NoSupervisor:
            left = processes.of(home.path)
            wrong = [f"no supervisor, but {len(left)} of its processes live"] if left else []
            if made is None:
                wrong.append("its `up` was cut off")
            state = _silent(
                label, made, "unsupervised" if left else "stopped" if made else "incomplete", wrong
            )
        begun = None if made else record.begun(home)
        if begun:
            state["source"] = begun.source
        if made:
            state |= {
                "url": made.url,
                "source": made.source,
                "notebooks": made.notebooks,
                "commit": made.commit,
                "environment": _environment(made),
            }
        return state

    def scale(self, label: str, count: int) -> dict[str, Any]:
        check_engines(count)
        home = self._home(label)
        try:
            return supervision.wait_for_engines(home, count, self.reporter)
        except NoSupervisor as error:
            raise not_running(label) from error

    def password(self, label: str) -> str:
        try:
            return self._home(label).password.read_text().strip()
        except FileNotFoundError:
            raise BuilderError(
                f"{label} has no password yet: its `up` was cut off", "run `up` again"
            ) from None

    @contextmanager
    def viewer(self, label: str) -> Iterator[tuple[str, str]]:
        home = self._home(label)
        made = record.load(home)
        if made is None or not supervision.alive(home):
            raise not_running(label)
        yield made.url, self.password(label)

    def logs(self, label: str, role: str | None, *, follow: bool, last: int) -> Iterator[str]:
        return logs.lines(self._home(label).logs, role, follow=follow, last=last)

    def log_names(self, label: str) -> list[str]:
        """What `logs` can be asked for."""
        return logs.names(self._home(label).logs)

    def console(self, label: str, words: tuple[str, ...]) -> Console:
        home = self._home(label)
        made = record.load(home)
        if made is None or not supervision.alive(home):
            raise not_running(label)
        argv = [str(home.thin / "bin" / "python"), "-m", "ipython_cluster.console", *words]
        return Console(argv, environ(made, home, os.environ), Path(made.notebooks))

    def down(self, label: str, *, discard: bool) -> str | None:
        home = self._home(label)
        with self._locked(label), self.reporter.phase("down", f"stopping {label}") as phase:
            supervision.stop(home)
            kept = self._remove(home, self._load(label), discard=discard)
            phase.done(f"stopped {label}")
        return str(kept) if kept else None

    def _maker(self, label: str) -> Maker:
        others = [found for other in self.labels() if other != label and (found := self._load(other))]
        return Maker(self.settings, self.reporter, others)

    def _remove(self, home: Home, made: Record | None, *, discard: bool) -> Path | None:
        kept = None
        origin = made or record.begun(home)
        # Without either nobody knows whose folder it is: then it stays.
        if origin and not origin.in_place:
            maker = self._maker(home.label)
            try:
                kept = maker.remove_workspace(home, origin.commit, discard=discard)
            except BuilderError as error:  # nobody can tell whether work is in it: then it stays
                self.reporter.warning(error.message)
                kept = maker.workspace(home)
        shutil.rmtree(home.path, ignore_errors=True)
        return kept

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
            return None  # damaged: what it was made of is not needed to go on or to end it

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BuilderError(
                f"{self.root} cannot be made: {error.strerror}",
                "set IPYTHON_BUILDER_STATE_DIR to another folder",
            ) from error

    def _locked(self, label: str) -> AbstractContextManager[None]:
        """One `up` or `down` of a label at a time."""
        return turn(label, self.root, self.root / label, "up or down")

    def _description(self, home: Home, made: Record, state: dict[str, Any]) -> dict[str, Any]:
        pids = {role["role"]: role["pid"] for role in state["roles"]}
        first = made.first_port
        return {
            "label": made.label,
            "user": made.user,
            "state": state["state"],
            "url": made.url,
            "password": self.password(made.label),
            "viewer": {"url": made.url, "pid": pids.get("viewer")},
            "controller": {
                "host": "127.0.0.1",
                "ports": [first, first + cluster.PORT_COUNT - 1],
                "pid": pids.get("controller"),
            },
            "engines": {name: state["engines"][name] for name in ("requested", "registered")},
            "environment": _environment(made),
            "source": made.source,
            "commit": made.commit,
            "notebooks": made.notebooks,
            "seconds": {name: round(took, 3) for name, took in self.reporter.seconds.items()},
        }


def _silent(label: str, made: Record | None, state: str, wrong: list[str]) -> dict[str, Any]:
    """The status of a cluster whose supervisor says nothing."""
    engines = {"requested": made.engines if made else 0, "registered": 0}
    said = [{"what": what, "since": None} for what in wrong]
    return {"label": label, "state": state, "engines": engines, "roles": [], "wrong": said}


def _restarts(before: Record, after: Record) -> bool:
    """Whether running processes are of something else than what the record now says."""
    return before.substance() != after.substance()


def _environment(made: Record) -> dict[str, str]:
    return {"key": made.environment, "path": made.environment_path, "python": made.python}
