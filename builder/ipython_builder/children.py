"""How processes end that we watch: our children, orphans that became ours, and some that were never ours.

The supervisor asks the kernel for the orphans below it (PR_SET_CHILD_SUBREAPER). So it is the parent of
engines that a pool forked, whether that pool lives or not, and of whatever a notebook left behind.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal

from ipython_builder import processes

PR_SET_CHILD_SUBREAPER = 36
REMEMBERED = 30.0  # seconds; a pid comes again only after thousands of others


class Children:
    """Exit statuses by pid: negative for a signal, None where the kernel tells only the parent."""

    def __init__(self) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.watched: dict[int, asyncio.Future[int | None]] = {}
        # Of those that ended before anybody asked: status and time, the oldest first.
        self.ended: dict[int, tuple[int, float]] = {}
        self.loop = asyncio.get_running_loop()
        self.loop.add_signal_handler(signal.SIGCHLD, self.reap)

    def reap(self) -> None:
        """Take in all that has ended; signals of several deaths may have become one."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            future = self.watched.pop(pid, None)
            if future is None:
                self._remember(pid, code)
            elif not future.done():
                future.set_result(code)

    async def end(self, pid: int) -> int | None:
        """Wait for the end of a process and return its status."""
        if pid in self.ended:
            return self.ended.pop(pid)[0]
        future = self.watched.get(pid)
        if future is None:
            future = self.watched[pid] = self.loop.create_future()
            if processes.parent(pid) != os.getpid():
                self._poll(pid, future)
        try:
            return await asyncio.shield(future)
        finally:
            if future.done():
                self.watched.pop(pid, None)

    def _remember(self, pid: int, code: int) -> None:
        now = self.loop.time()
        while self.ended and now - next(iter(self.ended.values()))[1] > REMEMBERED:
            self.ended.pop(next(iter(self.ended)))
        self.ended.pop(pid, None)
        self.ended[pid] = code, now

    def _poll(self, pid: int, future: asyncio.Future[int | None]) -> None:
        """Watch one that is not our child, or not yet: a pidfd is readable when its process has ended."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            if not future.done():
                future.set_result(self.ended.pop(pid, (None,))[0])
            return

        def readable() -> None:
            self.loop.remove_reader(descriptor)
            os.close(descriptor)
            # It may have become our child meanwhile: then its status is about to arrive.
            self.loop.call_later(0.05, unknown)

        def unknown() -> None:
            if not future.done():
                future.set_result(None)

        self.loop.add_reader(descriptor, readable)
