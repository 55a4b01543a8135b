"""The line between the supervisor and a role: its unix socket, one JSON object a line.

A role says who it is and what it has reached, the supervisor says what the role should know. A role outlives
its supervisor, and says all of it again to the next one, which learns that way who lives.
"""

import json
import os
import socket
import threading
import time

ADDRESS = "IPYTHON_NODE_SOCKET"
ROLE = "IPYTHON_NODE_ROLE"  # for a process that is started: its role and number, as in "engine 3"
RETRY = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between two attempts to reach a supervisor that is gone


def connect(path):
    """A socket connected to the one at `path`, however long that path is.

    Raises:
        OSError: nobody listens there.
    """
    line = socket.socket(socket.AF_UNIX)
    # The folder's descriptor keeps the address short enough for a socket.
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        line.connect("/proc/self/fd/{}/{}".format(folder, os.path.basename(path)))
    except OSError:
        line.close()
        raise
    finally:
        os.close(folder)
    return line


class Channel:
    """This process's end. Without a supervisor (a role started by hand) it says nothing to nobody."""

    def __init__(self, role=None, number=0):
        told = os.environ.pop(ROLE, "")  # our children are not what we are
        if role is None and told:
            role, _, number = told.partition(" ")
        self.path = os.environ.get(ADDRESS, "") if role else ""
        self.facts = {"do": "attach", "role": role, "id": int(number), "pid": os.getpid()}
        self.lock = threading.Lock()
        self.socket = None
        self.connect()

    def connect(self):
        """Reach the supervisor and tell it all that we have told before; whether that worked."""
        if not self.path:
            return False
        try:
            line = connect(self.path)
        except OSError:
            return False
        with self.lock:
            self.socket = line
            self._write(line, self.facts)
            return self.socket is not None

    def send(self, **message):
        """Tell the supervisor; one that is gone is no reason to stop working, the next will hear it too."""
        with self.lock:
            self.facts.update(message)
            if self.socket is not None:
                self._write(self.socket, message)

    def say(self, **message):
        """Tell this supervisor, and no other: it is nothing that lasts."""
        with self.lock:
            if self.socket is not None:
                self._write(self.socket, message)

    def _write(self, line, message):
        data = json.dumps(message).encode() + b"\n"
        try:
            # It may be stopped: then nobody waits for it here, and it hears all of it when it is back.
            whole = line.send(data, socket.MSG_DONTWAIT) == len(data)
        except OSError:
            whole = False
        if not whole:
            try:
                line.shutdown(socket.SHUT_RDWR)  # who reads it sees its end, and connects anew
            except OSError:
                pass
            self.socket = None

    def messages(self):
        """What the supervisor says, one message after the other; for ever, since a new one is waited for."""
        if not self.path:
            return
        while True:
            line = self.socket
            if line is not None:
                with line, line.makefile("rb") as reader:
                    try:
                        for data in reader:
                            yield json.loads(data)
                    except (OSError, ValueError):
                        pass
                with self.lock:
                    if self.socket is line:
                        self.socket = None
            for attempt in range(10**9):
                if self.connect():
                    break
                time.sleep(RETRY[min(attempt, len(RETRY) - 1)])

    def listen(self, handle=lambda message: None):
        """Call `handle(message)` in a thread of its own for each message."""
        if self.path:
            threading.Thread(target=self._listen, args=(handle,), name="supervisor", daemon=True).start()

    def _listen(self, handle):
        for message in self.messages():
            handle(message)
