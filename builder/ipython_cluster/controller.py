"""The controller: ipyparallel's own, told its ports and keys by ``controller.json`` instead of choosing them.

Start with ``python -m ipython_cluster.controller`` in an ``IPYTHONDIR`` whose default profile has that file.
"""

from ipython_cluster._start import without_working_folder

without_working_folder()

import json  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402

from ipyparallel.controller.app import IPController  # noqa: E402
from tornado.ioloop import PeriodicCallback  # noqa: E402

from ipython_cluster.channel import Channel  # noqa: E402

# A quarter second between beats makes an engine known within two of them; 120 missed beats keep the thirty
# seconds that ipyparallel grants an engine whose task does not let go of the interpreter.
HEARTBEAT_MS = 250
HEARTBEAT_MISSES = 120
REPORT_MS = 100


class Controller(IPController):
    """Binds what it is told, leaves the connection files alone, and reports who is registered."""

    def load_secondary_config(self):
        with open(os.path.join(self.profile_dir.security_dir, "controller.json")) as file:
            told = json.load(file)
        self.engine_info = told["engine"]
        self.client_info = told["client"]
        config = self.config
        config.Session.key = told["engine"]["key"].encode()
        config.HeartMonitor.period = HEARTBEAT_MS
        config.HeartMonitor.max_heartmonitor_misses = HEARTBEAT_MISSES
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

    def cleanup_connection_files(self):
        """They are derived and belong to the cluster, not to this process."""

    def start(self):
        self.channel = Channel()
        self.registered = None
        self.channel.listen(lambda message: self.loop.add_callback(self.told, message))
        PeriodicCallback(self.report, REPORT_MS).start()
        super().start()

    def report(self):
        """Tell the supervisor who is registered, when that has changed; the first report means: ready."""
        registered = {str(number): engine.uuid for number, engine in self.hub.engines.items()}
        if registered != self.registered:
            self.registered = registered
            self.channel.send(ready=True, engines=registered)

    def told(self, message):
        """The supervisor saw an engine die: say so now, not after thirty seconds without a heartbeat."""
        for number, engine in list(self.hub.engines.items()):
            if engine.uuid == message.get("lost"):
                self.hub.unregister_engine(None, {"content": {"id": number}})


def main():
    # Since Python 3.14 children are started by a server that imports everything again: 321 MB instead of 84.
    multiprocessing.set_start_method("fork")
    Controller.launch_instance(["--log-level=INFO"])


if __name__ == "__main__":
    main()
