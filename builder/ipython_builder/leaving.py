"""Engines that leave: the idle ones first, a busy one when its task is done or its grace time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ipython_builder.member import Member

GRACE_SECONDS = 30.0  # in which a task may finish
TOLD_SECONDS = 0.3  # until the controller has stopped giving tasks to who leaves, and said who is busy
POLL = 0.1
AT_ONCE = 64  # interpreters that end side by side; more only make all of them slower


class Leaving:
    """Who of a supervisor's `members` leaves, by number; it takes them off its list when they are gone."""

    def __init__(self, members: dict[tuple[str, int], Member]) -> None:
        self.members = members
        self.numbers: set[int] = set()
        # Where the controller is elsewhere: has it send these no more tasks; whether one still has one.
        self.ask: Callable[[list[str]], Awaitable[bool]] | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.places = asyncio.Semaphore(AT_ONCE)

    def busy(self) -> set[int]:
        """Engines with a task, as the controller says."""
        controller = self.members.get(("controller", 0))
        return set(controller.facts.get("busy", ())) if controller else set()

    def choose(self, count: int, busy: set[int] | None = None) -> None:
        """Let `count` engines leave: those not ready, then idle ones, then busy ones; high ids first.

        Args:
            busy: who is, where the controller is elsewhere.
        """
        if count <= 0:
            return
        busy = self.busy() if busy is None else busy
        staying = [
            member
            for (name, number), member in self.members.items()
            if name == "engine" and number not in self.numbers
        ]
        # The id that people see is the controller's to give, where that is elsewhere.
        ids = {member: int(member.facts.get("id", member.number)) for member in staying}
        staying.sort(key=lambda member: (member.state == "ready", member.number in busy, -ids[member]))
        leaving = staying[:count]
        self.numbers.update(member.number for member in leaving)
        uuids = [member.facts["uuid"] for member in leaving if "uuid" in member.facts]
        if ("controller", 0) in self.members:
            self.members["controller", 0].tell(leaving=uuids)
        for member in leaving:
            task = asyncio.create_task(self.leave(member))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def has_task(self, member: Member) -> bool:
        """Whether the engine has one, and gets no other."""
        if self.ask is None:
            return member.number in self.busy()
        return "uuid" in member.facts and await self.ask([member.facts["uuid"]])

    async def leave(self, member: Member) -> None:
        """Wait for the engine's task, then stop it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GRACE_SECONDS
        if member.state == "ready":
            member.wanted = False  # if it dies now, nobody misses it
            await asyncio.sleep(TOLD_SECONDS)
            while await self.has_task(member) and member.pid is not None and loop.time() < deadline:
                await asyncio.sleep(POLL)
        async with self.places:
            await member.stop()
        self.numbers.discard(member.number)
        self.members.pop(("engine", member.number), None)
