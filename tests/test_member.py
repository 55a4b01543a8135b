"""One supervised process: real ones, that die, hang, have children, and talk over the channel."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ipython_builder import control, processes
from ipython_builder import member as module
from ipython_builder.children import Children
from ipython_builder.member import Member, spawn
from ipython_builder.roles import Role
from tests.workbench import until as until_it_is

CLUSTER = Path(module.__file__).parent.parent  # where ipython_cluster is, for the channel's other end
Make = Callable[[str], Member]


def scene(tmp_path: Path, play: Callable[[Make, list[str]], Awaitable[None]], grace: float = 1.0) -> None:
    """Run `play` with a way to make members out of Python programs; they are stopped at the end."""

    async def run() -> None:
        made: list[Member] = []
        states: list[str] = []
        children = Children()
        socket = tmp_path / "node.sock"

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            facts = json.loads(await reader.readline())
            one = made[facts["id"]]
            assert one.pid == facts["pid"]
            one.attach(
                writer, {name: facts[name] for name in facts if name not in ("do", "role", "id", "pid")}
            )
            while line := await reader.readline():
                one.hear(json.loads(line))
            writer.close()

        def make(program: str, python: str = sys.executable) -> Member:
            number = len(made)
            environ = dict(os.environ) | {"PYTHONPATH": str(CLUSTER), "IPYTHON_NODE_SOCKET": str(socket)}
            environ["IPYTHON_NODE_ROLE"] = f"engine {number}"

            async def launch(one: Member) -> int:
                return spawn([python, "-c", program], environ, str(tmp_path), tmp_path / f"{one.name}.log")

            role = Role("engine", lambda *_: [], "channel", grace)
            one = Member(role, number, children, launch, lambda m: states.append(m.state))
            made.append(one)
            return one

        server = await asyncio.start_unix_server(hear, sock=control.listen(socket))
        try:
            await asyncio.wait_for(play(make, states), 60)
        finally:
            await asyncio.gather(*(one.stop() for one in made))
            server.close()

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


READY = (
    "from ipython_cluster.channel import Channel; import time; c = Channel(); c.send(ready=True, uuid='u')\n"
)


def test_a_role_says_when_it_is_ready(tmp_path: Path) -> None:
    async def play(make: Make, states: list[str]) -> None:
        one = make(READY + "time.sleep(100)")
        await until(lambda: one.state == "ready")
        assert one.facts == {"ready": True, "uuid": "u"}
        assert list(dict.fromkeys(states)) == ["starting", "ready"]
        await one.stop()
        assert one.state == "stopped"
        assert one.pid is None

    scene(tmp_path, play)


def test_the_supervisor_is_heard_in_a_thread_of_the_role(tmp_path: Path) -> None:
    async def play(make: Make, states: list[str]) -> None:
        one = make(READY + "c.listen(lambda m: c.send(heard=m['lost'])); time.sleep(100)")
        await until(lambda: one.state == "ready")
        one.tell(lost="abc")
        await until(lambda: one.facts.get("heard") == "abc")

    scene(tmp_path, play)


def test_what_dies_is_started_again_and_says_why(tmp_path: Path) -> None:
    async def play(make: Make, states: list[str]) -> None:
        one = make(READY + "time.sleep(100)")
        await until(lambda: one.state == "ready")
        first = one.pid
        assert first
        os.kill(first, signal.SIGKILL)
        await until(lambda: one.restarts == 1 and one.state == "ready")
        assert one.pid != first
        # Other tests have the kernel kill for want of memory, perhaps in this moment.
        assert one.reason in ("killed by SIGKILL", "killed by the kernel: out of memory")

    scene(tmp_path, play)


def test_what_cannot_live_is_called_failing_after_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF", (0.0, 0.011, 0.022, 0.033))
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds in module.BACKOFF:
            waits.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", noted)

    async def play(make: Make, states: list[str]) -> None:
        one = make("raise SystemExit(3)")
        await until(lambda: one.failures >= module.FAILING)
        assert one.state != "ready"
        assert one.reason == "ended with 3"

    scene(tmp_path, play)
    assert waits[:3] == [0.0, 0.011, 0.022]


def test_a_program_that_is_not_there_is_a_reason_and_no_crash(tmp_path: Path) -> None:
    async def play(make: Make, states: list[str]) -> None:
        one = make("", python="/nowhere/python")
        await until(lambda: one.restarts >= 1)
        assert "/nowhere/python" in (one.reason or "")

    scene(tmp_path, play)


def test_children_go_with_their_parent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    child = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(100)"
    program = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"open({str(pids)!r}, 'a').write(str(p.pid) + '\\n')\n" + READY + "time.sleep(100)"
    )

    async def play(make: Make, states: list[str]) -> None:
        one = make(program)
        await until(lambda: one.state == "ready")
        await one.stop()

    scene(tmp_path, play)
    until_it_is(
        lambda: not any(processes.alive(int(pid)) for pid in pids.read_text().split()), "its child's end"
    )


def test_what_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    async def play(make: Make, states: list[str]) -> None:
        one = make("import signal; signal.signal(15, signal.SIG_IGN)\n" + READY + "time.sleep(100)")
        await until(lambda: one.state == "ready")
        pid = one.pid
        await one.stop()
        assert pid
        assert not processes.alive(pid)

    scene(tmp_path, play, grace=0.2)
