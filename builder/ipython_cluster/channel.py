"""The line between the supervisor and a role: one inherited socket, one JSON object a datagram.

A role says what it has reached (``{"ready": true, ...}``), the supervisor says what the role should know.
An inherited socket needs no path, no name and no permission, and its end tells each side that the other died.
"""

import json
import os
import socket
import threading

ENVIRONMENT = "IPYTHON_NODE_CHANNEL"  # the number of the file descriptor


class Channel:
    """This process's end. Without a supervisor (a role started by hand) it says nothing to nobody."""

    def __init__(self):
        number = os.environ.pop(ENVIRONMENT, "")
        self.socket = None
        if number:
            try:
                self.socket = socket.socket(fileno=int(number))
            except (OSError, ValueError):
                return  # inherited by something that was not meant to have it
            self.socket.set_inheritable(False)

    def send(self, **message):
        """Tell the supervisor; a supervisor that is gone is no reason to stop working."""
        if self.socket is None:
            return
        try:
            self.socket.send(json.dumps(message).encode())
        except OSError:
            self.socket = None

    def listen(self, handle):
        """Call `handle(message)` in a thread of its own for each message, until the supervisor is gone."""
        if self.socket is None:
            return
        threading.Thread(
            target=self._listen, args=(self.socket, handle), name="supervisor", daemon=True
        ).start()

    @staticmethod
    def _listen(line, handle):
        while True:
            try:
                data = line.recv(65536)
            except OSError:
                return
            if not data:
                return
            handle(json.loads(data))
