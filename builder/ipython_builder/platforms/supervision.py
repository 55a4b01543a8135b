"""A local cluster's supervisor, from outside: start it, wait until all is ready, stop it, see if it lives."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ipython_builder import control, logs, prepare, processes
from ipython_builder.control import NoSupervisor
from ipython_builder.errors import BuilderError, Transient
from ipython_builder.events import Reporter, counted
from ipython_builder.record import Home, Record

START_SECONDS = 120.0  # for a cold disk and a slow machine; an engine more may take another second
STOP_SECONDS = 30.0
POLL = 0.03
DOOR_SECONDS = 15.0  # in which a supervisor that lives has its socket: it is starting, or makes it again


def start(home: Home, made: Record, reporter: Reporter) -> dict[str, Any]:
    """Have a supervisor with everything ready; a live one is only told the number of engines.

    Returns:
        The supervisor's status.

    Raises:
        BuilderError: a role does not start. What this call has begun is stopped again, the logs stay; what
            lived before goes on living.
        Transient: there is a supervisor, and nobody can reach it.
    """
    with reporter.phase("start", f"starting the notebook and {counted(made.engines, 'engine')}") as phase:
        process, before = None, False
        if _answers(home):
            _put_right(made, home, reporter)
            control.ask(home.socket, "scale", count=made.engines)
        else:
            before = bool(_living(home))
            process = _spawn(home)
        state: dict[str, Any] = {"state": "starting", "roles": [], "wrong": []}
        deadline = time.monotonic() + START_SECONDS + made.engines
        try:
            while time.monotonic() < deadline:
                try:
                    state = control.ask(home.socket, "status", brief=True)
                except NoSupervisor:
                    if process is not None and process.poll() is not None:
                        break
                if state["state"] == "ready":
                    phase.done(f"notebook and {counted(made.engines, 'engine')} are ready")
                    return state
                if any(not one["up"] for one in state["wrong"]):
                    break
                phase.progress(progress(state))
                time.sleep(POLL)
            raise _failure(home, state, process.poll() if process else None)
        except BaseException:
            if process is not None and not before:
                stop(home)
            raise


def wait_for_engines(home: Home, count: int, reporter: Reporter) -> dict[str, Any]:
    """Ask for `count` engines and wait until the controller knows exactly as many.

    Raises:
        NoSupervisor: nobody is there to ask.
        BuilderError: they do not come.
    """
    with reporter.phase("scale", f"scaling to {counted(count, 'engine')}") as phase:
        state = control.ask(home.socket, "scale", count=count)
        deadline = time.monotonic() + START_SECONDS + count
        while (
            state["engines"]["registered"] != count and not _hopeless(state) and time.monotonic() < deadline
        ):
            phase.progress(progress(state))
            time.sleep(POLL)
            state = control.ask(home.socket, "status", brief=True)
        if state["engines"]["registered"] != count:
            why = "; ".join(one["what"] for one in _hopeless(state)) or "too slow"
            raise BuilderError(
                f"{state['engines']['registered']} of {count} engines came: {why}",
                f"ipython-builder logs {home.label} engine",
            )
        phase.done(counted(count, "engine"))
    return state


def _hopeless(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Why engines do not come: a viewer that fails keeps none of them away."""
    return [one for one in state["wrong"] if not one["up"] and one["role"] != "viewer"]


def alive(home: Home) -> bool:
    """Whether a supervisor answers. One that was stopped goes on.

    Raises:
        Transient: there is one, and it does not answer.
    """
    deadline = time.monotonic() + DOOR_SECONDS
    while True:
        try:
            _wake(home)
            control.ask(home.socket, "status", brief=True)
            return True
        except NoSupervisor:
            if not held(home.lock):
                return False
            if time.monotonic() > deadline:
                raise Transient(
                    f"a supervisor of {home.label} lives (pid {_pid(home)}), and nobody can reach it",
                    f"try again, or stop all of it: ipython-builder down {home.label}",
                ) from None
            time.sleep(POLL)


def _answers(home: Home) -> bool:
    """The same for who wants to start: one that says nothing is ended, and what it watched over goes on."""
    try:
        return alive(home)
    except Transient:
        pid = _pid(home)
        if pid is None:
            raise
        processes.end(pid)
        deadline = time.monotonic() + STOP_SECONDS
        while held(home.lock) and time.monotonic() < deadline:
            time.sleep(POLL)
        return False


def _pid(home: Home) -> int | None:
    """The supervisor that holds the lock, as it has written into it itself."""
    try:
        pid = int(home.lock.read_text())
    except (OSError, ValueError):
        return None
    return pid if held(home.lock) and pid in processes.of(home.path) else None


def _wake(home: Home) -> None:
    pid = _pid(home)
    if pid is not None and processes.stopped(pid):
        processes.end(pid, signal.SIGCONT)


def _living(home: Home) -> set[int]:
    """What lives of the cluster, but for consoles, which are of no help to it."""
    pids = processes.of(home.path)
    return set(pids) - processes.below(processes.consoles(pids))


def _put_right(made: Record, home: Home, reporter: Reporter) -> None:
    """Write again what somebody may have removed while the cluster runs."""
    try:
        prepare.write_files(made, home)
    except OSError as error:
        reporter.warning(f"{error.filename}: {error.strerror}")


def stop(home: Home) -> None:
    """Ask the supervisor, wait for it, and end whatever bears the cluster's mark all the same."""
    try:
        control.ask(home.socket, "stop")
    except (NoSupervisor, Transient):
        pass
    else:
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and held(home.lock):
            time.sleep(POLL)
    processes.sweep(home.path)


def progress(state: dict[str, Any]) -> str:
    """One line of where the start is."""
    viewer = next((role["state"] for role in state["roles"] if role["role"] == "viewer"), "starting")
    engines = state.get("engines", {"registered": 0, "requested": 0})
    return f"notebook {viewer}, {engines['registered']}/{engines['requested']} engines"


def _spawn(home: Home) -> subprocess.Popen[bytes]:
    home.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = os.open(home.logs / "node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ipython_builder.node", str(home.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environ(home),
            start_new_session=True,  # so that it survives this terminal
        )
    finally:
        os.close(log)


def _environ(home: Home) -> dict[str, str]:
    """The caller's environment without what was meant for `up` alone: a password, a key.

    With the cluster's mark, so that a supervisor which cannot even start is found and ended like the rest.
    """
    passed = {name: value for name, value in os.environ.items() if not name.startswith("IPYTHON_")}
    return passed | {processes.MARK: str(home.path)}


def held(lock: Path) -> bool:
    """Whether a living process holds this lock; the kernel frees those of dead ones."""
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _failure(home: Home, state: dict[str, Any], ended: int | None) -> BuilderError:
    """What did not start, with its own last words; `ended` is how the supervisor did, if it did."""
    failing = [role["role"] for role in state["roles"] if role["state"] == "failing"] or ["supervisor"]
    try:
        words = list(logs.lines(home.logs, failing[0], last=8))[-8:]
    except BuilderError:
        words = []
    reasons = "; ".join(one["what"] for one in state["wrong"]) or "it took too long"
    if ended is not None:
        how = f"was killed by {signal.Signals(-ended).name}" if ended < 0 else f"ended with {ended}"
        reasons = f"its supervisor {how}"
    tail = "".join(f"\n  {line}" for line in words)
    return BuilderError(
        f"the cluster did not start: {reasons}{tail}",
        f"read all of it with `ipython-builder logs {home.label}`",
    )
