"""What a supervisor says of its cluster: the one source for `status`, for probes and for waiting."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from ipython_builder import processes
from ipython_builder.member import FAILING, Member

if TYPE_CHECKING:
    from ipython_builder.node import Node

LOOK_AGAIN = 10  # times as long as looking took: a thousand engines take seconds


class State:
    """The state of `node` as one JSON object."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.started = time.time()
        self.looked = 0.0
        self.took = 0.0
        self.memory: dict[int, int] = {}

    def now(self) -> dict[str, Any]:
        """The `status` object; memory is as it was when somebody last looked, null if never."""
        node = self.node
        roles = [self.supervisor(), *(self.role(member) for _, member in sorted(node.members.items()))]
        requested, registered = node.record.engines, len(node.engines)
        wrong = [
            {"what": f"{role['role']} {role['id']}: {role['reason']}, restarted {role['restarts']} times",
             "since": role["since"]}
            for role in roles
            if role["state"] == "failing"
        ]  # fmt: skip
        controller = node.members["controller", 0].facts
        settled = all(role["state"] == "ready" for role in roles if role["state"] != "off")
        if node.stopping.is_set():
            state = "stopping"
        elif settled and registered == requested:
            state = "ready"
        else:
            state = "failing" if wrong else "starting"
        engines = {"requested": requested, "registered": registered, "busy": len(controller.get("busy", ()))}
        return {
            "label": node.record.label,
            "state": state,
            "engines": engines,
            "tasks": controller.get("tasks", {}),
            "memory": sum(self.memory.values()) or None,
            "roles": roles,
            "pool": {"left_out": node.forks.left_out, "refused": node.forks.refused},
            "wrong": wrong,
        }

    async def with_memory(self) -> dict[str, Any]:
        """The same, with memory as it is; looked at anew not more often than looking is worth."""
        now = time.monotonic()
        if now - self.looked > LOOK_AGAIN * self.took:
            pids = {member.pid for member in self.node.members.values() if member.pid is not None}
            self.memory = await asyncio.to_thread(processes.memory, pids | {os.getpid()})
            self.looked = time.monotonic()
            self.took = self.looked - now
        return self.now()

    def supervisor(self) -> dict[str, Any]:
        return {
            "role": "supervisor", "id": 0, "pid": os.getpid(), "state": "ready", "restarts": 0,
            "since": round(self.started, 3), "reason": None, "memory": self.memory.get(os.getpid()),
        }  # fmt: skip

    def role(self, member: Member) -> dict[str, Any]:
        state = member.state
        if member.role.name == "pool" and self.node.forks.refused:
            state = "off"
        elif member.failures >= FAILING and state != "ready":
            state = "failing"  # what has come up again is well, however often it fell before
        elif member.role.name == "engine" and member.number in self.node.leaving.numbers:
            state = "leaving"
        return {
            "role": member.role.name,
            "id": member.number,
            "pid": member.pid,
            "state": state,
            "restarts": member.restarts,
            "since": round(member.since, 3),
            "reason": self.node.forks.refused if state == "off" else member.reason,
            "memory": self.memory.get(member.pid or 0),
        }
