"""What a supervisor looks after once a second: its socket, its files, and who has slipped through.

Each of these has another cause that should have been prevented; nobody waits for ever where it was not.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from ipython_builder import control, starved
from ipython_builder.keyring import Keyring
from ipython_builder.member import Member
from ipython_builder.record import Home

EVERY = 1.0
ASK_AGAIN = 5  # looks after which an engine is told to register: its news may be on their way
GONE_SECONDS = 60.0  # after which no controller has a task of a dead engine: it waits thirty itself
MOST_GONE = 20_000

Members = dict[tuple[str, int], Member]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Door:
    """The socket at which a supervisor is asked; made again when somebody has removed it."""

    def __init__(self, home: Home, serve: Serve, limit: int) -> None:
        self.home = home
        self.serve = serve
        self.limit = limit
        self.server: asyncio.Server | None = None

    async def open(self) -> None:
        self.close()
        # Not start_unix_server: it looks at the socket's name, which led there only while it was bound.
        self.server = await asyncio.start_server(
            self.serve, sock=control.listen(self.home.socket), limit=self.limit
        )

    async def look(self) -> None:
        if not self.home.socket.exists():
            try:
                await self.open()
            except OSError:
                return  # its folder is gone, or the disk is full: later

    def close(self) -> None:
        if self.server is not None:
            self.server.close()


class Lost:
    """Engines that have died, for the controller that runs and for the next one: it finds their tasks."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.gone: deque[tuple[float, str]] = deque(maxlen=MOST_GONE)

    def tell(self, uuid: str) -> None:
        self.gone.append((time.monotonic(), uuid))
        if ("controller", 0) in self.members:
            self.members["controller", 0].tell(lost=uuid)

    def tell_all(self, controller: Member) -> None:
        """Tell a controller that has just come; the one before may have died with the news."""
        while self.gone and time.monotonic() - self.gone[0][0] > GONE_SECONDS:
            self.gone.popleft()
        for _, uuid in self.gone:
            controller.tell(lost=uuid)


class Upkeep:
    """The looks."""

    def __init__(self, keyring: Keyring, members: Members, door: Door, save: Callable[[], None]) -> None:
        """`save` writes what could not be written before, if anything."""
        self.keyring = keyring
        self.members = members
        self.door = door
        self.save = save
        self.absent: dict[
            str, int
        ] = {}  # uuid of an engine -> looks in a row that the controller did not know it

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(EVERY)
            starved.KILLS.look()
            await self.door.look()
            self.save()
            self.keyring.restore()
            self.call_roll()

    def call_roll(self) -> None:
        """Tell engines that are ready, and that the controller does not know, to register again."""
        controller = self.members.get(("controller", 0))
        if controller is None or controller.state != "ready":
            self.absent = {}
            return
        known = set(controller.facts.get("engines", {}).values())
        absent = {}
        for (name, _), member in self.members.items():
            uuid = member.facts.get("uuid")
            if name == "engine" and member.state == "ready" and uuid and uuid not in known:
                absent[uuid] = self.absent.get(uuid, 0) + 1
                if absent[uuid] % ASK_AGAIN == 0:
                    member.tell(register=True)
        self.absent = absent
