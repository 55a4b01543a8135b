"""The supervisor: it starts, watches, restarts and stops the roles of one cluster, and answers for them.

``python -m ipython_builder.node HOME`` is the background process of a local cluster. It reads the record,
writes what the roles read, and then serves one unix socket: to whoever asks (status, scale, restart, stop),
and to the roles themselves, which say there what they have reached. What a killed supervisor left alive is
taken over. Liveness is the role's process: what a connection's other end does never ends a healthy one.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipython_builder import abroad, cluster, journal, keyring, logs, prepare, probe, processes, record
from ipython_builder.children import Children
from ipython_builder.errors import BuilderError
from ipython_builder.forks import Forks
from ipython_builder.journal import Life
from ipython_builder.leaving import Leaving
from ipython_builder.member import Member, spawn
from ipython_builder.record import Home, Record
from ipython_builder.roles import ROLES, environ
from ipython_builder.state import State
from ipython_builder.upkeep import Door, Lost, Upkeep

STOP_SECONDS = 20.0
ROTATE_SECONDS = 20.0
ROLE = "IPYTHON_NODE_ROLE"  # as ipython_cluster.channel reads it
LEFT_OUT = "IPYTHON_POOL_LEFT_OUT"  # as ipython_cluster.pool reads it
LINE_LIMIT = 4 << 20  # bytes of one message: ten thousand engines
SINGLE = ("controller", "pool", "viewer")


class Node:
    """The roles of one cluster. Made inside the running event loop."""

    def __init__(
        self, home: Home, made_of: Record, lives: list[Life], key: keyring.Source | None = None
    ) -> None:
        """`lives` are processes of an earlier supervisor that run already; for `key` see `run`."""
        self.home = home
        self.keyring = keyring.Keyring(home, key)
        self.record = made_of
        self.environ = environ(made_of, home, os.environ)
        self.children = Children()
        self.members: dict[tuple[str, int], Member] = {}
        # In a container what the roles say is the container's own log.
        self.logs = None if made_of.contained else home.logs
        self.forks = Forks(str(self.logs or ""))
        self.leaving = Leaving(self.members)
        self.uuids: dict[int, str] = {}  # engine number -> uuid of its last life
        self.lost = Lost(self.members)
        self.unsaved = False
        self.stopping = asyncio.Event()
        self.changing = asyncio.Lock()
        self.state = State(made_of, self.members, self.forks, self.leaving)
        self.abroad: abroad.Abroad | None = None
        if "engine" in made_of.roles and "controller" not in made_of.roles:
            self.abroad = abroad.Abroad(prepare.link(made_of, home), self.members)
            self.state.abroad = self.abroad
            self.leaving.ask = self.abroad.have_tasks
            self.note = abroad.Note(home)
            for number, (uuid, id) in self.note.former.items():
                self.abroad.lose(uuid)
                self.forks.ids[number] = id
        self.keep(made_of)
        self.writing: asyncio.TimerHandle | None = None
        self.lives = {(life.role, life.number): life for life in lives}

    # -- members -----------------------------------------------------------------------------------

    def start(self, name: str, number: int = 0, life: Life | None = None) -> None:
        """Have a member; `life` is that of one which runs already."""
        launch = self.engine if name == "engine" else self.spawn
        living, restarts = (life.pid, life.restarts) if life else (None, 0)
        member = Member(
            ROLES[name], number, self.children, launch, self.changed, living=living, restarts=restarts
        )
        self.members[name, number] = member
        if name == "pool":
            self.forks.pool = member

    async def engine(self, member: Member) -> int:
        """An engine from the pool, or, where that cannot be, like any other role."""
        return await self.forks.fork(member.number) or await self.spawn(member)

    async def spawn(self, member: Member) -> int:
        """Start a process the ordinary way."""
        prepare.write_for(member.role.name, self.record, self.home)
        said = {ROLE: f"{member.role.name} {member.number}"}
        if member.role.name == "pool":
            said[LEFT_OUT] = json.dumps(self.forks.left_out)
        wish = self.forks.ids.get(member.number, member.number)
        argv = member.role.argv(self.record, self.home, wish)
        log = self.logs / f"{member.name}.log" if self.logs else None
        return spawn(argv, self.environ | said, self.record.notebooks, log)

    def changed(self, member: Member) -> None:
        """A member said something or changed its state."""
        if member.role.name == "pool":
            self.forks.changed(member)
        elif member.role.name == "engine":
            if "uuid" in member.facts and member.pid is not None:
                self.uuids[member.number] = member.facts["uuid"]
                if self.abroad:
                    self.forks.ids[member.number] = member.facts["id"]  # its successor asks for it again
            elif member.number in self.uuids and member.pid is None:
                # The hub would notice after thirty seconds without a heartbeat; we know it now.
                self.lose(self.uuids.pop(member.number))
        elif member.role.ready == "http" and member.state == "starting" and not member.facts.get("probed"):
            member.facts["probed"] = True
            self.probe = asyncio.create_task(probe.until_answering(member, self.record, self.home))
        if self.writing is None:
            # Soon; and seldom enough that ten thousand engines leave time for other things.
            delay = 0.05 + len(self.members) / 2000
            self.writing = asyncio.get_running_loop().call_later(delay, self.write)

    def lose(self, uuid: str) -> None:
        """Tell the controller, here or elsewhere, that an engine is gone."""
        if self.abroad:
            self.abroad.lose(uuid)
        else:
            self.lost.tell(uuid)

    def numbers(self) -> set[int]:
        """Of all engines, also of those that are leaving."""
        return {number for name, number in self.members if name == "engine"}

    def write(self) -> None:
        """Tell the next supervisor who lives."""
        self.writing = None
        if self.abroad:
            ids = self.forks.ids
            self.note.write({number: (uuid, ids.get(number)) for number, uuid in self.uuids.items()})
        journal.write(
            self.home.path,
            [
                Life(name, number, member.pid, member.began, member.restarts)
                for (name, number), member in self.members.items()
                if member.pid is not None and member.began is not None
            ],
        )

    # -- what can be asked -------------------------------------------------------------------------

    async def scale(self, count: int) -> dict[str, Any]:
        """Have `count` engines: new ones are started at once, idle ones leave first."""
        if not isinstance(count, int) or not 0 <= count <= cluster.MAX_ENGINES:
            raise BuilderError(f"{count!r} engines cannot be had: 0 to {cluster.MAX_ENGINES:,} can")
        if "engine" not in self.record.roles:
            raise BuilderError("the engines of this cluster are elsewhere: scale it where it was started")
        async with self.changing:
            # What `up` has just written counts, where it did not have to restart us.
            changed = (record.load(self.home) or self.record).with_engines(count)
            if self.abroad and count > 1:
                changed = replace(changed, fork=changed.fork_asked is not False)
            before = self.record
            self.keep(changed)
            self.unsaved = True
            self.save()
            if changed.pool() != before.pool():
                await self.renew_pool()
            staying = self.numbers() - self.leaving.numbers
            self.add(count - len(staying))
            busy = await self.abroad.busy() if self.abroad and len(staying) > count else None
            self.leaving.choose(len(staying) - count, busy)
        return self.state.brief()

    async def restart(self, role: str) -> dict[str, Any]:
        """Stop and start again all members of a role."""
        if role not in ROLES:
            raise BuilderError(f"there is no role {role!r}; there are {', '.join(ROLES)}")
        async with self.changing:
            members = [member for (name, _), member in self.members.items() if name == role]
            await asyncio.gather(*(member.stop() for member in members))
            if role == "pool":
                self.forks.renew()
            for member in members:
                self.start(role, member.number)
        return self.state.now()

    async def renew_pool(self) -> None:
        """Have the pool that the record wants now; engines that run stay as they are."""
        prepare.write_pool(self.record, self.home)
        old = self.members.pop(("pool", 0), None)
        if old is not None:
            await old.stop()
        self.forks.renew()
        if self.record.fork:
            self.start("pool")

    def keep(self, changed: Record) -> None:
        """What the cluster shall be from now on, told to all that count engines."""
        self.record = changed
        self.forks.engines = self.state.requested = changed.engines
        self.forks.timeout = changed.preload_timeout

    def save(self) -> None:
        """Write down what was asked for; on a full disk, later."""
        if self.unsaved:
            try:
                record.save(self.home, self.record)
                prepare.write_connection(self.record, self.home)
                if self.abroad:
                    prepare.keep_engines(self.record, self.home)
                self.unsaved = False
            except OSError as error:
                self.state.say(f"what was asked for is not saved: {error.strerror}")
            else:
                self.state.say(None)

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "status":
                if request.get("memory"):
                    await self.state.look()
                return self.state.brief() if request.get("brief") else self.state.now()
            case "scale":
                count = request["count"] if "count" in request else self.record.engines + int(request["by"])
                return await self.scale(max(0, count) if "by" in request else count)
            case "restart":
                return await self.restart(str(request.get("role")))
            case "stop":
                self.stopping.set()
                return self.state.brief()
        raise BuilderError(f"unknown request: {request.get('do')!r}")

    # -- the socket --------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests with their answers, or a role that says what it has reached."""
        member: Member | None = None
        try:
            while line := await reader.readline():
                message = json.loads(line)
                match message.get("do"):
                    case "attach":
                        member = self.attach(message, writer)
                    case "forked":
                        self.forked(int(message["id"]), int(message["pid"]))
                    case None if member is not None:
                        member.hear(message)
                    case _:
                        writer.write(json.dumps(await self.reply(message)).encode() + b"\n")
                        await writer.drain()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # who asked is gone, or says what nobody understands
        finally:
            if member is not None:
                member.detach(writer)
            writer.close()

    def forked(self, number: int, pid: int) -> None:
        member = self.members.get(("engine", number))
        if member is None or member.pid != pid:  # else it has told us itself
            self.forks.forked(number, pid)

    def attach(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> Member | None:
        """A role has reached us. One that we do not know was started by an earlier supervisor."""
        name, number, pid = message.pop("role"), int(message.pop("id")), int(message.pop("pid"))
        del message["do"]
        member = self.members.get((name, number))
        if member is not None and member.pid is None and name == "engine":
            self.forks.forked(number, pid)  # it was faster than the word of it
        elif member is None or member.pid != pid:
            processes.end(pid)  # there is another one with its number
            return None
        member.attach(writer, message)
        if name == "controller":
            self.lost.tell_all(member)
        return member

    async def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self.answer(request)
        except BuilderError as error:
            return {"error": error.message}
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f"not a request: {error}"}
        except OSError as error:
            return {"error": f"{error.filename or self.home.path}: {error.strerror}"}

    # -- life --------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Start everything at once (who comes first waits), serve until told to stop, stop everything."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the terminal may close
        door = Door(self.home, self.serve, LINE_LIMIT)
        await door.open()
        self.start_all()
        chores = [asyncio.create_task(Upkeep(self.keyring, self.members, door, self.save).run())]
        if self.keyring.source:
            following = keyring.follow(
                self.keyring, self.record, self.leaving, self.abroad, self.stopping.set
            )
            chores.append(asyncio.create_task(following))
        if self.logs:
            chores.append(asyncio.create_task(logs.rotate(self.home.logs, ROTATE_SECONDS)))
        if self.abroad:
            chores.append(asyncio.create_task(self.abroad.watch()))
        await self.stopping.wait()
        self.state.stopping = True
        if self.abroad:
            await self.abroad.leave(self.record.grace)
        async with self.changing:
            stops = [asyncio.create_task(member.stop()) for member in self.members.values()]
            await asyncio.wait(stops, timeout=STOP_SECONDS)
        for chore in chores:
            chore.cancel()
        door.close()
        self.home.socket.unlink(missing_ok=True)

    def start_all(self) -> None:
        """Take over what lives, start what is missing."""
        for name in single_roles(self.record):
            self.start(name, life=self.lives.get((name, 0)))
        if "engine" not in self.record.roles:
            return
        here = sorted(number for name, number in self.lives if name == "engine")
        for number in here:
            self.start("engine", number, self.lives["engine", number])
        self.missing = asyncio.create_task(self.start_missing(here))

    async def start_missing(self, here: list[int]) -> None:
        """Start the engines that are wanted beside those that are `here`, under ids that are free."""
        taken = [self.members[name] for name in self.lives if name[0] in ("engine", "controller")]
        for _ in range(100):  # who is too many leaves with its name, and when its task is done
            if all(member.line is not None for member in taken):
                break
            await asyncio.sleep(0.02)
        controller = self.members.get(("controller", 0))
        if controller is not None and controller in taken:
            # It still counts those that died while nobody watched.
            for number, uuid in controller.facts.get("engines", {}).items():
                if int(number) not in here:
                    self.lost.tell(uuid)
        if controller is not None:
            self.leaving.choose(len(here) - self.record.engines)
        async with self.changing:
            self.add(self.record.engines - len(self.numbers() - self.leaving.numbers))

    def add(self, count: int) -> None:
        """Start `count` more engines, the lowest free numbers first."""
        here = self.numbers()
        free = (number for number in range(2 * cluster.MAX_ENGINES) if number not in here)
        for _ in range(count):
            number = next(free)
            if self.abroad:
                self.forks.ids.setdefault(number, None)  # the controller says which id it gets
            self.start("engine", number)


