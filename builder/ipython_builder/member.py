"""One process of a role, as the supervisor sees it: started, heard, watched, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipython_builder.commands import kill_group
from ipython_builder.roles import Role

CHANNEL = "IPYTHON_NODE_CHANNEL"  # as ipython_cluster.channel reads it
LOG_LIMIT = 5_000_000  # bytes after which a log is put aside at the next start
# Seconds before the next start, by how many starts failed in a row; what held for STEADY starts at once.
BACKOFF = (0.0, 0.2, 1.0, 3.0, 10.0, 30.0)
STEADY = 30.0
FAILING = 4  # failed starts in a row after which status says so


class Member:
    """A process that is wanted.

    Attributes:
        state: starting, ready, waiting (for its next start) or stopped.
        restarts: how often it was started again after it died.
        facts: the last thing the role said of itself (an engine: id and uuid; the controller: engines).
    """

    def __init__(
        self,
        role: Role,
        number: int,
        argv: list[str],
        environ: dict[str, str],
        cwd: str,
        logs: Path,
        changed: Callable[[Member], None],
    ) -> None:
        self.role = role
        self.number = number
        self.argv = argv
        self.environ = environ
        self.cwd = cwd
        name = role.name if role.name != "engine" else f"engine-{number}"
        self.log = logs / f"{name}.log"
        self.changed = changed
        self.state = "waiting"
        self.restarts = 0
        self.failures = 0
        self.reason: str | None = None
        self.since = time.time()
        self.facts: dict[str, Any] = {}
        self.pid: int | None = None
        self.wanted = True
        self.line: socket.socket | None = None
        self.task = asyncio.create_task(self.live())

    async def live(self) -> None:
        """Start, wait for the end, start again; until it is no longer wanted."""
        while self.wanted:
            started = time.monotonic()
            try:
                code = await self.once()
            except OSError as error:
                self.reason = f"cannot be started: {error.strerror} ({self.argv[0]})"
            else:
                self.reason = f"ended with {code}" if code >= 0 else f"killed by {_signal_name(-code)}"
            if not self.wanted:
                break
            held = time.monotonic() - started
            self.failures = 0 if held > STEADY else self.failures + 1
            self.restarts += 1
            self.become("waiting")
            # The first death may be anybody's kill: start at once. What dies again waits ever longer.
            await asyncio.sleep(BACKOFF[min(self.failures - 1, len(BACKOFF) - 1)] if self.failures else 0)
        self.become("stopped")

    async def once(self) -> int:
        """One process from its start to its end; returns its exit code and leaves nothing of its group."""
        self.facts = {}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        log = open_log(self.log)
        try:
            process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ | {CHANNEL: str(theirs.fileno())},
                cwd=self.cwd,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a group of its own: its children are stopped with it
            )
        except OSError:
            ours.close()
            raise
        finally:
            os.close(log)
            theirs.close()
        self.pid = process.pid
        self.line = ours
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, self.hear)
        self.become("starting")
        try:
            return await process.wait()
        finally:
            loop.remove_reader(ours)
            ours.close()
            self.line = None
            # The controller's schedulers outlive it and hold its ports; a worker's children their memory.
            kill_group(process.pid)
            self.pid = None

    def hear(self) -> None:
        """Take in what the role says of itself."""
        if self.line is None:
            return
        try:
            data = self.line.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.line)
            return
        self.facts |= json.loads(data)
        self.become("ready" if self.facts.get("ready") else self.state)

    def tell(self, **message: Any) -> None:
        """Say something to the role; one that is gone or deaf will learn it at its next start."""
        if self.line is not None:
            try:
                self.line.send(json.dumps(message).encode())
            except OSError:
                return

    def become(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.since = time.time()
        self.changed(self)

    async def stop(self, grace: float | None = None) -> None:
        """SIGTERM, the role's grace time, SIGKILL to the whole group."""
        self.wanted = False
        pid = self.pid
        if pid is None:
            self.task.cancel()
            self.state = "stopped"
            return
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # its end is on its way to us
        done, _ = await asyncio.wait({self.task}, timeout=self.role.grace if grace is None else grace)
        if not done:
            kill_group(pid)
            await self.task

    def status(self) -> dict[str, Any]:
        return {
            "role": self.role.name,
            "id": self.number,
            "pid": self.pid,
            # What has come up again is well, however often it fell before.
            "state": "failing" if self.failures >= FAILING and self.state != "ready" else self.state,
            "restarts": self.restarts,
            "since": round(self.since, 3),
            "reason": self.reason,
        }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names


def open_log(path: Path) -> int:
    """A descriptor to append to `path`; a log that has grown too large is put aside, one generation is kept.

    A disk that is full must not stop a role: then its output goes nowhere.
    """
    try:
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
