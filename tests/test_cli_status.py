"""`status`: what a person reads of four engines and of a thousand, and what is shown again and again.

The supervisor is a stand-in that answers over a real socket; the command is the real one.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipython_builder import control
from ipython_builder.cli import overview
from tests.conftest import Cli, Home

NOW = 1_800_000_000.0


def role(name: str, number: int = 0, state: str = "ready", since: float = 200, **more: Any) -> dict[str, Any]:
    return {
        "role": name, "id": number, "pid": 1000 + number, "state": state, "restarts": 0,
        "since": NOW - since, "reason": None, "memory": 10_000_000,
    } | more  # fmt: skip


def status(count: int, *unwell: dict[str, Any], **more: Any) -> dict[str, Any]:
    other = {one["id"]: one for one in unwell}
    engines = [other.get(number) or role("engine", number) for number in range(count)]
    registered = sum(engine["state"] == "ready" for engine in engines)
    roles = [role("supervisor"), role("controller"), *engines, role("viewer", memory=90_000_000)]
    return {
        "label": "main", "state": "ready", "roles": roles, "wrong": [], "url": "http://127.0.0.1:8080/",
        "source": "/home/me/x", "notebooks": "/home/me/x",
        "engines": {"requested": count, "registered": registered, "busy": 2},
        "tasks": {"queued": 3, "running": 2, "done": 120_042, "failed": 1}, "memory": 1_234_000_000,
    } | more  # fmt: skip


def text(state: dict[str, Any], height: int = 24) -> str:
    return "\n".join(overview.lines(state, NOW, height))


def test_four_engines() -> None:
    again = role("engine", 2, since=3, restarts=1, reason="killed by SIGKILL")
    assert (
        text(status(4, again))
        == """\
