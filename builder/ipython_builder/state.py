"""What a supervisor says of its cluster: the one source for `status`, for probes and for waiting."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from ipython_builder import processes
from ipython_builder.abroad import Abroad
from ipython_builder.forks import Forks
from ipython_builder.leaving import Leaving
from ipython_builder.member import FAILING, Member
from ipython_builder.record import Record

LOOK_AGAIN = 10  # times as long as looking took: a thousand engines take seconds


class State:
    """The state of a supervisor's members as one JSON object."""

    def __init__(
        self, made_of: Record, members: dict[tuple[str, int], Member], forks: Forks, leaving: Leaving
    ) -> None:
        self.label = made_of.label
        self.roles = set(made_of.roles)
        self.members = members
        self.forks = forks
        self.leaving = leaving
        self.abroad: Abroad | None = None
        self.requested = 0
        self.trouble: str | None = None  # of the supervisor itself
        self.since = 0.0
        self.stopping = False
        self.started = time.time()
        self.looked = 0.0
        self.took = 0.0
        self.memory: dict[int, int] = {}

    def say(self, trouble: str | None) -> None:
        """What the supervisor itself cannot do, or None."""
        if trouble != self.trouble:
            self.trouble, self.since = trouble, time.time()

    def now(self) -> dict[str, Any]:
        """The `status` object; memory is as it was when somebody last looked, null if never."""
        members = [self.role(member) for _, member in sorted(self.members.items())]
        return self._of([self.supervisor(), *members])

    def brief(self) -> dict[str, Any]:
        """The same for who waits: of the engines it names only those that fail."""
        well = {"engine": "ready"}  # a thousand times the same
        roles = [
            self.role(member)
            for _, member in sorted(self.members.items())
            if well.get(member.role.name) != member.state
        ]
        few = [role for role in roles if role["role"] != "engine" or role["state"] == "failing"]
        return self._of([self.supervisor(), *roles]) | {"roles": few}

    def _of(self, roles: list[dict[str, Any]]) -> dict[str, Any]:
        wrong = [self.wrong(one) for _, one in sorted(self.members.items()) if one.failures >= FAILING]
        if self.trouble:
            wrong.append({"what": self.trouble, "since": self.since, "role": "supervisor", "up": True})
        controller = self.members.get(("controller", 0))
        said = controller.facts if controller is not None and controller.state == "ready" else {}
        if controller is not None:
            registered = len(said.get("engines", ()))
        else:
            registered = sum(
                1 for (name, _), one in self.members.items() if name == "engine" and one.state == "ready"
            )
        # A controller alone has as many as come.
        requested = self.requested if controller is None or "engine" in self.roles else registered
        if self.abroad and self.abroad.trouble:
            said_of = {"role": "engine", "up": False}
            wrong.append({"what": self.abroad.trouble, "since": self.abroad.since} | said_of)
        settled = all(role["state"] == "ready" for role in roles if role["state"] != "off")
        if self.stopping:
            state = "stopping"
        elif settled and registered == requested:
            state = "ready"
        else:
            state = "failing" if any(not one["up"] for one in wrong) else "starting"
        return {
            "label": self.label,
            "state": state,
            "engines": {
                "requested": requested,
                "registered": registered,
                "busy": len(said.get("busy", ())),
            },
            "tasks": said.get("tasks", {}),
            "memory": sum(self.memory.values()) or None,
            "roles": roles,
            "pool": {"left_out": self.forks.left_out, "refused": self.forks.refused},
            "wrong": wrong,
        }

    async def look(self) -> None:
        """Look how much memory there is in use; not more often than looking is worth."""
        now = time.monotonic()
        if now - self.looked > LOOK_AGAIN * self.took:
            pids = {member.pid for member in self.members.values() if member.pid is not None}
            self.memory = await asyncio.to_thread(processes.memory, pids | {os.getpid()})
            self.looked = time.monotonic()
            self.took = self.looked - now

    def supervisor(self) -> dict[str, Any]:
        return {
            "role": "supervisor", "id": 0, "pid": os.getpid(), "state": "ready", "restarts": 0,
            "since": round(self.started, 3), "reason": None, "memory": self.memory.get(os.getpid()),
        }  # fmt: skip

    def wrong(self, member: Member) -> dict[str, Any]:
        """One that dies again and again; `up` is whether it is there just now."""
        what = f"{member.role.name} {member.number}: {member.reason}, restarted {member.restarts} times"
        up = member.state == "ready" or self.role(member)["state"] == "off"
        return {"what": what, "since": round(member.trouble, 3), "role": member.role.name, "up": up}

    def role(self, member: Member) -> dict[str, Any]:
        state = member.state
        if member.role.name == "pool" and self.forks.refused:
            state = "off"
        elif member.failures >= FAILING and state != "ready":
            state = "failing"  # what has come up again is well, however often it fell before
        elif member.role.name == "engine" and member.number in self.leaving.numbers:
            state = "leaving"
        return {
            "role": member.role.name,
            "id": member.number,
            "pid": member.pid,
            "state": state,
            "restarts": member.restarts,
            "since": round(member.since, 3),
            "reason": self.forks.refused if state == "off" else member.reason,
            "memory": self.memory.get(member.pid or 0),
        }
