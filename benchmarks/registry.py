"""A real registry on loopback that counts what is sent to it. It is no benchmark itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 30.0  # seconds in which a registry is up


class Counter:
    """A port in front of the registry's.

    Attributes:
        address: what images are pushed to.
        sent: bytes that came in so far, with the words of HTTP.
    """

    def __init__(self, behind: str) -> None:
        host, _, port = behind.partition(":")
        self._behind = host, int(port)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(self._behind)
            threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                if counted:
                    with self._lock:
                        self.sent += len(data)
                target.sendall(data)
        for end, way in ((source, socket.SHUT_RD), (target, socket.SHUT_WR)):
            with contextlib.suppress(OSError):
                end.shutdown(way)

    def close(self) -> None:
        self._socket.close()


def program() -> str | None:
    """The registry's program, if it is there."""
    return shutil.which("docker-registry") or shutil.which("registry")


@contextlib.contextmanager
def running(work: Path) -> Iterator[Counter]:
    """An empty registry that keeps its images below `work`."""
    found = program()
    assert found, "there is no docker-registry on PATH"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    conf = work / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(work / "registry")}}
    conf.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with (work / "registry.log").open("w") as log:
        process = subprocess.Popen(
            [found, "serve", os.fspath(conf)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(address, process, work / "registry.log")
        counter = Counter(address)
        try:
            yield counter
        finally:
            counter.close()
    finally:
        process.terminate()
        process.wait(10)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.05)
    sys.exit(f"the registry does not start:\n{log.read_text()}")
