"""From typed to ready: `ipython-builder up` against `jupyter lab` and `ipcluster start` by hand.

Ready means, on both sides and seen from outside in the same way: the page answers with HTTP 200, and a
client in the engines' environment sees all of them. Both sides are warm, with the same versions of JupyterLab
and ipyparallel. By hand both commands are typed at the same moment. Bar: at most 0.35 of
the time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import IO, Any

import common
import uv

WATCH = Path(__file__).with_name("watch.py")
LIMIT = 180.0  # seconds after which a start has failed


class NotThere(SystemExit):
    """What was waited for did not come; said as the last words, where nobody catches it."""


class Watcher:
    """Another process that looks at the page and at the engines; it is up before anything is typed.

    Without a port it looks at the engines only.
    """

    def __init__(
        self, python: Path, port: int | None, connection: Path, count: int, env: Mapping[str, str]
    ) -> None:
        page = f"http://127.0.0.1:{port}/lab" if port else "-"
        words: common.Words = [python, WATCH, page, connection, str(count)]
        self.process = subprocess.Popen(
            [os.fspath(word) for word in words], env=dict(env), stdout=subprocess.PIPE, text=True
        )
        self.out: IO[str] = self.process.stdout  # type: ignore[assignment]
        assert self.out.readline() == "watching\n"

    def wait(self, limit: float = LIMIT) -> dict[str, float]:
        """The moments at which the page and the engines were there."""
        alarm = threading.Timer(limit, self.process.kill)
        alarm.start()
        try:
            said = self.out.readline()
            self.process.wait()
        finally:
            alarm.cancel()
        if not said:
            raise NotThere(f"no page or no engines within {limit:.0f} s")
        moments: dict[str, float] = json.loads(said)
        return moments


class ByHand:
    """An ordinary virtual environment in which both commands are typed."""

    packages: tuple[str, ...] = ("jupyterlab", "ipyparallel")

    def __init__(self, work: Path, count: int) -> None:
        self.work = work
        self.count = count
        self.venv = work / "by-hand"
        self.env = common.environ() | {"PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}"}
        self.starts = 0
        self.details: list[dict[str, float]] = []

    def install(self) -> None:
        """The packages, in the versions that the other side has."""
        locks = resources.files("ipython_builder") / "locks"
        bounds = self.work / "versions.txt"
        lines = [line for name in ("runtime.txt", "viewer.txt") for line in _pins((locks / name).read_text())]
        bounds.write_text("".join(f"{line}\n" for line in lines))
        tool = uv.find_uv_bin()
        common.run([tool, "venv", "--python", common.base_python(), self.venv], env=self.env)
        install = [tool, "pip", "install", "--compile-bytecode", "--python", str(self.venv)]
        words = [*install, "--constraint", str(bounds), *self.packages]
        common.run(words, env=self.env, cwd=self.work)

    def start(self) -> float:
        self.starts += 1
        home = self.work / f"by-hand-{self.starts}"
        notebooks = home / "notebooks"
        notebooks.mkdir(parents=True)
        # A home without a past: nobody's configuration, no connection file of another run.
        env = self.env | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython")}
        port = free_port()
        connection = home / "ipython" / "profile_default" / "security" / "ipcontroller-client.json"
        watcher = Watcher(self.venv / "bin" / "python", port, connection, self.count, env)
        lab = [
            "jupyter",
            "lab",
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            "--ServerApp.port_retries=0",
        ]
        began = time.monotonic()
        with (
            started(lab, env, notebooks),
            started(["ipcluster", "start", "-n", str(self.count)], env, notebooks),
        ):
            moments = watcher.wait()
        self.details.append({name: moment - began for name, moment in moments.items()})
        return max(moments.values()) - began


class Ours:
    """`ipython-builder up` in a folder without requirements."""

    def __init__(self, work: Path, count: int) -> None:
        self.count = count
        self.folder = work / "notebooks"
        self.folder.mkdir()
        self.home = work / "home"
        state, data = self.home / "state", self.home / "data"
        self.security = state / "ipython-builder/clusters/bench/ipython/profile_default/security"
        self.env = common.environ() | {
            "XDG_STATE_HOME": str(state),
            "XDG_DATA_HOME": str(data),
            "IPYTHON_BUILDER_CACHE_DIR": str(self.home / "cache"),
        }
        self.python = Path(common.base_python())
        self.details: list[dict[str, float]] = []

    def tool(self, *words: str | Path) -> common.Words:
        return [sys.executable, "-P", "-m", "ipython_builder", *words]

    def install(self) -> None:
        """The first `up` makes the environments."""
        up = self.tool("up", self.folder, "-n", "1", "--label", "bench", "--json", "--progress", "none")
        made: dict[str, Any] = json.loads(common.run(up, env=self.env))
        self.python = Path(made["environment"]["path"], "bin", "python")
        self.down()

    def start(self) -> float:
        port = free_port()
        connection = self.security / "ipcontroller-client.json"
        watcher = Watcher(self.python, port, connection, self.count, self.env)
        up = self.tool("up", self.folder, "-n", str(self.count), "--label", "bench", "--port", str(port))
        began = time.monotonic()
        try:
            common.run([*up, "--json"], env=self.env)
            returned = time.monotonic()
            moments = watcher.wait()
        finally:
            self.down()
        self.details.append(
            {name: moment - began for name, moment in (moments | {"returned": returned}).items()}
        )
        return max(moments.values()) - began

    def down(self) -> None:
        common.run(self.tool("down", "bench"), env=self.env)


@contextlib.contextmanager
def started(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> Iterator[int]:
    """The pid of a command in the background; at the end it and all that it started are stopped."""
    log = cwd.parent / f"{argv[0]}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        for sig, patience in ((signal.SIGINT, 15), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sig)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                if not _group(process.pid):
                    break


def _group(leader: int) -> bool:
    """Whether anything of a process group lives."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pins(lock: str) -> list[str]:
    """The versions of a lock without its hashes."""
    lines = (line.rstrip(" \\") for line in lock.splitlines())
    return [line for line in lines if line[:1].isalnum()]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "-n", "--engines", type=int, metavar="N", help="engines to start (default 4; quick: 2)"
    )
    options = parser.parse_args()
    count = options.engines or (2 if options.quick else 4)
    with common.workplace(options.work) as work:
        peer, ours = ByHand(work, count), Ours(work, count)
        peer.install()
        ours.install()
        if not options.quick:  # neither pays for a first time
            peer.start()
            ours.start()
            peer.details.clear()
            ours.details.clear()
        seconds = common.take_turns(options.runs, peer.start, ours.start)
    page, engines = (
        common.Case(name, [one[key] for one in peer.details], [one[key] for one in ours.details])
        for name, key in (("page answers", "page"), ("engines registered", "engines"))
    )
    bar = "at most 0.35 of the time"
    ready = common.Case(f"page and {count} engines", *seconds, bar, lambda case: case.ratio >= 1 / 0.35)
    returned = statistics.median(one["returned"] for one in ours.details)
    common.report(
        f"up -n {count}, warm", "by hand", [page, engines, ready], options,
        our_command_returned_after=f"{returned:.3f} s",
    )  # fmt: skip


if __name__ == "__main__":
    main()
