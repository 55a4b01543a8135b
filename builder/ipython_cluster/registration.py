"""How an engine stays known to its controller, old or new.

Looking at heartbeats would not do: a new controller that is there within a second sends them too, to
engines it has never heard of. A second socket to the registration port shows every reconnection. Kernel and
the other sockets stay as they are, since libzmq connects them again to the same ports. Each of them does so
in its own time, which is seconds where names are slow to be found, and what is sent to it before is lost: so
the hub is asked again when the last of them is back, and has the clients look after their tasks.
"""

import os
import threading
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

RETRY_MS = 2000  # between two attempts to register again
AGAIN, FOLLOW = b"a", b"f"  # what the thread is told
CONNECT_MS = 3000
HANDSHAKE_MS = 10_000
HURRIED = ((zmq.CONNECT_TIMEOUT, CONNECT_MS), (zmq.HANDSHAKE_IVL, HANDSHAKE_MS))


def hurry(what):
    """Have a socket, or all that a context will make, try anew where the other end says nothing.

    The system repeats a first packet that got lost after 1, 3, 7, 15 and 31 seconds: a network that is whole
    again would be noticed late. libzmq waits thirty seconds for a handshake.
    """
    for option, value in HURRIED:
        what.setsockopt(option, value)


class Registration:
    """Asks the controller to know an engine again, each time the line to it was broken and is whole.

    Attributes:
        done: whether the engine is registered with a controller, which may have died since.
    """

    def __init__(self, engine):
        self.engine = engine
        self.done = False
        self.tasks: Any = None
        self.reached = threading.Event()
        self.hearing, self.telling = os.pipe()

    def watch(self):
        """Watch from now on; returns when there is a controller, or the engine has waited in vain.

        The first connection is then one from before the first word, and every later one a reason to ask.
        """
        threading.Thread(target=self.run, name="registration", daemon=True).start()
        self.reached.wait(self.engine.timeout)

    def told(self, message):
        """The supervisor knows that the controller does not know us."""
        if message.get("register"):
            os.write(self.telling, AGAIN)

    def follow(self, socket):
        """Ask too when one of this socket's connections is whole again; called in the socket's own thread."""
        self.tasks = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        os.write(self.telling, FOLLOW)

    def connect(self):
        engine = self.engine
        line = engine.context.socket(zmq.DEALER)
        line.linger = 0
        line.setsockopt(zmq.IDENTITY, engine.bident + b"-again")
        # A cable that was pulled closes nothing: five seconds without an answer count as broken.
        line.heartbeat_ivl = 1000
        line.heartbeat_timeout = 5000
        if engine.curve_serverkey:
            line.curve_serverkey = engine.curve_serverkey
            line.curve_publickey = engine.curve_publickey
            line.curve_secretkey = engine.curve_secretkey
        whole = line.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        line.connect(engine.registration_url)
        return line, whole

    def run(self):
        engine = self.engine
        line, whole = self.connect()
        # A session of our own: the main thread's is in use while it computes.
        session = type(engine.session)(parent=engine, session=engine.ident)
        whole.recv_multipart()
        self.reached.set()
        poller = zmq.Poller()
        for source in (whole, line, self.hearing):
            poller.register(source, zmq.POLLIN)
        unsure = False
        broken = set()  # addresses whose connections tasks would come by
        while True:
            events = dict(poller.poll(RETRY_MS if unsure else None))
            again = unsure and not events
            if line in events:
                line.recv_multipart()  # accepted, or "uuid in use": either way it knows us
                unsure = False
            if whole in events:
                whole.recv_multipart()
                again = True
            if self.hearing in events:
                said = os.read(self.hearing, 4096)
                again = again or bool(said.replace(FOLLOW, b""))
                if FOLLOW in said:
                    poller.register(self.tasks, zmq.POLLIN)
            if self.tasks in events:
                event = parse_monitor_message(self.tasks.recv_multipart())
                if event["event"] == zmq.EVENT_DISCONNECTED:
                    broken.add(event["endpoint"])
                elif event["endpoint"] in broken:
                    broken.discard(event["endpoint"])
                    again = again or not broken
            if again:
                unsure = True
                if self.done:
                    content = {"uuid": engine.ident, "id": engine.id}
                    session.send(line, "registration_request", content=content)
                else:
                    engine.loop.add_callback(engine.register_again)
