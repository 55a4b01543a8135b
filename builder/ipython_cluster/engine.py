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

from ipyparallel import error  # noqa: E402
from ipyparallel.engine import app  # noqa: E402

from ipython_cluster import lending, sharing  # noqa: E402
from ipython_cluster.channel import Channel  # noqa: E402
from ipython_cluster.registration import HURRIED, Registration, hurry  # noqa: E402


class Kernel(app.Kernel):  # type: ignore[misc]
    """ipyparallel's kernel, that also serves what ipyparallel leaves to a nanny process: signals."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.control_handlers["signal_request"] = self.signal_request
        self.applying = None  # the task that the main thread does
        # A shell that was made before the fork belonged to nobody.
        self.shell.kernel = self.shell.parent = self

    def do_apply(self, content, bufs, msg_id, reply_metadata):
        self.applying = msg_id
        try:
            return super().do_apply(content, bufs, msg_id, reply_metadata)
        finally:
            self.applying = None

    def signal_request(self, stream, idents, parent):
        """Send this engine a signal; answered by the control thread, while the main one computes.

        Where the request names tasks (``only``), then only while it does one of them.
        """
        number, only = parent["content"]["sig"], parent["content"].get("only")
        try:
            number = int(getattr(signal, number) if isinstance(number, str) else number)
            content = {"status": "ok"}
        except (AttributeError, ValueError):
            content = error.wrap_exception()
        self.session.send(stream, "signal_reply", content, parent=parent, ident=idents)
        if content["status"] == "ok":
            # To the main thread, whose sleep or read it shall end; and not before the reply is out.
            threading.Timer(0.02, self.deliver, (number, only)).start()

    def deliver(self, number, only):
        if only is None or self.applying in only:
            signal.pthread_kill(threading.main_thread().ident, number)  # type: ignore[arg-type]


class Heart(app.Heart):  # type: ignore[misc]
    """ipyparallel's heart, whose sockets have a context of their own."""

    def start(self):
        # Without this it may beat again two minutes after the engine is registered, and is taken for dead.
        for option, value in HURRIED:
            self.device.setsockopt_in(option, value)
            self.device.setsockopt_out(option, value)
        return super().start()


app.Kernel, app.Heart = Kernel, Heart  # IPEngine has no traits for them


class Engine(app.IPEngine):
    """Registers under the id it is given, tells the supervisor, registers again when the controller died."""

    asked_to_stop = False
    answered = False  # whether a controller has answered our first word
    number = None  # what the supervisor calls us if a pool forked us: then no environment says it

    def _signal_stop(self, sig, frame):
        self.asked_to_stop = True
        super()._signal_stop(sig, frame)

    def start(self):
        sharing.install()
        self.ident = lending.located(self.ident)
        self.channel = Channel() if self.number is None else Channel("engine", self.number)
        self.registration = Registration(self)
        self.channel.listen(self.registration.told)
        try:
            super().start()
        except RuntimeError:
            # With ipykernel 7 the loop ends before the kernel's own end has been awaited: nothing is wrong.
            if not self.asked_to_stop:
                raise

    def register(self):
        hurry(self.context)
        # Watched from before the first word: the controller that heard it may die before another knows us.
        self.registration.watch()
        return super().register()

    def register_again(self):
        """Say the first word once more, in the main thread's loop, as long as nobody has answered it."""
        if not self.answered:
            content = {"uuid": self.ident} if self.id is None else {"uuid": self.ident, "id": self.id}
            self.session.send(self.registrar, "registration_request", content=content)

    def complete_registration(self, *args, **kwargs):
        if self.answered:
            return None  # the answer to a word that was said twice
        self.answered = True
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
        self.registration.done = True
        streams = getattr(self.kernel, "shell_streams", ())  # ipyparallel 8 keeps the socket there only
        socket = getattr(self, "shell_socket", None) or (streams[0].socket if streams else None)
        if socket is not None:
            self.registration.follow(socket)
        self.channel.send(ready=True, id=self.id, uuid=self.ident)

    def init_engine(self):
        super().init_engine()
        with_notebooks()


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
