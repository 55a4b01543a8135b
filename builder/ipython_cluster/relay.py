"""The relay of direct tasks and control messages: it opens its doors before it lets anybody through.

ØMQ drops what is sent to somebody who is not connected. When a controller was killed and started again, its
clients and engines connect again within a fifth of a second each, and what they sent meanwhile comes at once.
"""

import time

import zmq
from zmq.devices import ProcessMonitoredQueue

RECONNECTED_SECONDS = 0.3  # ØMQ tries every 0.1 to 0.2


class ProcessRelay(ProcessMonitoredQueue):
    """Its name has "Process" in it because ipyparallel looks there for what to start schedulers in."""

    def _setup_sockets(self):
        if self.in_type != zmq.ROUTER or self.out_type != zmq.ROUTER:
            return super()._setup_sockets()
        # An address that comes again is the same client over a new connection, not a second one.
        for option in (self.setsockopt_in, self.setsockopt_out):
            option(zmq.ROUTER_HANDOVER, 1)
        sockets = super()._setup_sockets()
        deadline = time.monotonic() + RECONNECTED_SECONDS
        while time.monotonic() < deadline:
            for one in sockets[:2]:
                one.getsockopt(zmq.EVENTS)  # has it look at who has connected
            time.sleep(0.02)
        return sockets
