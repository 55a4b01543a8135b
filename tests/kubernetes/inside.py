"""Process 1 of the node: starts its programs, says when it is ready, and takes all with it when it ends.

It is told its place on standard input, and ends when that closes or one of the programs ends.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.kubernetes import configuration, openshift, volumes
from tests.kubernetes.api import Api, Refused
from tests.kubernetes.node import HIDDEN, ip
from tests.kubernetes.place import NODE, Place

PATIENCE = 170  # seconds for everything together, on a machine that does something else too
FIRST = ("etcd", "containerd", "apiserver")


# What a kubelet wants to be so, of /proc/sys.
SETTINGS = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)


def main() -> None:
    print("inside", flush=True)
    number, runtime, programs = (sys.stdin.readline().strip() for _ in range(3))
    if not programs:
        return
    threading.Thread(target=end_with_input, daemon=True).start()
    place = Place(int(number), Path(runtime), Path(programs))
    mount()
    connect(place)
    Node(place).live()


def end_with_input() -> None:
    """End at once: as the other processes of these namespaces, all the kernel's to end, do."""
    sys.stdin.read()
    os._exit(0)


def mount() -> None:
    def run(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    for folder in ("/run", *map(str, HIDDEN)):
        run("-t", "tmpfs", "-o", "mode=755", "node", folder)
    # The kubelet sets some of the machine's settings as a machine of its own would have them: here it writes
    # them into files that only this node sees.
    for setting in SETTINGS:
        path, shown = Path("/proc/sys", setting), Path("/run", setting.replace("/", "."))
        if path.exists():
            shown.write_text(path.read_text())
            run("--bind", str(shown), str(path))
    for folder in ("/proc/sys/kernel", "/proc/sys/vm"):
        run("--rbind", folder, folder)
        run("-o", "remount,bind,ro", folder)
    run("--make-rshared", "/")


def connect(place: Place) -> None:
    """The machine is the way out. It forwards nothing of ours, unless somebody tells it to."""
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{place.address}/30", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    ip("route", "add", "default", "via", place.host)
    # A service's address is nowhere but in the firewall: what that does not know ends on a bridge without members.
    ip("link", "add", "services", "type", "bridge")
    ip("link", "set", "services", "up")
    ip("route", "add", place.services, "dev", "services", "src", place.address)


class Node:
    """The programs of a node, as they run."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.api = Api(place)
        self.commands = configuration.commands(place)
        self.running: dict[int, str] = {}
        self.deadline = time.monotonic() + PATIENCE

    def live(self) -> None:
        """Start everything, and stay until something ends."""
        for name in FIRST:
            self.start(name)
        self.until("containerd answers", self.place.socket.is_socket)
        self.ctr_import(pause())
        self.until("the API server is ready", lambda: self.api.ask("GET", "/readyz") == "ok")
        for name in self.commands:
            if name not in FIRST:
                self.start(name)
        for path, thing in (*openshift.OBJECTS, *volumes.OBJECTS):
            self.until(f"{path} can be made", functools.partial(self.api.ask, "POST", path, thing))
        self.until("the node is ready", self.is_ready)
        self.until(
            "pods are allowed",
            lambda: self.api.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default"),
        )
        self.place.ready.touch()
        while True:
            ended = self.ended(0)
            if ended:
                self.give_up(f"{ended} has ended")

    def start(self, name: str) -> None:
        with (self.place.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.commands[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/run",
            )
        self.running[process.pid] = name

    def ended(self, options: int) -> str | None:
        """The program that has ended; process 1 also has those to bury whose parents are gone."""
        pid, _ = os.waitpid(-1, options)
        return self.running.get(pid)

    def until(self, what: str, condition: Callable[[], object]) -> None:
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException, Refused) as error:
                said = str(error)
            else:
                said = "not yet"
            if ended := self.ended(os.WNOHANG):
                self.give_up(f"{ended} ended before {what}", ended)
            if time.monotonic() > self.deadline:
                self.give_up(f"in {PATIENCE} seconds not so far that {what}: {said}")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        conditions = self.api.ask("GET", f"/api/v1/nodes/{NODE}")["status"]["conditions"]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def ctr_import(self, archive: bytes) -> None:
        words = ["ctr", "--address", str(self.place.socket), "--namespace", "k8s.io", "images", "import", "-"]

        def imported() -> bool:
            done = subprocess.run(words, input=archive, capture_output=True, check=False)
            if done.returncode:
                raise OSError(done.stderr.decode(errors="replace"))
            return True

        self.until("the image of a pod's first process is there", imported)

    def give_up(self, why: str, *names: str) -> None:
        """End, and say why; the ends of logs are what a failed test shows."""
        for name in names or self.running.values():
            text = (self.place.logs / f"{name}.log").read_text(errors="replace")
            sys.stderr.write(f"-- {name}:\n{text[-1500:]}\n")
        sys.stderr.write(f"{why}\n")
        sys.stderr.flush()
        os._exit(1)


def pause() -> bytes:
    """An image in which something waits and buries processes: the first one of each pod."""
    program = shutil.which("catatonit") or "/usr/libexec/podman/catatonit"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        info = tarfile.TarInfo("pause")
        content = Path(program).read_bytes()
        info.size, info.mode = len(content), 0o755
        tar.addfile(info, io.BytesIO(content))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Entrypoint": ["/pause", "-P"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [configuration.PAUSE], "Layers": ["layer.tar"]}]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive.getvalue()


if __name__ == "__main__":
    main()
