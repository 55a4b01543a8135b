"""The daemon: makes namespaces for the node, links them to the machine, and removes what outlives them.

    python -m tests.kubernetes.node RUNTIME PROGRAMS

The node itself is in `tests.kubernetes.inside`. It ends when this ends, however that happens: its standard input
closes, and the kernel ends all of it with its process 1. A link between two networks goes with either. What is left
are empty folders: those of the control groups, which the next node of that number removes too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tests.kubernetes import configuration, credentials
from tests.kubernetes.place import NUMBERS, Place

CHECKOUT = Path(__file__).resolve().parents[2]
GROUPS = Path("/sys/fs/cgroup")
# Where programs of the node write whatever they are told: the node has folders of its own there.
HIDDEN = tuple(map(Path, ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers")))


def command(runtime: Path, programs: Path) -> list[str]:
    """The command line of this daemon, which says that it is ready with the file ``RUNTIME/ready``."""
    words = [
        "env",
        f"PYTHONPATH={CHECKOUT}",
        sys.executable,
        "-m",
        "tests.kubernetes.node",
        runtime,
        programs,
    ]
    return [str(word) for word in words]


def ip(*words: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *words], check=check, capture_output=not check).returncode == 0


# -- what the machine sees --------------------------------------------------------------------------


def groups(place: Place) -> list[Path]:
    """The node's control group, in each hierarchy that the machine has."""
    old = (GROUPS / "cgroup.controllers").exists()
    hierarchies = [GROUPS] if old else [one for one in GROUPS.iterdir() if (one / "cgroup.procs").exists()]
    return [one / place.name for one in hierarchies]


def remove_groups(place: Place) -> None:
    """Remove the node's control groups. The kernel lets go of them a little after their last process."""
    for group in groups(place):
        for folder, _, _ in os.walk(group, topdown=False):
            for _ in range(50):
                try:
                    Path(folder).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.1)


@contextlib.contextmanager
def linked(runtime: Path, programs: Path, process: int) -> Iterator[Place]:
    """A place on this machine that no other node has, linked to the network namespace of a process."""
    for number in NUMBERS:
        place = Place(number, runtime, programs)
        # Of two who want a name the kernel gives it to one.
        if ip("link", "add", place.name, "type", "veth", "peer", "eth0", "netns", str(process), check=False):
            break
    else:
        raise SystemExit(f"there is no room for a node: {NUMBERS} are taken, or the kernel has no veth")
    try:
        ip("address", "add", f"{place.host}/30", "dev", place.name)
        ip("link", "set", place.name, "up")
        ip("route", "add", place.network, "via", place.address, "dev", place.name)
        yield place
    finally:
        ip("link", "delete", place.name, check=False)


@contextlib.contextmanager
def grouped(place: Place) -> Iterator[None]:
    """Control groups of this place, empty at first."""
    remove_groups(place)
    try:
        for group in groups(place):
            group.mkdir()
        yield
    finally:
        remove_groups(place)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """The folders that the node hides, which must be there to be hidden."""
    made = [folder for folder in HIDDEN if not folder.exists()]
    for folder in made:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        # Removing a folder would uncover it in another node, which is mounted there.
        if not any(Path("/sys/class/net", Place(n, Path(), Path()).name).exists() for n in NUMBERS):
            for folder in made:
                with contextlib.suppress(OSError):
                    folder.rmdir()


# -- the node ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def separated() -> Iterator[subprocess.Popen[str]]:
    """Process 1 of new namespaces, which waits for its place; at the end they are gone."""

    def follow() -> None:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    words = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    words += ["--propagation", "private", sys.executable, "-m", "tests.kubernetes.inside"]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=follow
    )
    assert process.stdin
    assert process.stdout
    try:
        if process.stdout.readline() != "inside\n":
            raise SystemExit("namespaces of its own cannot be made for the node")
        yield process
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()  # not before everything in them has ended


def end(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def main(runtime: Path, programs: Path) -> None:
    signal.signal(signal.SIGTERM, end)
    with hidden(), contextlib.ExitStack() as later, separated() as process:
        assert process.stdin
        place = later.enter_context(linked(runtime, programs, process.pid))
        later.enter_context(grouped(place))
        credentials.write(place)
        configuration.write(place)
        (runtime / "number").write_text(str(place.number))
        process.stdin.write(f"{place.number}\n{runtime}\n{programs}\n")
        process.stdin.flush()
        process.wait()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