def single_roles(made_of: Record) -> list[str]:
    """The roles of which there is one here, in the order of their start."""
    return [name for name in SINGLE if name in made_of.roles and (name != "pool" or made_of.fork)]


async def supervise(home: Home, made_of: Record, lives: list[Life], key: keyring.Source | None) -> None:
    await Node(home, made_of, lives, key).live()


def main() -> None:
    """Supervise the cluster in the folder named by the first argument."""
    run(Home(Path(sys.argv[1])))


def run(home: Home, key: keyring.Source | None = None) -> None:
    """Supervise a cluster, or the part of it that is here, as the only one to do so, until told to stop.

    Args:
        key: reads the cluster key where somebody else has put it, and may put another one.
    """
    made_of = record.load(home)
    if made_of is None:
        sys.exit(f"{home.path} has no record")
    lock = home.lock.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"a supervisor of {home.label} runs already")
    os.set_inheritable(lock.fileno(), False)
    lock.truncate(0)
    try:
        print(os.getpid(), file=lock, flush=True)  # for who finds us deaf
    except OSError:
        pass  # full
    # A controller has a dozen connections an engine, we have one; the usual soft limit is 1,024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = {*single_roles(made_of), "engine"}
    lives = [life for life in journal.living(home.path) if life.role in wanted]
    # What else an earlier supervisor left when it was killed holds our ports. Consoles are somebody's work.
    spare = {life.pid for life in lives} | processes.consoles(processes.of(home.path))
    processes.sweep(home.path, spare=processes.below(spare))
    prepare.write_files(made_of, home)
    asyncio.run(supervise(home, made_of, lives, key))
    # Not where we have failed: what lives is for the next one to take over.
    processes.sweep(home.path)  # kernels and terminals that outlived the viewer
    processes.end_children()


if __name__ == "__main__":
    main()
