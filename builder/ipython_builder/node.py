"""The supervisor: it starts, watches, restarts and stops the roles of one cluster, and answers for them.

``python -m ipython_builder.node HOME`` is the background process of a local cluster. It reads the record,
writes what the roles read, and then serves one unix socket: status, scale, restart, stop.
Liveness is the role's process; what a connection's other end does never gets a healthy process killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ipython_builder import cluster, control, prepare, record
from ipython_builder.errors import BuilderError
from ipython_builder.member import Member
from ipython_builder.processes import sweep
from ipython_builder.record import Home, Record, write_private
from ipython_builder.roles import ROLES, environ

STOP_SECONDS = 20.0


class Node:
    """The roles of one cluster."""

    def __init__(self, home: Home, made_of: Record) -> None:
        self.home = home
        self.record = made_of
        self.environ = environ(made_of, home, os.environ)
        self.members: dict[tuple[str, int], Member] = {}
        self.engines: dict[str, str] = {}  # id -> uuid, as the controller's hub has them
        self.lost: dict[int, str] = {}  # engine number -> uuid of its last life
        self.stopping = asyncio.Event()
        self.changing = asyncio.Lock()
        self.started = time.time()

    # -- members -----------------------------------------------------------------------------------

    def start(self, name: str, number: int = 0) -> None:
        role = ROLES[name]
        member = Member(
            role, number, role.argv(self.record, self.home, number), self.environ,
            self.record.notebooks, self.home.logs, self.changed,
        )  # fmt: skip
        self.members[name, number] = member

    def changed(self, member: Member) -> None:
        """A member said something or changed its state."""
        if member.role.name == "controller":
            self.engines = member.facts.get("engines", {}) if member.state == "ready" else {}
        elif member.role.name == "engine":
            if member.state == "ready":
                self.lost[member.number] = member.facts["uuid"]
            elif member.number in self.lost and member.pid is None:
                # The hub would notice after thirty seconds without a heartbeat; we know it now.
                self.members["controller", 0].tell(lost=self.lost.pop(member.number))
        elif member.role.ready == "http" and member.state == "starting" and not member.facts.get("probed"):
            member.facts["probed"] = True
            self.probe = asyncio.create_task(self.answering(member))

    async def answering(self, member: Member) -> None:
        """Look until the viewer's port answers; that makes it ready."""
        pid = member.pid
        while member.pid == pid and member.state == "starting":
            # Its own file says that it listens; that something answers on its port alone would not be proof.
            said = self.home.jupyter / "runtime" / f"jpserver-{pid}.json"
            if said.exists() and await self.get_api():
                member.become("ready")
                return
            await asyncio.sleep(0.05)

    async def get_api(self) -> bool:
        host, port = self.record.viewer_host, self.record.viewer_port
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        try:
            writer.write(f"GET /api HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in await asyncio.wait_for(reader.readline(), 5)
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()

    # -- what can be asked -------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        roles = [member.status() for _, member in sorted(self.members.items())]
        registered = len(self.engines)
        wrong = [
            f"{role['role']} {role['id']}: {role['reason']}, restarted {role['restarts']} times"
            for role in roles
            if role["state"] == "failing"
        ]
        settled = all(role["state"] == "ready" for role in roles) and registered == self.record.engines
        supervisor = {
            "role": "supervisor", "id": 0, "pid": os.getpid(), "state": "ready", "restarts": 0,
            "since": round(self.started, 3), "reason": None,
        }  # fmt: skip
        return {
            "label": self.record.label,
            "state": "stopping"
            if self.stopping.is_set()
            else "ready"
            if settled
            else "failing"
            if wrong
            else "starting",
            "engines": {"requested": self.record.engines, "registered": registered},
            "roles": [supervisor, *roles],
            "wrong": wrong,
        }

    async def scale(self, count: int) -> dict[str, Any]:
        """Have `count` engines: new ones are started at once, the highest ids leave first."""
        if not isinstance(count, int) or not 0 <= count <= cluster.MAX_ENGINES:
            raise BuilderError(f"{count!r} engines cannot be had: 0 to {cluster.MAX_ENGINES:,} can")
        async with self.changing:
            self.keep(count)
            here = {number for name, number in self.members if name == "engine"}
            for number in sorted(set(range(count)) - here):
                self.start("engine", number)
            leaving = [self.members["engine", number] for number in here if number >= count]
            await asyncio.gather(*(member.stop() for member in leaving))
            for member in leaving:
                self.members.pop(("engine", member.number), None)
        return self.status()

    async def restart(self, role: str) -> dict[str, Any]:
        """Stop and start again all members of a role."""
        if role not in ROLES:
            raise BuilderError(f"there is no role {role!r}; there are {', '.join(ROLES)}")
        async with self.changing:
            members = [member for (name, _), member in self.members.items() if name == role]
            await asyncio.gather(*(member.stop() for member in members))
            for member in members:
                self.start(role, member.number)
        return self.status()

    def keep(self, count: int) -> None:
        changed = self.record.with_engines(count)
        record.save(self.home, changed)
        self.record = changed
        text = json.dumps(prepare.cluster_file(self.record, self.home))
        write_private(self.home.security / prepare.CLUSTER_FILE, text + "\n")

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "status":
                return self.status()
            case "scale":
                count = request["count"] if "count" in request else self.record.engines + int(request["by"])
                return await self.scale(max(0, count) if "by" in request else count)
            case "restart":
                return await self.restart(str(request.get("role")))
            case "stop":
                self.stopping.set()
                return self.status()
        raise BuilderError(f"unknown request: {request.get('do')!r}")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            reply = await self.answer(json.loads(await reader.readline()))
        except BuilderError as error:
            reply = {"error": error.message}
        except (ValueError, KeyError, TypeError) as error:
            reply = {"error": f"not a request: {error}"}
        except OSError as error:
            reply = {"error": f"{error.filename or self.home.path}: {error.strerror}"}
        try:
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except OSError:
            pass  # who asked is gone
        finally:
            writer.close()

    # -- life --------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Start everything at once (who comes first waits), serve until told to stop, stop everything."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the terminal may close
        self.start("controller")
        self.start("viewer")
        for number in range(self.record.engines):
            self.start("engine", number)
        self.home.socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self.serve, sock=control.listen(self.home.socket))
        await self.stopping.wait()
        async with self.changing:
            stops = [asyncio.create_task(member.stop()) for member in self.members.values()]
            await asyncio.wait(stops, timeout=STOP_SECONDS)
        server.close()
        self.home.socket.unlink(missing_ok=True)


def main() -> None:
    """Supervise the cluster in the folder named by the first argument, as the only one to do so."""
    home = Home(Path(sys.argv[1]))
    made_of = record.load(home)
    if made_of is None:
        sys.exit(f"{home.path} has no record")
    lock = home.lock.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"a supervisor of {home.label} runs already")
    os.set_inheritable(lock.fileno(), False)
    # A controller has a dozen connections an engine, we have two; the usual soft limit is 1,024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # What an earlier supervisor left when it was killed holds our ports.
    sweep(home.path)
    prepare.write_files(made_of, home)
    node = Node(home, made_of)
    try:
        asyncio.run(node.live())
    finally:
        sweep(home.path)  # kernels and terminals that outlived the viewer


if __name__ == "__main__":
    main()
