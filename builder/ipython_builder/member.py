"""One process of a role, as the supervisor sees it: started, heard, watched, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ipython_builder import processes, starved
from ipython_builder.children import Children
from ipython_builder.commands import kill_group
from ipython_builder.logs import open_log
from ipython_builder.roles import Role

# Seconds before the next start, by how many deaths there were lately: the first may be anybody's kill.
BACKOFF = (0.0, 0.2, 1.0, 3.0, 10.0, 30.0)
FORGET = 20.0  # seconds of being ready that make up for one death
STEADY = 30.0  # seconds of waiting to be ready that are no fault of its own: its controller was not there
FAILING = 4  # deaths lately after which status says so
KILLED = -signal.SIGKILL


class Member:
    """A process that is wanted.

    Attributes:
        state: starting, ready, leaving, waiting (for its next start) or stopped.
        restarts: how often it was started again after it died.
        deaths: how often it died lately; what it is ready for afterwards makes up for them.
        trouble: when the first of these deaths was.
        facts: what the role said of itself in this life (an engine: id and uuid; the controller: engines).
    """

    def __init__(
        self,
        role: Role,
        number: int,
        children: Children,
        launch: Callable[[Member], Awaitable[int]],
        changed: Callable[[Member], None],
        *,
        living: int | None = None,
        restarts: int = 0,
    ) -> None:
        """`launch` starts the process and returns its pid; `living` is the pid of one that runs already."""
        self.role = role
        self.number = number
        self.children = children
        self.launch = launch
        self.changed = changed
        self.living = living
        self.restarts = restarts
        self.state = "waiting"
        self.deaths = 0.0
        self.trouble = time.time()
        self.was_ready: float | None = None  # since when, if it is; monotonic
        self.reason: str | None = None
        self.code: int | None = None
        self.since = time.time()
        self.facts: dict[str, Any] = {}
        self.pid: int | None = None
        self.began: int | None = None
        self.wanted = True
        self.line: asyncio.StreamWriter | None = None
        self.task = asyncio.create_task(self.live())

    @property
    def name(self) -> str:
        """As its log is called."""
        return f"engine-{self.number}" if self.role.name == "engine" else self.role.name

    async def live(self) -> None:
        """Start, wait for the end, start again; until it is no longer wanted."""
        while self.wanted:
            started = time.monotonic()
            try:
                self.code = await self.once()
            except OSError as error:
                self.reason = f"cannot be started: {error.strerror} ({error.filename})"
            else:
                self.reason = _ended(self.code)
                if self.code == KILLED and starved.KILLS.recent():
                    self.reason = "killed by the kernel: out of memory"
            if not self.wanted:
                break
            self.died(time.monotonic() - started)
            self.become("waiting")
            await asyncio.sleep(BACKOFF[self.failures - 1] if self.failures else 0)
        self.become("stopped")

    @property
    def failures(self) -> int:
        """How many deaths there were lately, as far as it has not been ready long enough since."""
        ready = 0.0 if self.was_ready is None else time.monotonic() - self.was_ready
        return int(max(0.0, self.deaths - ready / FORGET))

    def died(self, held: float) -> None:
        """Count a death after `held` seconds of life."""
        now = time.monotonic()
        good = held - STEADY if self.was_ready is None else now - self.was_ready
        self.deaths = max(0.0, self.deaths - max(0.0, good) / FORGET)
        if self.deaths < 1:
            self.trouble = time.time()
        self.deaths = min(self.deaths + 1, float(len(BACKOFF)))
        self.was_ready = None
        self.restarts += 1

    def forgive(self) -> None:
        """What it died of is out of the way."""
        self.deaths = 0.0

    async def once(self) -> int | None:
        """One process from its start to its end; returns its exit code and leaves nothing of its group."""
        self.facts = {}
        self.pid, self.living = self.living or await self.launch(self), None
        pid = self.pid
        self.began = processes.began(pid)
        self.become("ready" if self.facts.get("ready") else "starting")
        try:
            return await self.children.end(pid)
        finally:
            self.detach()
            # The controller's schedulers outlive it and hold its ports; a worker's children their memory.
            kill_group(pid)
            self.pid = None

    def attach(self, line: asyncio.StreamWriter, facts: dict[str, Any]) -> None:
        """The process has reached us; it may be one that we, as a new supervisor, know by its pid only."""
        self.line = line
        self.hear(facts)

    def detach(self, line: asyncio.StreamWriter | None = None) -> None:
        if self.line is not None and line in (None, self.line):
            self.line.close()
            self.line = None

    def hear(self, facts: dict[str, Any]) -> None:
        """Take in what the role says of itself."""
        self.facts |= facts
        self.become("ready" if self.facts.get("ready") and self.state == "starting" else self.state)

    def tell(self, **message: Any) -> None:
        """Say something to the role; one that is gone or deaf will learn it at its next start."""
        if self.line is not None:
            self.line.write(json.dumps(message).encode() + b"\n")

    def become(self, state: str) -> None:
        if state != self.state:
            if state == "ready":
                self.was_ready = time.monotonic()
            self.state = state
            self.since = time.time()
        self.changed(self)

    async def stop(self, grace: float | None = None) -> None:
        """SIGTERM, the role's grace time, SIGKILL to the whole group."""
        self.wanted = False
        pid = self.pid
        if pid is None:
            self.task.cancel()
            self.become("stopped")
            return
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # its end is on its way to us
        done, _ = await asyncio.wait({self.task}, timeout=self.role.grace if grace is None else grace)
        if not done:
            kill_group(pid)
            await self.task


def spawn(argv: list[str], environ: dict[str, str], cwd: str, log: Path | None) -> int:
    """Start a process in a session of its own, so that its children are stopped with it; returns its pid.

    Without a `log` it speaks where we do.
    """
    output = os.dup(1) if log is None else open_log(log)
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(output)
    process.returncode = 0  # its end is heard elsewhere
    return process.pid


def _ended(code: int | None) -> str:
    if code is None:
        return "ended while no supervisor watched it"
    if code >= 0:
        return f"ended with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"  # real-time signals have no names
