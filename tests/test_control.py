"""Asking a supervisor over a real socket: one that answers, and all the ways in which none does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from ipython_builder import control
from ipython_builder.control import NoSupervisor
from ipython_builder.errors import BuilderError, Transient
from ipython_builder.record import Home
from ipython_builder.upkeep import Door


@contextmanager
def supervisor(path: Path, reply: bytes | None) -> Iterator[list[bytes]]:
    """A server that reads one line and answers with `reply`; None: it never answers."""
    asked: list[bytes] = []
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        with control.reachable(path) as name:
            server.bind(name)
        server.listen()

        def serve() -> None:
            line, _ = server.accept()
            with line, line.makefile("rb") as reader:
                asked.append(reader.readline())
                if reply is None:
                    done.wait()
                else:
                    line.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            done.set()
            thread.join()


def test_a_request_is_one_line_and_so_is_the_answer(tmp_path: Path) -> None:
    with supervisor(tmp_path / "node.sock", b'{"state": "ready"}\n') as asked:
        assert control.ask(tmp_path / "node.sock", "scale", count=3) == {"state": "ready"}
    assert json.loads(asked[0]) == {"do": "scale", "count": 3}
    assert asked[0].endswith(b"\n")


def test_a_supervisor_opens_though_a_descriptor_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    opened: list[IO[str]] = []
    bind = control.listen

    def listen(path: Path) -> socket.socket:
        line = bind(path)
        opened.append(file.open())  # by a thread, for instance
        return line

    monkeypatch.setattr(control, "listen", listen)

    async def talk() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(json.dumps({"heard": json.loads(await reader.readline())}).encode() + b"\n")
            writer.close()

        home = Home(tmp_path)
        door = Door(home, serve, 1 << 16)
        await door.open()
        assert await asyncio.to_thread(control.ask, home.socket, "scale") == {"heard": {"do": "scale"}}
        door.close()

    asyncio.run(talk())
    opened[0].close()


def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a-folder-of-somebody-who-likes-long-names"] * 5)
    folder.mkdir(parents=True)
    path = folder / "node.sock"
    assert len(bytes(path)) > 107
    with pytest.raises(OSError, match="too long"), socket.socket(socket.AF_UNIX) as line:
        line.bind(str(path))
    with supervisor(path, b"{}\n"):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert control.ask(path, "status") == {}


def test_an_answer_that_is_larger_than_any_buffer(tmp_path: Path) -> None:
    roles = [{"role": "engine", "id": number, "pid": 4_000_000} for number in range(10_000)]
    with supervisor(tmp_path / "node.sock", json.dumps({"roles": roles}).encode() + b"\n"):
        assert control.ask(tmp_path / "node.sock", "status") == {"roles": roles}


def test_nobody_there(tmp_path: Path) -> None:
    for path in (tmp_path / "node.sock", tmp_path / "no" / "folder" / "node.sock"):
        with pytest.raises(NoSupervisor) as caught:
            control.ask(path, "status")
        assert str(path) in caught.value.message


def test_a_socket_that_a_killed_supervisor_left(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, control.reachable(tmp_path / "node.sock") as name:
        server.bind(name)
        server.listen()
    assert (tmp_path / "node.sock").exists()
    with pytest.raises(NoSupervisor):
        control.ask(tmp_path / "node.sock", "status")


def test_a_file_where_the_socket_should_be(tmp_path: Path) -> None:
    (tmp_path / "node.sock").write_text("{}")
    with pytest.raises(NoSupervisor):
        control.ask(tmp_path / "node.sock", "status")


@pytest.mark.parametrize("reply", [b"", b"\n", b"hello\n", b'{"state": ', b"[]\n", b"null\n", b"\xff\xfe\n"])
def test_what_is_no_answer(tmp_path: Path, reply: bytes) -> None:
    with supervisor(tmp_path / "node.sock", reply), pytest.raises(NoSupervisor):
        control.ask(tmp_path / "node.sock", "status")


def test_a_refusal_is_said_in_the_supervisors_words(tmp_path: Path) -> None:
    with (
        supervisor(tmp_path / "node.sock", b'{"error": "-1 engines cannot be had"}\n'),
        pytest.raises(BuilderError, match="-1 engines cannot be had") as caught,
    ):
        control.ask(tmp_path / "node.sock", "scale", count=-1)
    assert not isinstance(caught.value, NoSupervisor)


def test_silence_is_worth_another_try(tmp_path: Path) -> None:
    with supervisor(tmp_path / "node.sock", None), pytest.raises(Transient) as caught:
        control.ask(tmp_path / "node.sock", "status", timeout=0.2)
    assert caught.value.exit_code == 75


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(NoSupervisor):
            control.ask(tmp_path / "node.sock", "status")
    assert len(os.listdir("/proc/self/fd")) == before
