"""A cluster key that is lost, comes late or changes, as the supervisor of a container sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from ipython_builder import cluster, keyring
from ipython_builder.errors import UsageError
from ipython_builder.keyring import Keyring, follow
from ipython_builder.record import Home, Record

ONE, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOK", 0.01)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "tt")
    made.path.mkdir()
    return made


def record(home: Home, *roles: str) -> Record:
    return Record(
        label="tt", user="me", source="image", ref=None, context_dir=None, commit=None, checkout="/",
        in_place=True, notebooks="/", environment="image", environment_path="/", python="3.13.0",
        viewer_environment=None, viewer_python="/", viewer_module="jupyterlab", viewer_host="0.0.0.0",
        viewer_port=8080, first_port=10000, engines=0, roles=roles, controller="ipcontroller-tt", curve=True,
    )  # fmt: skip


@dataclass
class Others:
    """Engines with tasks, one after another look."""

    tasks: list[set[int]] = field(default_factory=list)

    def busy(self) -> set[int]:
        return self.tasks.pop(0) if self.tasks else set()


@dataclass
class Controller:
    """What the controller answers to the old key."""

    answers: list[dict[str, Any] | None]

    @property
    def herald(self) -> Controller:
        return self

    async def ask(self, what: str) -> dict[str, Any] | None:
        assert what == "connection_request"
        return self.answers.pop(0)


def watch(
    ring: Keyring, made: Record, *, others: Others | None = None, controller: Controller | None = None
) -> bool:
    """Look for a while; whether the role was told to begin anew."""
    told: list[bool] = []

    async def look() -> None:
        task = follow(
            ring, made, cast(Any, others or Others()), cast(Any, controller), lambda: told.append(True)
        )
        try:
            await asyncio.wait_for(task, 0.3)
        except TimeoutError:
            pass

    asyncio.run(look())
    return bool(told)


def info(home: Home) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home.security / "ipcontroller-client.json").read_text())
    return found


def key_of(text: str) -> str:
    return cluster.session_key(cluster.Link("tt", bytes.fromhex(text)))


def test_a_viewer_finds_a_cluster_that_comes_later(home: Home) -> None:
    keys: Iterator[bytes | None] = iter([None, None, ONE.encode()])
    last: list[bytes | None] = [None]

    def source() -> bytes | None:
        last[0] = next(keys, last[0])
        return last[0]

    ring = Keyring(home, source)
    assert not watch(ring, record(home, "viewer")), "nothing restarts"
    assert info(home)["key"] == key_of(ONE)
    assert info(home)["interface"] == "tcp://ipcontroller-tt"
    assert home.key.stat().st_mode & 0o777 == 0o600
    last[0] = OTHER.encode()
    assert not watch(ring, record(home, "viewer"))
    assert info(home)["key"] == key_of(OTHER)


def test_a_key_that_goes_for_a_moment_is_kept(home: Home) -> None:
    home.key.write_text(ONE + "\n")
    assert not watch(Keyring(home, lambda: None), record(home, "controller"))
    assert home.key.read_text() == ONE + "\n"


def test_a_controller_begins_anew_when_no_engine_has_a_task(home: Home) -> None:
    home.key.write_text(ONE + "\n")
    others = Others([{0}, {0}, {1}])
    assert watch(Keyring(home, OTHER.encode), record(home, "controller"), others=others)
    assert others.tasks == []
    assert home.key.read_text() == ONE + "\n", "until it ends it is what it was"


def test_a_controller_with_tasks_goes_on(home: Home) -> None:
    home.key.write_text(ONE + "\n")
    assert not watch(Keyring(home, OTHER.encode), record(home, "controller"), others=Others([{0}] * 1000))


def test_engines_follow_when_the_old_key_opens_nothing(home: Home) -> None:
    home.key.write_text(ONE + "\n")
    ring = Keyring(home, OTHER.encode)
    answers: list[dict[str, Any] | None] = [
        {"status": "ok"},
        {"status": "ok"},
        None,
        {"status": "never asked"},
    ]
    controller = Controller(answers)
    assert watch(ring, record(home, "pool", "engine"), controller=controller)
    assert controller.answers == [{"status": "never asked"}]


def test_a_key_that_is_none_is_said_once(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.key.write_text(ONE + "\n")

    def short() -> bytes:
        return b"short"

    assert not watch(Keyring(home, short), record(home, "controller"))

    def unreadable() -> bytes:
        raise UsageError("the cluster key x cannot be read: no")

    assert not watch(Keyring(home, unreadable), record(home, "viewer"))
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 2)[2] for line in said] == [
        "the cluster key has 5 bytes; it needs at least 32",
        "the cluster key x cannot be read: no",
    ]


def test_what_somebody_removed_is_written_again(home: Home) -> None:
    home.key.write_text(ONE + "\n")
    ring = Keyring(home, None)
    home.key.unlink()
    ring.restore()
    assert home.key.read_text() == ONE + "\n"
    assert ring.other() is None
