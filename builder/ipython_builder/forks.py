"""Engines from the pool: asked for together, started the ordinary way where the pool cannot or shall not."""

from __future__ import annotations

import asyncio
import signal

from ipython_builder import processes, processors
from ipython_builder.member import FAILING, KILLED, Member


class Forks:
    """What the supervisor wants of the pool.

    Attributes:
        pool: the pool's member; None where nothing is forked.
        left_out: module -> why it is not preloaded.
        refused: why this pool forks nothing, or None.
        ids: number -> the id that an engine shall ask for, or None, where it is not its number.
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

    def forked(self, number: int, pid: int) -> None:
        """An engine is there. One that nobody waits for any more is ended: it would be there twice."""
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
                threads = max(1, processors.count() // max(1, self.engines))
                ids = {str(number): self.ids[number] for number in new if number in self.ids}
                self.pool.tell(fork=new, logs=self.logs, threads=threads, ids=ids)

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
        if pool.facts.get("refuses"):
            self.refused = pool.facts["refuses"]
            pool.wanted = False
        if pool.state == "waiting" and pool.pid is None:
            self.told.clear()  # what it was told has died with it
            self._blame(pool)
            if pool.failures >= FAILING:
                self.refused = f"the pool does not start: {pool.reason}"
        self.flush()

    def _blame(self, pool: Member) -> None:
        """Leave out the module whose import ended the pool; not where somebody killed it just then."""
        name = pool.facts.pop("importing", None)
        if name and pool.code is not None and pool.code not in (KILLED, -signal.SIGTERM):
            hung = pool.code == -signal.SIGALRM
            why = "its import took too long" if hung else f"the pool {pool.reason} while it was imported"
            self.left_out[name] = why
            pool.failures = 0  # that was progress
