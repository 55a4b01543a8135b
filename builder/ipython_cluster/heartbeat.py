"""The heart monitor: slow while nothing happens, fast while an engine waits to be let in.

An engine is registered when its heart has beaten once. At ipyparallel's fixed period either that takes
seconds, or a thousand engines cost thousands of messages a second for ever.
"""

import os
import time

from ipyparallel.controller import heartmonitor
from ipyparallel.controller.heartmonitor import HeartMonitor

SLOW_SECONDS = 3.0
FAST_SECONDS = 0.25
HURRY_SECONDS = 1.5  # how long one line from the hub makes the beat fast
TOLERANCE_SECONDS = 30.0  # of silence, as ipyparallel grants: a task may not let go of the interpreter
TOGETHER_SECONDS = 0.01  # hearts that begin within this time are announced together


class Monitor(HeartMonitor):
    """Beats at its own pace. All times are monotonic: no step of the clock stops a beat or an engine.

    `line` is the reading end of a pipe; the hub writes the uuid of each engine that waits, one a line.
    """

    line = -1

    def start(self):
        self.monitor_stream.socket.recv_multipart()  # the hub has subscribed
        self.silent = {}  # heart -> seconds without an answer
        self.fresh = set()
        self.hurry = time.monotonic() + HURRY_SECONDS
        self.beaten = time.monotonic()
        self.timer = None
        self.pong_stream.socket.router_handover = True  # a heart that comes again over a new connection
        self.pong_stream.on_recv(self.handle_pong)
        if self.line >= 0:
            os.set_blocking(self.line, False)
            self.loop.add_handler(self.line, self.hear, self.loop.READ)
        self.beat()

    def pace(self):
        return FAST_SECONDS if time.monotonic() < self.hurry else SLOW_SECONDS

    def hear(self, fd, events):
        """Somebody waits: look anew at who beats, and soon."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self.loop.remove_handler(fd)
            return
        for uuid in data.split(b"\n"):
            self.hearts.discard(uuid)
        slow = time.monotonic() >= self.hurry
        self.hurry = time.monotonic() + HURRY_SECONDS
        if slow and self.timer is not None:
            self.loop.remove_timeout(self.timer)
            self.timer = self.loop.call_later(FAST_SECONDS, self.beat)

    def beat(self):
        self.timer = None
        try:
            self.pong_stream.flush()
            now = time.monotonic()
            # A monitor that was held up itself, with the whole machine perhaps, blames nobody for it.
            elapsed = min(now - self.beaten, 2 * SLOW_SECONDS)
            self.beaten = now
            dead = []
            for heart in self.hearts:
                if heart in self.responses:
                    self.silent.pop(heart, None)
                else:
                    self.silent[heart] = self.silent.get(heart, 0.0) + elapsed
                    if self.silent[heart] > TOLERANCE_SECONDS:
                        dead.append(heart)
            self.responses = set()
            if dead:
                for heart in dead:
                    del self.silent[heart]
                self.handle_heart_failure(dead)
            self.ping_stream.send(b"%.3f" % now)
            self.ping_stream.flush()
        finally:
            self.timer = self.loop.call_later(self.pace(), self.beat)

    def handle_pong(self, msg):
        heart = msg[0]
        self.responses.add(heart)
        if heart not in self.hearts:
            self.hearts.add(heart)
            if not self.fresh:
                self.loop.call_later(TOGETHER_SECONDS, self.announce)
            self.fresh.add(heart)

    def announce(self):
        fresh, self.fresh = self.fresh, set()
        self.handle_new_hearts(fresh)


def start(start_stock, line, **kwargs):
    """What the monitor's process runs: ipyparallel's own start with our monitor in it."""

    class WithLine(Monitor):
        pass

    WithLine.line = line
    heartmonitor.HeartMonitor = WithLine
    start_stock(**kwargs)
