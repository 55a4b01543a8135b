"""A controller and engines without the rest of a cluster: started by hand in a folder, heard on a socket.

What a test of the controller alone needs: no environment is made, no viewer starts, and nobody starts again
what the test kills. The stand stands in for the supervisor: it hears what the roles say, and tells them
things.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipython_builder import cluster, ports, processes
from ipython_builder.record import write_private
from tests.conftest import DROPPED
from tests.workbench import until

MB = 10**6


class Stand:
    """One controller and its engines.

    Attributes:
        folder: all that is written lies below it.
        link: what links its parts.
        security: the connection files and the journal of tasks.
        processes: role and number -> the process that has it, or had it last.
        facts: role and number -> what that process has said of itself.
    """

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", curve: bool = False) -> None:
        """`host` is the address where the controller listens; with `curve` all traffic is encrypted."""
        self.folder = folder
        self.security = folder / "ipython" / "profile_default" / "security"
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.link = cluster.Link(
            "stand", os.urandom(32), host=host, bind=host, first_port=ports.block(()), curve=curve
        )
        for name, text in cluster.connection_files(self.link).items():
            write_private(self.security / name, text)
        self.processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self.facts: dict[tuple[str, int], dict[str, Any]] = {}
        self.lines: dict[tuple[str, int], socket.socket] = {}
        self.clients: list[Any] = []
        self.address = folder / "node.sock"
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(self.address))
        self.server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    # -- what the roles say ----------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self.server.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._hear, args=(line,), daemon=True).start()

    def _hear(self, line: socket.socket) -> None:
        facts: dict[str, Any] = {}
        with line, line.makefile("rb") as reader:
            for text in reader:
                facts |= json.loads(text)
                member = facts["role"], facts["id"]
                self.facts[member], self.lines[member] = facts, line

    def tell(self, role: str, number: int = 0, **message: Any) -> None:
        """Say something to a role, as the supervisor would."""
        self.lines[role, number].sendall(json.dumps(message).encode() + b"\n")

    @property
    def said(self) -> dict[str, Any]:
        """What this controller has said."""
        return self.facts.get(("controller", 0), {})

    @property
    def uuids(self) -> dict[int, str]:
        """The engines that the controller knows."""
        return {int(number): uuid for number, uuid in self.said.get("engines", {}).items()}

    # -- life ------------------------------------------------------------------------------------------

    def start(
        self, role: str, number: int = 0, *, env: Mapping[str, str] | None = None, before: Iterable[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a role; `before` are words that stand before its command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
        ours = {
            "IPYTHONDIR": str(self.folder / "ipython"),
            "IPYTHON_NODE_SOCKET": str(self.address),
            "IPYTHON_NODE_ROLE": f"{role} {number}",
            processes.MARK: str(self.folder),
        }
        words = [str(number)] if role == "engine" else []
        self.facts.pop((role, number), None)
        with open(self.log(role, number), "ab") as log:
            process = subprocess.Popen(
                [*before, sys.executable, "-P", "-m", f"ipython_cluster.{role}", *words],
                env=kept | ours | dict(env or {}),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[role, number] = process
        return process

    def up(self, engines: int = 2) -> None:
        """Start the controller and engines, and wait for all of them."""
        self.start("controller")
        self.add(range(engines))

    def add(self, numbers: Iterable[int], **options: Any) -> None:
        """Start these engines, and wait for them."""
        for number in numbers:
            self.start("engine", number, **options)
        self.registered(numbers)

    def registered(self, numbers: Iterable[int]) -> None:
        """Wait until the controller knows these engines, and they have done what it asked them first."""
        there = set(numbers)
        until(lambda: there <= set(self.uuids) and not self.said["busy"], f"{there} are registered")

    def log(self, role: str, number: int = 0) -> Path:
        return self.logs / f"{role}-{number}.log"

    def kill(self, role: str, number: int = 0) -> None:
        """As the kernel would for want of memory, and with everything that belongs to the role."""
        process = self.processes[role, number]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def restart_controller(self) -> None:
        """Kill it, start it again, and wait for its engines."""
        before = set(self.uuids)
        self.kill("controller")
        self.start("controller")
        self.registered(before)

    def down(self) -> None:
        for client in self.clients:
            client.close(linger=0)
        for role, number in self.processes:
            try:
                self.kill(role, number)
            except ProcessLookupError:
                pass  # it has ended, and so have its children
        self.server.close()

    # -- clients ---------------------------------------------------------------------------------------

    def client(self) -> Any:
        """A client in this process, as one in a notebook: with our hook."""
        importlib.import_module("ipython_cluster._client_hook")
        module = importlib.import_module("ipyparallel.client.client")
        if module.Client._connect.__module__ == module.__name__:
            # Somebody imported it before the hook was there.
            for name in ("reconnect", "sharing"):
                importlib.import_module(f"ipython_cluster.{name}").extend(module)
        client = module.Client(str(self.security / "ipcontroller-client.json"), timeout=60)
        self.clients.append(client)
        return client


@contextmanager
def stand(folder: Path, **options: Any) -> Iterator[Stand]:
    """A stand that is taken down at the end."""
    made = Stand(folder, **options)
    try:
        yield made
    finally:
        made.down()


def resident(pid: int) -> float:
    """The megabytes that a process has for itself, and its share of what it has with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / MB
    raise AssertionError("the kernel says nothing of it")