main: ready, 4 of 4 engines registered
  url        http://127.0.0.1:8080/
  source     /home/me/x
  notebooks  /home/me/x
  supervisor ready for 3 min, pid 1000, 10 MB
  controller ready for 3 min, pid 1000, 10 MB
  viewer     ready for 3 min, pid 1000, 90 MB
  engines    0-3: 4 ready; 2 busy; 40 MB
  engine 2   ready for 3 s, pid 1002, restarted 1× (killed by SIGKILL)
  tasks      3 queued, 2 running, 120,042 done, 1 failed
  memory     1.2 GB in all"""
    )


def test_one_engine_and_none() -> None:
    one = text(status(1))
    assert "main: ready, 1 of 1 engine registered" in one
    assert "  engine 0   ready for 3 min, pid 1000, 10 MB, busy" in one
    none = text(status(0))
    assert "main: ready, 0 of 0 engines registered" in none
    assert "  engine" not in none


def test_a_thousand_engines() -> None:
    starting = [role("engine", number, "starting", number - 9) for number in (10, 11, 12)]
    failing = role("engine", 500, "failing", 30, restarts=7, reason="ended with 1", pid=None)
    wrong = [{"what": "engine 500: ended with 1, restarted 7 times", "since": NOW - 30}]
    said = text(status(1000, *starting, failing, state="failing", wrong=wrong)).splitlines()
    assert said[:2] == [
        "main: failing, 996 of 1,000 engines registered",
        "  wrong      engine 500: ended with 1, restarted 7×, for 30 s",
    ]
    assert "  engines    0-999: 996 ready, 3 starting, 1 failing; 2 busy; 10 GB" in said
    assert "             3 starting for up to 3 s: 10-12" in said
    assert len(said) == 12


@pytest.mark.parametrize("height", [1, 5, 12, 24, 60])
def test_however_much_is_wrong_it_fits(height: int) -> None:
    unwell = [
        role("engine", number, "waiting", restarts=number % 7 + 1, reason=f"ended with {number % 50}")
        for number in range(0, 1000, 2)
    ]
    wrong = [f"engine {n}: ended with {n % 50}, restarted {n % 7} times" for n in range(1, 1000, 2)]
    said = text(status(1000, *unwell, wrong=wrong, state="failing"), height).splitlines()
    assert len(said) <= height
    assert said[0].startswith("main: failing")
    if height > 20:
        assert sum("more; --json has all" in line for line in said) == (2 if height < 60 else 0)
        assert any(line.startswith("  tasks") for line in said)


def test_engines_of_one_fate_are_one_line() -> None:
    unwell = [
        role("engine", number, "waiting", number, restarts=number, reason="ended with 1")
        for number in (3, 5, 6)
    ]
    said = text(status(8, *unwell))
    assert "             3 waiting for up to 6 s, restarted 3–6× (ended with 1): 3, 5-6" in said


def test_what_an_older_and_a_silent_supervisor_say() -> None:
    roles = [role("supervisor"), role("engine", 0), role("engine", 1, "failing", restarts=4, reason="why")]
    for one in roles:
        del one["memory"]
    older = {
        "label": "main",
        "state": "failing",
        "roles": roles,
        "wrong": ["engine 1: why, restarted 4 times"],
    }
    said = text(older | {"engines": {"requested": 2, "registered": 1}})
    assert "  wrong      engine 1: why, restarted 4×" in said
    assert "  engines    0-1: 1 ready, 1 failing" in said
    silent = {"label": "main", "state": "stopped", "roles": [], "wrong": [], "source": "/home/me/x"}
    assert text(silent | {"engines": {"requested": 1, "registered": 0}}).splitlines() == [
        "main: stopped, 0 of 1 engine registered",
        "  source     /home/me/x",
        "  next       ipython-builder up --label main /home/me/x",
    ]


def test_a_pool_says_what_it_does_without() -> None:
    state = status(2, pool={"left_out": {"tensorflow": "it leaves behind 2 threads"}, "refused": None})
    state["roles"].insert(2, role("pool"))
    said = text(state).splitlines()
    line = next(number for number, one in enumerate(said) if one.startswith("  pool"))
    assert said[line + 1] == "             without tensorflow: it leaves behind 2 threads"
    off = status(2, pool={"left_out": {}, "refused": "this ipykernel is not known"})
    off["roles"].insert(
        2, role("pool", state="off", pid=None, memory=None, reason="this ipykernel is not known")
    )
    assert "  pool       off for 3 min (this ipykernel is not known)" in text(off)


# -- again and again --------------------------------------------------------------------------------


class Supervisor:
    """Answers every question for memory with the next of `states`, the last one for ever."""

    def __init__(self, path: Path, *states: dict[str, Any]) -> None:
        self.states = list(states)
        self.asked: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True)
        self.server = control.listen(path)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                line, _ = self.server.accept()
            except OSError:
                return
            with line, line.makefile("rb") as reader:
                self.asked.append(json.loads(reader.readline()))
                line.sendall(json.dumps(self.states[0]).encode() + b"\n")
                if "memory" in self.asked[-1] and len(self.states) > 1:
                    self.states.pop(0)

    def stop(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


@pytest.fixture
def supervisor(home: Home) -> Iterator[Supervisor]:
    made = Supervisor(
        home.clusters / "main" / "node.sock", status(2, state="starting"), status(3, wrong=["why"])
    )
    yield made
    made.stop()
    shutil.rmtree(home.clusters / "main", ignore_errors=True)


def test_once(cli: Cli, supervisor: Supervisor) -> None:
    first = cli("status")
    assert (first.rc, first.stdout.splitlines()[0]) == (1, "main: starting, 2 of 2 engines registered")
    assert cli("status", "main", "--json", check=True).json["memory"] == 1_234_000_000
    assert supervisor.asked == [{"do": "status"}, {"do": "status", "memory": True}] * 2


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["pipe", "json"])
def test_watching_through_a_pipe(cli: Cli, supervisor: Supervisor, words: list[str]) -> None:
    process = cli.start("status", "main", "--watch", *words)
    assert process.stdout is not None
    looks = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [look["engines"]["requested"] for look in looks] == [2, 3]
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == "interrupted"
    assert all(isinstance(json.loads(line), dict) for line in rest.splitlines())


def test_watching_ends_with_the_cluster(cli: Cli, supervisor: Supervisor) -> None:
    process = cli.start("status", "-w", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    shutil.rmtree(cli.home.clusters / "main")
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr.strip()) == (0, "main has been removed")


def test_watching_what_is_not_there(cli: Cli) -> None:
    assert cli("status", "nobody", "--watch").rc == 2


def test_watching_on_a_terminal(cli: Cli, supervisor: Supervisor) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 60, 0, 0))
    process = subprocess.Popen(
        [*cli.argv, "status", "main", "--watch"],
        env=cli.home.environ | {"TERM": "xterm"},
        cwd=cli.home.path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while b"3 of 3 engines" not in said:
        said += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    try:
        while data := os.read(ours, 65536):
            said += data
    except OSError:
        pass  # its end was closed
    os.close(ours)
    assert process.wait(timeout=30) == 130
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    assert "main: starting, 2 of 2 engines registered" in shown
    assert "{" not in shown
    assert b"\x1b[31m  wrong      why\x1b[0m" in said
    assert b"controller \x1b[32mready" in said
    assert shown.rstrip().endswith("interrupted")
    assert said.count(b"\x1b[?25l") == said.count(b"\x1b[?25h"), "the cursor is there again"
