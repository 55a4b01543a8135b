"""An engine: ipyparallel's own, in the notebooks' folder, that finds its controller again by itself.

Start with ``python -m ipython_cluster.engine ID`` in an ``IPYTHONDIR`` whose default profile has the
connection file, or let a pool fork it. The supervisor restarts it, and its control thread passes signals on,
so it needs no nanny process.
"""

from ipython_cluster._start import say_what_fits, with_notebooks, without_working_folder

without_working_folder()

import asyncio  # noqa: E402
import gc  # noqa: E402
import inspect  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

# A fifth of a second and eight megabytes an engine for a debugger that nobody can attach to one.
sys.modules.setdefault("debugpy", None)  # type: ignore[arg-type]

import zmq  # noqa: E402
from ipyparallel import error  # noqa: E402
from ipyparallel.engine import app  # noqa: E402

from ipython_cluster.channel import Channel  # noqa: E402

RETRY_MS = 2000  # between two attempts to register again


class Kernel(app.Kernel):  # type: ignore[misc]
    """ipyparallel's kernel, that also serves what ipyparallel leaves to a nanny process: signals."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.control_handlers["signal_request"] = self.signal_request
        # A shell that was made before the fork belonged to nobody.
        self.shell.kernel = self.shell.parent = self

    def signal_request(self, stream, idents, parent):
        """Send this engine a signal; answered by the control thread, while the main one computes."""
        number = parent["content"]["sig"]
        try:
            number = int(getattr(signal, number) if isinstance(number, str) else number)
            content = {"status": "ok"}
        except (AttributeError, ValueError):
            content = error.wrap_exception()
        self.session.send(stream, "signal_reply", content, parent=parent, ident=idents)
        if content["status"] == "ok":
            # To the main thread, whose sleep or read it shall end; and not before the reply is out.
            main = threading.main_thread().ident
            threading.Timer(0.02, signal.pthread_kill, (main, number)).start()


app.Kernel = Kernel  # IPEngine has no trait for it


class Engine(app.IPEngine):
    """Registers under the id it is given, tells the supervisor, registers again when the controller died."""

    asked_to_stop = False
    number = None  # what the supervisor calls us if a pool forked us: then no environment says it

    def _signal_stop(self, sig, frame):
        self.asked_to_stop = True
        super()._signal_stop(sig, frame)

    def start(self):
        self.channel = Channel() if self.number is None else Channel("engine", self.number)
        self.channel.listen()
        try:
            super().start()
        except RuntimeError:
            # With ipykernel 7 the loop ends before the kernel's own end has been awaited: nothing is wrong.
            if not self.asked_to_stop:
                raise

    def complete_registration(self, *args, **kwargs):
        result = super().complete_registration(*args, **kwargs)
        if inspect.isawaitable(result):  # a coroutine since ipyparallel 9
            return self.after(result)
        self.registered()
        return result

    async def after(self, registration):
        await registration
        self.registered()

    def registered(self):
        gc.enable()
        self.channel.send(ready=True, id=self.id, uuid=self.ident)
        threading.Thread(target=self.stay_registered, name="registration", daemon=True).start()

    def init_engine(self):
        super().init_engine()
        with_notebooks()

    def stay_registered(self):
        """Ask the controller, old or new, to know us again, each time the line to it was broken and is whole.

        Looking at heartbeats would not do: a new controller that is there within a second sends them too, to
        engines it has never heard of. A second socket to the registration port shows every reconnection.
        Kernel and the other sockets stay as they are, since libzmq connects them again to the same ports.
        """
        line = self.context.socket(zmq.DEALER)
        line.linger = 0
        line.setsockopt(zmq.IDENTITY, self.bident + b"-again")
        # A cable that was pulled closes nothing: five seconds without an answer count as broken.
        line.heartbeat_ivl = 1000
        line.heartbeat_timeout = 5000
        if self.curve_serverkey:
            line.curve_serverkey = self.curve_serverkey
            line.curve_publickey = self.curve_publickey
            line.curve_secretkey = self.curve_secretkey
        whole = line.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        line.connect(self.registration_url)
        # A session of our own: the main thread's is in use while it computes.
        session = type(self.session)(parent=self, session=self.ident)
        whole.recv_multipart()  # the first time is the one we are registered with
        poller = zmq.Poller()
        poller.register(whole, zmq.POLLIN)
        poller.register(line, zmq.POLLIN)
        asked = False
        while True:
            events = dict(poller.poll(RETRY_MS if asked else None))
            if line in events:
                line.recv_multipart()  # accepted, or "uuid in use": either way it knows us
                asked = False
            if whole in events:
                whole.recv_multipart()
            if whole in events or (asked and not events):
                session.send(line, "registration_request", content={"uuid": self.ident, "id": self.id})
                asked = True


ARGUMENTS = [
    "--log-level=INFO",
    "--IPEngine.enable_nanny=False",
    "--IPEngine.timeout=300",
    "--IPEngine.max_heartbeat_misses=0",  # the line to the hub is watched otherwise
]


def main():
    say_what_fits()
    number = ["--IPEngine.id=" + sys.argv[1]] if len(sys.argv) > 1 else []
    if sys.version_info >= (3, 14):
        asyncio.set_event_loop(asyncio.new_event_loop())  # 3.14 no longer makes one when asked for it
    Engine.launch_instance(ARGUMENTS + number)


if __name__ == "__main__":
    main()
