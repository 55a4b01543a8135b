"""A Docker engine: found, started, asked over its own HTTP interface; and a docker command that fits it."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import CACHE


class _Unix(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=600)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(address: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and answer of the Docker engine at ``unix://…``.

    Raises:
        OSError: nobody answers.
        http.client.HTTPException: something else does.
    """
    connection = _Unix(address.removeprefix("unix://"))
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None
    finally:
        connection.close()


def is_docker(address: str) -> bool:
    """Whether a Docker engine answers. podman's socket does not count: what s2i makes with it is wrong."""
    try:
        status, version = ask(address, "GET", "/version")
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return status == 200 and any(part.get("Name") == "Engine" for part in version.get("Components") or [])


def running_docker() -> str | None:
    """The address of a Docker engine that runs already."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    known = [os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"]
    known += [f"unix://{runtime}/docker.sock"] if runtime else []
    return next((one for one in known if one.startswith("unix://") and is_docker(one)), None)


def start_docker(runtime: Path) -> tuple[str, list[str]]:
    """Address and command of a Docker engine of our own. Its images stay, for the next run."""
    conf = runtime / "daemon.json"
    conf.write_text("{}")
    command = ["dockerd", "--config-file", conf, "--data-root", CACHE / "docker", "--group", str(os.getgid())]
    command += ["--exec-root", runtime / "exec", "--pidfile", runtime / "pid"]
    if not Path("/run/systemd/system").is_dir():
        command += ["--exec-opt", "native.cgroupdriver=cgroupfs"]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < 1048576:
        command += ["--default-ulimit", f"nofile={hard}:{hard}"]
    address = f"unix://{runtime}/docker.sock"
    return address, [str(word) for word in [*command, "--host", address]]


def docker_client(env: dict[str, str]) -> str | None:
    """A docker command that reaches the engine, one with BuildKit before others."""
    found = ["/usr/bin/docker", *(f"{folder}/docker" for folder in os.get_exec_path())]
    able = []
    for program in dict.fromkeys(one for one in found if os.access(one, os.X_OK)):

        def says(*words: str, program: str = program) -> str:
            done = subprocess.run(
                [program, *words], env=os.environ | env, capture_output=True, text=True, check=False
            )
            return "" if done.returncode else done.stdout.strip()

        if says("version", "--format", "{{.Server.Version}}"):
            old = int(says("version", "--format", "{{.Client.Version}}").partition(".")[0] or 0) < 23
            if old or says("buildx", "version"):
                return program
            able.append(program)
    return able[0] if able else None
