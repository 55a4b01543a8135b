"""An engine: ipyparallel's own, in the notebooks' folder, that finds its controller again by itself.

Start with ``python -m ipython_cluster.engine ID`` in an ``IPYTHONDIR`` whose default profile has the
connection file. The supervisor restarts it and passes signals on, so it needs no nanny process.
"""

from ipython_cluster._start import with_notebooks, without_working_folder

without_working_folder()

import asyncio  # noqa: E402
import inspect  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

# A fifth of a second and eight megabytes an engine for a debugger that nobody can attach to one.
sys.modules.setdefault("debugpy", None)  # type: ignore[arg-type]

import zmq  # noqa: E402
from ipyparallel.engine.app import IPEngine  # noqa: E402

from ipython_cluster.channel import Channel  # noqa: E402

SILENCE = 3.0  # seconds without a heartbeat after which the controller counts as gone
RETRY = 2.0  # seconds between two attempts to register again


class Engine(IPEngine):
    """Registers under the id it is given, tells the supervisor, registers again when the controller died."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.channel = Channel()

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
        self.channel.send(ready=True, id=self.id, uuid=self.ident)
        threading.Thread(target=self.stay_registered, name="registration", daemon=True).start()

    def init_engine(self):
        super().init_engine()
        with_notebooks()

    def stay_registered(self):
        """Watch the heartbeat; after a silence ask the controller, old or new, to know us again.

        The main thread may be busy with a task for hours, and then nobody counts beats: asking is harmless,
        a controller that still has us says ``in use``. Sockets and kernel stay as they are, since libzmq
        connects them again to the same ports.
        """
        while True:
            time.sleep(SILENCE / 6)
            if self._hb_last_pinged and time.time() - self._hb_last_pinged > SILENCE:
                if self.register_again():
                    self._hb_last_pinged = time.time()
                else:
                    time.sleep(RETRY)

    def register_again(self):
        """One registration request from a socket of its own; True when the controller answered."""
        line = self.context.socket(zmq.DEALER)
        line.linger = 0
        line.setsockopt(zmq.IDENTITY, self.bident + b"-again")
        if self.curve_serverkey:
            line.curve_serverkey = self.curve_serverkey
            line.curve_publickey = self.curve_publickey
            line.curve_secretkey = self.curve_secretkey
        # A session of our own: the main thread's is in use while it computes.
        session = type(self.session)(parent=self, session=self.ident)
        try:
            line.connect(self.registration_url)
            session.send(line, "registration_request", content={"uuid": self.ident, "id": self.id})
            return bool(line.poll(int(RETRY * 1000)))
        finally:
            line.close()


def main():
    number = sys.argv[1] if len(sys.argv) > 1 else None
    arguments = [
        "--log-level=INFO",
        "--IPEngine.enable_nanny=False",
        "--IPEngine.timeout=300",
        "--IPEngine.max_heartbeat_misses=1000000000",
    ]
    if number is not None:
        arguments.append("--IPEngine.id=" + number)
    if sys.version_info >= (3, 14):
        asyncio.set_event_loop(asyncio.new_event_loop())  # 3.14 no longer makes one when asked for it
    Engine.launch_instance(arguments)


if __name__ == "__main__":
    main()
