"""The pool: one process that has imported what the notebooks import, and forks engines when it is told to.

Start with ``python -m ipython_cluster.pool``; ``pool.json`` in ``$IPYTHON_CLUSTER_HOME`` says what to import.
An engine is made up to the last moment before sockets and threads, and only then forked: what remains is
21 ms of CPU instead of half a second, and all that is imported is shared.
"""

from ipython_cluster._start import say_what_fits, without_working_folder

without_working_folder()

import gc  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from typing import Any  # noqa: E402

from ipython_cluster.channel import ADDRESS, ROLE, Channel, connect  # noqa: E402
from ipython_cluster.preloading import (  # noqa: E402
    LATE,
    Preloader,
    be,
    descriptors,
    left_behind,
    limit_threads,
    reseed,
    unknown,
)

SETTINGS = "pool.json"


class Pool(Preloader):
    """What is imported, one engine that is nearly made, and the line to the supervisor."""

    def __init__(self):
        with open(os.path.join(os.environ["IPYTHON_CLUSTER_HOME"], SETTINGS)) as file:
            super().__init__(**json.load(file))
        self.channel = Channel()
        self.app: Any = None

    def tell(self, **facts):
        self.channel.send(**facts)

    def again(self):
        os.environ[ROLE] = "pool 0"
        os.execv(sys.executable, [sys.executable, "-m", "ipython_cluster.pool"])  # noqa: S606

    def make(self):
        """Make an engine up to where sockets and threads would come."""
        from ipykernel.compiler import XCachingCompiler
        from ipykernel.zmqshell import ZMQInteractiveShell

        from ipython_cluster import engine

        app = engine.Engine.instance()
        # Its thread must not exist yet, and what an engine computes is nobody's history.
        app.config.HistoryManager.enabled = False
        app.initialize([*engine.ARGUMENTS])
        if app.use_mpi:
            return "MPI engines are started one by one"
        shell = ZMQInteractiveShell.instance(
            parent=app, profile_dir=app.profile_dir, user_ns=app.user_ns, compiler_class=XCachingCompiler
        )
        app.user_ns = shell.user_ns
        shell.run_line_magic("load_ext", "storemagic")  # as every engine would
        for name in LATE:
            importlib.import_module(name)
        self.app = app
        return left_behind(descriptors())

    # -- forks -------------------------------------------------------------------------------------

    def serve(self):
        """Fork what we are told to, for ever."""
        gc.collect()
        gc.freeze()  # what is here stays, and the collector of a child shall not write to its pages
        self.channel.send(ready=True)
        for message in self.channel.messages():
            numbers = message.get("fork")
            if numbers:
                self.fork(numbers, message["logs"], message["threads"], message.get("ids", {}))

    def fork(self, numbers, logs, threads, ids):
        """Fork engines by way of a child that ends at once: so they are the supervisor's children, not ours.

        It hears of their end then, and they outlive us. Several such children work side by side.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        width = min(len(os.sched_getaffinity(0)), max(1, len(numbers) // 4))
        batches = []
        try:
            for part in range(width):
                pid = os.fork()
                if not pid:
                    code = 1
                    try:
                        self.batch(numbers[part::width], logs, threads, ids)
                        code = 0
                    except Exception:
                        traceback.print_exc()
                        sys.stderr.flush()
                    finally:
                        os._exit(code)
                batches.append(pid)
        except OSError as error:  # too many processes, or too little memory
            self.log("cannot fork: {}".format(error))
        for pid in batches:
            status = os.waitpid(pid, 0)[1]
            if status:
                self.log("a process that forks engines ended with status {}".format(status))
        # Whatever became of them: who is not there in a moment will not come.
        self.channel.say(tried=numbers)

    def batch(self, numbers, logs, threads, ids):
        """Fork each of these engines and tell the supervisor its pid; returns in the batch alone."""
        line = connect(os.environ[ADDRESS])
        for number in numbers:
            pid = os.fork()
            if not pid:
                line.close()
                be(self.become, number, logs, threads, ids.get(str(number), number))
            line.sendall(json.dumps({"do": "forked", "id": number, "pid": pid}).encode() + b"\n")
        line.close()

    # -- in the engine -----------------------------------------------------------------------------

    def become(self, number, logs, threads, wish):
        """Be engine `number` from here on, and ask for the id `wish`; without `logs` speak where we do."""
        os.setsid()
        if logs:
            log = open_log(os.path.join(logs, "engine-{}.log".format(number)))
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
        gc.disable()  # until it is registered: there is no garbage yet
        if self.channel.socket is not None:
            self.channel.socket.close()
        reseed(self.unseeded)
        limit_threads(self.chosen, threads)
        app = self.app
        app.number, app.id = number, wish
        app.session = type(app.session)(parent=app)  # a session refuses to send from another process
        app.ident = app.session.session
        app.start()


def open_log(path):
    """A descriptor to append to `path`; on a full disk, one into nothing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def prepare(pool):
    """Do all that comes before a fork; why there can be none, in words, or nothing."""
    reason = unknown("ipyparallel", "ipykernel")
    if reason:
        return reason
    pool.import_all()
    try:
        return pool.make()
    except Exception as error:  # a version whose number says less than it should: engines start without us
        pool.log("no engine can be made before the fork:\n" + traceback.format_exc())
        return "{}: {}".format(type(error).__name__, error)


def main():
    say_what_fits()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an engine's own handlers come at its start
    pool = Pool()
    reason = prepare(pool)
    if reason:
        pool.log("engines are started one by one: " + reason)
        pool.channel.send(refuses=reason)
        return
    pool.serve()


if __name__ == "__main__":
    main()
