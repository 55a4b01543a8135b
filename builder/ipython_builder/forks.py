"""Engines from the pool: asked for together, started the ordinary way where the pool cannot or shall not."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter

from ipython_builder import processes, processors
from ipython_builder.member import FAILING, KILLED, Member

SILENCE = 30.0  # seconds without a new engine after which what the pool was told is started the ordinary way
ON_ITS_WAY = 1.0  # seconds in which an engine that was forked says so itself
TRIES = 3  # how often the pool is told to fork the same engine
LATE = 5.0  # seconds after its time is over that an import which does not let itself be interrupted may take


class Forks:
    """What the supervisor wants of the pool.

    Attributes:
        pool: the pool's member; None where nothing is forked.
        left_out: module -> why it is not preloaded.
        refused: why this pool forks nothing, or None.
        ids: number -> the id that an engine shall ask for, or None, where it is not its number.
        timeout: seconds that the import of one module may take.
    """

    def __init__(self, logs: str) -> None:
        self.logs = logs
        self.pool: Member | None = None
        self.left_out: dict[str, str] = {}
        self.refused: str | None = None
        self.waiting: dict[int, asyncio.Future[int | None]] = {}
        self.told: set[int] = set()
        self.engines = 1  # as many will share the processors
        self.ids: dict[int, int | None] = {}
        self.timeout = 30.0
        self.tries: Counter[int] = Counter()
        self.heard = 0.0  # when there was a new engine the last time; monotonic
        self.watching: asyncio.TimerHandle | None = None
        self.importing: tuple[Member, int | None, str] | None = None  # the pool, its pid, the module
        self.overdue: asyncio.TimerHandle | None = None
        self.hung: str | None = None  # the module whose import we ended

    async def fork(self, number: int) -> int | None:
        """The pid of a new engine with this number, or None where it has to be started the ordinary way."""
        if self.pool is None or self.refused:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int | None] = loop.create_future()
        self.waiting[number] = future
        loop.call_soon(self.flush)  # those of one moment in one go
        try:
            return await future
        finally:
            if self.waiting.get(number) is future:
                del self.waiting[number]
                self.told.discard(number)
                self.tries.pop(number, None)

    def forked(self, number: int, pid: int) -> None:
        """An engine is there. One that nobody waits for any more is ended: it would be there twice."""
        self.heard = time.monotonic()
        future = self.waiting.get(number)
        if future is None or future.cancelled() or (future.done() and future.result() != pid):
            processes.end(pid)
        elif not future.done():
            future.set_result(pid)

    def flush(self) -> None:
        """Tell a pool that is ready what is wanted of it."""
        wanted = [number for number, future in self.waiting.items() if not future.done()]
        if self.pool is None or self.refused:
            for number in wanted:
                self.waiting[number].set_result(None)
        elif self.pool.state == "ready":
            new = sorted(set(wanted) - self.told)
            if new:
                self.told.update(new)
                self.heard = time.monotonic()
                if self.watching is None:
                    self.watch()
                threads = max(1, processors.count() // max(1, self.engines))
                ids = {str(number): self.ids[number] for number in new if number in self.ids}
                self.pool.tell(fork=new, logs=self.logs, threads=threads, ids=ids)

    def watch(self) -> None:
        """See that nobody waits for ever for a pool that is stopped, or for a part of it that is."""
        self.watching = None
        left = [number for number in self.told if number in self.waiting]
        if not left:
            return
        rest = self.heard + SILENCE - time.monotonic()
        if rest > 0:
            self.watching = asyncio.get_running_loop().call_later(rest, self.watch)
        else:
            self.ordinary(left)

    def ordinary(self, numbers: list[int]) -> None:
        """Have these started without the pool."""
        for number in numbers:
            future = self.waiting.get(number)
            if future is not None and not future.done():
                future.set_result(None)

    def tried(self, numbers: list[int]) -> None:
        """The pool has done what it could for these. Who does not come was never forked, or was killed."""

        def again() -> None:
            missing = [number for number in numbers if number in self.told and number in self.waiting]
            self.told.difference_update(missing)
            self.tries.update(missing)
            self.ordinary([number for number in missing if self.tries[number] >= TRIES])
            self.flush()

        asyncio.get_running_loop().call_later(ON_ITS_WAY, again)

    def renew(self) -> None:
        """Begin anew, without a pool as yet: what an earlier one could not do, the next one may."""
        self.pool = None
        self.left_out = {}
        self.refused = None
        self.told.clear()

    def changed(self, pool: Member) -> None:
        """The pool said something or changed its state."""
        if pool.facts.get("left_out"):
            self.left_out |= pool.facts["left_out"]
        if pool.facts.get("tried"):
            self.tried(pool.facts.pop("tried"))
        self._time(pool)
        if pool.facts.get("refuses"):
            self.refused = pool.facts["refuses"]
            pool.wanted = False
        if pool.state == "waiting" and pool.pid is None:
            self.told.clear()  # what it was told has died with it
            self._blame(pool)
            if pool.failures >= FAILING and not pool.facts.get("ready"):
                self.refused = f"the pool does not start: {pool.reason}"
        self.flush()

    def _time(self, pool: Member) -> None:
        """End a pool that imports a module for too long: the module may have switched its own alarm off."""
        name = pool.facts.get("importing")
        now = (pool, pool.pid, name) if name else None
        if now == self.importing:
            return
        self.importing = now
        if self.overdue is not None:
            self.overdue.cancel()
            self.overdue = None
        if name and pool.pid is not None:
            loop = asyncio.get_running_loop()
            self.overdue = loop.call_later(self.timeout + LATE, self._end, pool, pool.pid, name)

    def _end(self, pool: Member, pid: int, name: str) -> None:
        if pool.pid == pid and pool.facts.get("importing") == name:
            self.hung = name
            processes.end(pid)

    def _blame(self, pool: Member) -> None:
        """Leave out the module whose import ended the pool; not where somebody killed it just then."""
        name = pool.facts.pop("importing", None)
        hung = (name is not None and name == self.hung) or pool.code == -signal.SIGALRM
        self.hung = None
        if name and pool.code is not None and (hung or pool.code not in (KILLED, -signal.SIGTERM)):
            why = "its import took too long" if hung else f"the pool {pool.reason} while it was imported"
            self.left_out[name] = why
            pool.forgive()  # that was progress
