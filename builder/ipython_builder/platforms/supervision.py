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

from ipython_builder import control, logs, processes
from ipython_builder.control import NoSupervisor
from ipython_builder.errors import BuilderError, Transient
from ipython_builder.events import Reporter, counted
from ipython_builder.record import Home, Record

START_SECONDS = 120.0  # for a cold disk and a slow machine; an engine more may take another second
STOP_SECONDS = 30.0
POLL = 0.03


def start(home: Home, made: Record, reporter: Reporter) -> dict[str, Any]:
    """Have a supervisor with everything ready; a live one is only told the number of engines.

    Returns:
        The supervisor's status.

    Raises:
        BuilderError: a role does not start; all of it is stopped again, the logs stay.
    """
    with reporter.phase("start", f"starting the notebook and {counted(made.engines, 'engine')}") as phase:
        process = None
        if alive(home):
            control.ask(home.socket, "scale", count=made.engines)
        else:
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
                if state["wrong"]:
                    break
                phase.progress(progress(state))
                time.sleep(POLL)
            raise _failure(home, state, process.poll() if process else None)
        except BaseException:
            if process is not None:
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
        while state["engines"]["registered"] != count and not state["wrong"] and time.monotonic() < deadline:
            phase.progress(progress(state))
            time.sleep(POLL)
            state = control.ask(home.socket, "status", brief=True)
        if state["engines"]["registered"] != count:
            why = "; ".join(one["what"] for one in state["wrong"]) or "too slow"
            raise BuilderError(
                f"{state['engines']['registered']} of {count} engines came: {why}",
                f"ipython-builder logs {home.label} engine",
            )
        phase.done(counted(count, "engine"))
    return state


def alive(home: Home) -> bool:
    """Whether a supervisor answers."""
    try:
        control.ask(home.socket, "status", brief=True)
    except NoSupervisor:
        return False
    return True


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
