"""How an engine stays known to its controller, old or new.

Looking at heartbeats would not do: a new controller that is there within a second sends them too, to
engines it has never heard of. A second socket to the registration port shows every reconnection. Kernel and
the other sockets stay as they are, since libzmq connects them again to the same ports.
"""

import os
import threading

import zmq

RETRY_MS = 2000  # between two attempts to register again


class Registration:
    """Asks the controller to know an engine again, each time the line to it was broken and is whole.

    Attributes:
        done: whether the engine is registered with a controller, which may have died since.
    """

    def __init__(self, engine):
        self.engine = engine
        self.done = False
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
            os.write(self.telling, b".")

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
        while True:
            events = dict(poller.poll(RETRY_MS if unsure else None))
            if line in events:
                line.recv_multipart()  # accepted, or "uuid in use": either way it knows us
                unsure = False
            if whole in events:
                whole.recv_multipart()
            if self.hearing in events:
                os.read(self.hearing, 4096)
            if whole in events or self.hearing in events or (unsure and not events):
                unsure = True
                if self.done:
                    content = {"uuid": engine.ident, "id": engine.id}
                    session.send(line, "registration_request", content=content)
                else:
                    engine.loop.add_callback(engine.register_again)
