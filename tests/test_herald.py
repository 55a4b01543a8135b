"""What a supervisor elsewhere says to a controller, over its registration port, with and without encryption."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
import zmq

from ipython_builder import abroad, cluster
from ipython_builder.herald import Herald
from ipython_builder.record import Home
from tests.stand import Stand, stand
from tests.test_controller import SECONDS, got, sleep, touch
from tests.workbench import until


@pytest.fixture(params=[False, True], ids=["plain", "curve"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    """A controller with two engines."""
    with stand(tmp_path, curve=request.param) as made:
        made.up(2)
        yield made


def ask(link: cluster.Link, what: str, **content: Any) -> dict[str, Any] | None:
    async def asking() -> dict[str, Any] | None:
        herald = Herald(link)
        try:
            return await herald.ask(what, **content)
        finally:
            herald.close()

    return asyncio.run(asking())


def trouble(link: cluster.Link) -> str:
    async def looking() -> str:
        herald = Herald(link)
        try:
            return await herald.trouble()
        finally:
            herald.close()

    return asyncio.run(looking())


@pytest.mark.slow
def test_it_tells_of_the_dead(there: Stand) -> None:
    rc = there.client()
    task = rc[0].apply_async(eval, sleep(1000))
    until(lambda: there.said["busy"] == [0], "it works")
    known = ask(there.link, "connection_request")
    assert known is not None
    assert known["engines"] == {str(number): uuid for number, uuid in there.uuids.items()}
    uuid = there.uuids[0]
    there.kill("engine", 0)
    assert ask(there.link, "lost_request", engines=[uuid, "nobody"]) == {"status": "ok"}
    assert got(task) == "EngineError"
    until(lambda: rc.ids == [1], "the client knows it")
    there.add([0])
    until(lambda: rc.ids == [0, 1], "the id is free for a successor")


@pytest.mark.slow
def test_who_leaves_finishes_its_task_and_gets_no_other(there: Stand, tmp_path: Path) -> None:
    rc = there.client()
    pids = rc[:].apply_async(eval, sleep(0)).get_dict(timeout=SECONDS)
    go, begun = tmp_path / "go", tmp_path / "begun"
    wait = "[__import__('time').sleep(0.05) for _ in iter(lambda: __import__('os').path.exists({!r}), True)]"
    code = f"({touch(begun)}, {wait.format(str(go))}, {sleep(0)})[2]"
    task = rc.load_balanced_view(targets=[0]).apply_async(eval, code)
    until(begun.exists, "engine 0 works")
    until(lambda: there.said["busy"] == [0], "the hub knows it")
    uuids = [there.uuids[0]]
    answer = ask(there.link, "leaving_request", engines=uuids)
    assert answer is not None
    assert answer["busy"] == [0]
    others = rc.load_balanced_view().map_async(eval, [sleep(0.01)] * 20, chunksize=1)
    assert set(got(others)) == {pids[1]}
    go.touch()
    assert got(task) == pids[0]
    until(lambda: (ask(there.link, "leaving_request", engines=uuids) or {}).get("busy") == [], "it is idle")
    assert set(got(rc.load_balanced_view().map_async(eval, [sleep(0)] * 10, chunksize=1))) == {pids[1]}


@pytest.mark.slow
def test_another_key_is_no_word(there: Stand) -> None:
    other = replace(there.link, key=b"x" * 32)
    assert ask(other, "lost_request", engines=list(there.uuids.values())) is None
    assert "does not answer to this cluster key" in trouble(other)
    assert there.client().ids == [0, 1]
    with pytest.raises(TimeoutError, match="does not answer: is it another cluster's"):
        client_of(other, there.folder / "other", timeout=2)


def client_of(link: cluster.Link, folder: Path, timeout: float) -> Any:
    import importlib

    importlib.import_module("ipython_cluster._client_hook")
    module = importlib.import_module("ipyparallel.client.client")
    if module.Client._connect.__module__ == module.__name__:
        importlib.import_module("ipython_cluster.reconnect").extend(module)
    folder.mkdir()
    file = folder / "ipcontroller-client.json"
    file.write_text(cluster.connection_files(link)["ipcontroller-client.json"])
    return ipp.Client(str(file), timeout=timeout)


def test_why_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    link = cluster.Link("tt", b"k" * 32, host="127.0.0.1", bind="127.0.0.1", first_port=port, curve=True)
    assert trouble(link) == f"there is no controller at 127.0.0.1:{port}: nothing listens (yet)"
    unknown = replace(link, host="ipcontroller-nobody.invalid")
    assert "the name is not known (yet)" in trouble(unknown)
    with pytest.raises(TimeoutError, match="nothing listens"):
        client_of(link, tmp_path / "one", timeout=0.2)
    with pytest.raises(TimeoutError, match="the name is not known"):
        client_of(unknown, tmp_path / "two", timeout=0.2)
    assert ask(link, "connection_request") is None


def test_a_next_life_knows_whom_the_last_one_had(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert abroad.Note(home).former == {}
    home.kept.mkdir()
    first = abroad.Note(home)
    first.write({0: ("u0", 4), 1: ("u1", None)})
    # Another container with the same volume: its engines live, and it notes nothing.
    other = abroad.Note(home)
    assert other.former == {}
    other.write({7: ("u7", 7)})
    first.close()
    second = abroad.Note(home)
    assert second.former == {0: ("u0", 4), 1: ("u1", None)}
    second.write({0: ("v0", 4)})
    second.close()
    third = abroad.Note(home)
    assert third.former == {0: ("v0", 4), 1: ("u1", None)}, "who has no successor is not forgotten"
    third.close()
    home.registered.write_text("[")
    assert abroad.Note(home).former == {}


class Engine:
    """As much of a member as a roll call looks at."""

    def __init__(self, number: int, state: str = "ready") -> None:
        self.number, self.state = number, state
        self.facts = {"uuid": f"u{number}", "id": number + 10}
        self.told: list[dict[str, Any]] = []

    def tell(self, **message: Any) -> None:
        self.told.append(message)


def test_an_engine_that_the_controller_has_forgotten_is_told(
    there: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = [Engine(0), Engine(1), Engine(2, "starting")]
    members: Any = {("engine", one.number): one for one in engines} | {("pool", 0): Engine(9)}

    async def looking() -> None:
        made = abroad.Abroad(there.link, members)
        try:
            for _ in range(abroad.ABSENT - 1):
                made.call_roll({"u0"})
            assert not engines[1].told, "its registration may be under way"
            made.call_roll({"u0", "u1"})  # it was
            for _ in range(abroad.ABSENT):
                made.call_roll({"u0"})
            made.call_roll({"u0"})
        finally:
            made.herald.close()

    asyncio.run(looking())
    assert [one.told for one in engines] == [[], [{"register": True}], []]
    assert "does not know engine 11: it registers again" in capsys.readouterr().out


def test_hearts_do_not_wait_for_a_packet_that_got_lost() -> None:
    engine = importlib.import_module("ipython_cluster.engine")
    heart = engine.app.Heart("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", heart_id=b"x")
    heart.start()
    for options in (heart.device._in_sockopts, heart.device._out_sockopts):
        assert dict(options)[zmq.CONNECT_TIMEOUT] == 3000
