"""The controller: ipyparallel's own, told its ports and keys by ``controller.json`` instead of choosing them.

Start with ``python -m ipython_cluster.controller`` in an ``IPYTHONDIR`` whose default profile has that file.
It ends when one of its processes does: the supervisor starts all of them again, and nobody waits for half of
a controller.
"""

from ipython_cluster._start import say_what_fits, without_working_folder

without_working_folder()

import ctypes  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import uuid  # noqa: E402
from functools import partial  # noqa: E402

from ipyparallel.controller import app  # noqa: E402

from ipython_cluster import heartbeat, scheduler  # noqa: E402
from ipython_cluster.channel import Channel  # noqa: E402
from ipython_cluster.database import Database  # noqa: E402
from ipython_cluster.hub import Hub  # noqa: E402

REPORT_SECONDS = 0.1
JOURNAL = "tasks.journal"
ENDED = 70  # exit code when one of our processes died


class Controller(app.IPController):
    """Binds what it is told, leaves the connection files alone, and reports who is registered."""

    def load_secondary_config(self):
        with open(os.path.join(self.profile_dir.security_dir, "controller.json")) as file:
            told = json.load(file)
        self.engine_info = told["engine"]
        self.client_info = told["client"]
        config = self.config
        config.Session.key = told["engine"]["key"].encode()
        # What engines are told; they do not act on it.
        config.HeartMonitor.period = int(heartbeat.SLOW_SECONDS * 1000)
        # Not the port traits: they would be drawn from again for what stays inside.
        ip = told["engine"]["interface"].partition("://")[2]
        self.engine_ip = self.client_ip = ip
        self.monitor_ip = "127.0.0.1"
        if told["curve_secretkey"]:
            self.curve_publickey = told["engine"]["curve_serverkey"].encode()
            self.curve_secretkey = told["curve_secretkey"].encode()
            self.enable_curve = True
            # Enabling CURVE empties the session key, but CURVE lets everybody in who has the *public* key:
            # signing keeps strangers out.
            config.Session.key = told["engine"]["key"].encode()
        self.write_connection_files = False
        self.db_class = Database
        self.mq_class = "ipython_cluster.relay.ProcessRelay"

    def cleanup_connection_files(self):
        """They are derived and belong to the cluster, not to this process."""

    # -- our parts in the place of ipyparallel's -------------------------------------------------------

    def init_hub(self):
        hearts, Hub.hurry = os.pipe()
        self.orders, self.ordering = os.pipe()
        for end in (Hub.hurry, self.ordering):
            os.set_blocking(end, False)
        Hub.order = staticmethod(self.order)
        Hub.name = uuid.uuid4().hex
        app.Hub = Hub
        app.start_heartmonitor = partial(heartbeat.start, app.start_heartmonitor, hearts)
        app.BroadcastScheduler = scheduler.BroadcastScheduler
        super().init_hub()
        # An engine or a client may come again before we have noticed that its old connection is dead.
        self.hub.query.socket.router_handover = True

    def launch_python_scheduler(self, name, scheduler_args, children):
        if scheduler_args["scheduler_class"] is app.TaskScheduler:
            scheduler_args["scheduler_class"] = type(
                "TaskScheduler",  # as its section in a configuration is called
                (scheduler.TaskScheduler,),
                {
                    "orders": self.orders,
                    "journal_file": os.path.join(self.profile_dir.security_dir, JOURNAL),
                },
            )
            Hub.asks = self.hub.asks = True
        super().launch_python_scheduler(name, scheduler_args, children)

    def order(self, **message):
        """Say something to the task scheduler, which is a process of its own."""
        try:
            os.write(self.ordering, json.dumps(message).encode() + b"\n")
        except OSError as problem:
            self.log.error("the task scheduler does not listen: %s", problem)

    # -- life ------------------------------------------------------------------------------------------

    def start(self):
        self.channel = Channel()
        self.said = {}
        self.ending = False
        self.channel.listen(lambda message: self.loop.add_callback(self.told, message))
        self.loop.add_callback(self.watch)
        self.report()
        super().start()

    def watch(self):
        """Look after our processes; called when all are started."""
        processes = [getattr(child, "launcher", child) for child in self.children]
        for process in [*processes, self.heartmonitor_process]:
            self.loop.add_handler(process.sentinel, partial(self.died, process), self.loop.READ)

    def died(self, process, fd, events):
        self.loop.remove_handler(fd)
        if self.ending:
            return
        process.join(1)
        self.log.critical("%s ended with %s, so this controller ends too", process.name, process.exitcode)
        self.ending = True
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(ENDED)

    def handle_signal(self, sig, frame):
        self.ending = True
        super().handle_signal(sig, frame)

    # -- the supervisor --------------------------------------------------------------------------------

    def report(self):
        """Tell the supervisor what has changed; the first report means: ready."""
        # Not a PeriodicCallback: those stop for an hour when the clock is set back by one.
        self.loop.call_later(REPORT_SECONDS, self.report)
        self.hub.remind()
        if self.hub.changed:
            self.hub.changed = False
            facts = self.hub.facts()
            news = {name: fact for name, fact in facts.items() if self.said.get(name) != fact}
            if news:
                self.said.update(news)
                self.channel.send(ready=True, **news)

    def told(self, message):
        """The supervisor saw an engine die, or wants some to leave when they are done."""
        if "lost" in message:
            self.hub.lose(message["lost"])
        for what in ("leaving", "staying"):
            # A pipe takes 4,096 bytes whole.
            uuids = message.get(what) or []
            for start in range(0, len(uuids), 50):
                self.order(**{what: uuids[start : start + 50]})


def die_with_parent():
    """A killed controller leaves no process that holds its ports."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (AttributeError, OSError):
        pass  # not Linux


def main():
    say_what_fits()
    # Since Python 3.14 children are started by a server that imports everything again: 321 MB instead of 84.
    multiprocessing.set_start_method("fork")
    os.register_at_fork(after_in_child=die_with_parent)
    Controller.launch_instance(["--log-level=INFO"])


if __name__ == "__main__":
    main()
