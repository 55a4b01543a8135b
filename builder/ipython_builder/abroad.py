"""Engines whose controller is elsewhere: what a supervisor does for them that a controller beside it would.

They may come before it, and it may go and come again: then they wait, and the log says for what. It learns at
once of those that die, and those that shall stop finish their task first.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from ipython_builder.cluster import Link
from ipython_builder.herald import Herald
from ipython_builder.member import Member
from ipython_builder.record import Home, write_private

FIRST_LOOK = 2.0  # seconds in which a start that goes well needs no words
LOOK = 5.0
ROLL_SECONDS = (
    15.0  # between two looks whether the controller knows engines that are ready; an engine more adds
)
ROLL_OF_ONE = 0.1
ABSENT = 3  # looks in a row: by then no registration is under way any more
POLL = 0.2


class Abroad:
    """The engines among `members`, and the line to the controller that `link` leads to.

    Attributes:
        trouble: why engines wait to be registered, or None.
        since: when that began, in seconds of the clock.
    """

    def __init__(self, link: Link, members: dict[tuple[str, int], Member]) -> None:
        self.herald = Herald(link)
        self.members = members
        self.trouble: str | None = None
        self.since = time.time()
        self.tasks: set[asyncio.Task[None]] = set()
        self.absent: dict[str, int] = {}  # uuid of an engine -> looks in a row that it was not known

    def lose(self, uuid: str) -> None:
        """The engine is dead: its tasks shall be reported as failed, and its id be free."""
        task = asyncio.create_task(self.herald.tell("lost_request", engines=[uuid]))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def watch(self) -> None:
        """Say for what engines wait, as long as they do, and call the roll of the others; never returns."""
        await asyncio.sleep(FIRST_LOOK)
        roll = time.monotonic() + ROLL_SECONDS
        while True:
            waiting = any(
                name == "engine" and one.state != "ready" for (name, _), one in self.members.items()
            )
            trouble = None
            if waiting or time.monotonic() > roll:
                answer = await self.herald.ask("connection_request")
                if answer is not None and time.monotonic() > roll:
                    known = set((answer.get("engines") or {}).values())
                    self.call_roll(known)
                    roll = time.monotonic() + ROLL_SECONDS + ROLL_OF_ONE * len(known)
                if waiting and answer is None:
                    trouble = await self.herald.trouble()
            if trouble != self.trouble:
                self.trouble, self.since = trouble, time.time()
                if trouble:
                    say(f"{trouble}; engines wait, and look again every few seconds")
                else:
                    say("the controller answers")
            await asyncio.sleep(LOOK)

    def call_roll(self, known: set[str]) -> None:
        """Tell engines that are ready, and that the controller does not know, to register again.

        It forgets an engine whose registration took too long, and the engine does not learn of that.
        """
        ready = [
            one
            for (name, _), one in self.members.items()
            if name == "engine" and one.state == "ready" and "uuid" in one.facts
        ]
        self.absent = {
            uuid: self.absent.get(uuid, 0) + 1 for one in ready if (uuid := one.facts["uuid"]) not in known
        }
        for one in ready:
            if self.absent.get(one.facts["uuid"], 0) >= ABSENT:
                number = one.facts.get("id", one.number)
                say(f"the controller does not know engine {number}: it registers again")
                one.tell(register=True)
                del self.absent[one.facts["uuid"]]

    async def busy(self) -> set[int]:
        """The numbers of our engines that have a task; none where nobody answers."""
        answer = await self.herald.ask("busy_request") or {}
        ids = set(answer.get("busy", ()))
        return {
            number
            for (name, number), one in self.members.items()
            if name == "engine" and one.facts.get("id") in ids
        }

    async def have_tasks(self, uuids: list[str]) -> bool:
        """Have the controller send these no more tasks; whether one of them still has one."""
        answer = await self.herald.ask("leaving_request", engines=uuids)
        return answer is not None and bool(answer.get("busy"))

    async def leave(self, grace: float) -> None:
        """Have the controller send no more tasks, and wait up to `grace` seconds for those that run."""
        uuids = [one.facts["uuid"] for one in self.members.values() if "uuid" in one.facts]
        for one in self.members.values():
            one.wanted = False  # who ends now is not missed
        deadline = time.monotonic() + grace
        while uuids and time.monotonic() < deadline:
            if not await self.have_tasks(uuids):
                break
            await asyncio.sleep(POLL)
        await self.herald.tell("lost_request", engines=uuids)


class Note:
    """Number -> uuid and id of the engines here, in a file for the next life of this container's volume.

    It is of use to who has it alone. Where another container that lives has the same volume, nothing is
    noted, and none of its engines is taken for dead.

    Attributes:
        former: what an earlier life has noted, and has not been replaced: all of these are dead.
    """

    def __init__(self, home: Home) -> None:
        self.path = home.registered
        self.former: dict[int, tuple[str, int | None]] = {}
        self.lock: IO[str] | None = None
        try:
            self.lock = self.path.with_suffix(".lock").open("w")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # no such folder, a full disk, or somebody else has it
            self.close()
            return
        with suppress(OSError, ValueError, TypeError, AttributeError):
            engines = json.loads(self.path.read_text())
            self.former = {int(number): (str(uuid), id) for number, (uuid, id) in engines.items()}

    def write(self, engines: Mapping[int, tuple[str, int | None]]) -> None:
        """Note these; of the former ones those are kept that have no successor yet."""
        if self.lock:
            self.former = {number: one for number, one in self.former.items() if number not in engines}
            with suppress(OSError):  # the controller then forgets them when it misses their heartbeats
                write_private(self.path, json.dumps({**self.former, **engines}) + "\n")

    def close(self) -> None:
        if self.lock:
            self.lock.close()
            self.lock = None


def say(text: str) -> None:
    """A line in the container's log."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)
