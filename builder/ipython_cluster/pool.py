"""The pool: one process that has imported what the notebooks import, and forks engines when it is told to.

Start with ``python -m ipython_cluster.pool``; ``pool.json`` in ``$IPYTHON_CLUSTER_HOME`` says what to import.
An engine is made up to the last moment before sockets and threads, and only then forked: what remains is
21 ms of CPU instead of half a second, and all that is imported is shared.

A fork copies one thread, so it is sound only while there is one. What an import leaves behind is looked at
after each: threads, child processes, open sockets and devices. A module that leaves any is left out, by
starting over without it.
"""

from ipython_cluster._start import say_what_fits, without_working_folder

without_working_folder()

import gc  # noqa: E402
import importlib  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from typing import Any  # noqa: E402

from ipython_cluster.channel import ADDRESS, ROLE, Channel, connect  # noqa: E402

LEFT_OUT = "IPYTHON_POOL_LEFT_OUT"  # JSON: module -> why; from the supervisor, or from ourselves
SETTINGS = "pool.json"
# One thread each while they are imported; they would start theirs at once, on all processors.
NUMERICAL = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
# What an engine imports only when it starts.
LATE = (
    "ipykernel.debugger", "tornado.gen", "tornado.locks", "tornado.platform.asyncio", "tornado.queues",
)  # fmt: skip
# Whose inside is made before the fork: the first and the last major version that it is sound with.
KNOWN = {"ipyparallel": (8, 9), "ipykernel": (6, 7)}
# Devices that every process may have open.
HARMLESS = tuple(
    "/dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty", "pts/", "shm/", "console")
)


def unknown():
    """Why the installed versions are none that can be forked, in words; empty if they can."""
    for name, (first, last) in KNOWN.items():
        version = importlib.metadata.version(name)
        major = version.partition(".")[0]
        if not (major.isdigit() and first <= int(major) <= last):
            return "the pool knows {} {} to {}, and not {}".format(name, first, last, version)
    return ""


def left_behind(before):
    """What there is that a fork cannot share, in words, beside the descriptors `before`; empty if nothing."""
    for _ in range(20):  # a thread that was joined is gone a moment later
        threads = len(os.listdir("/proc/self/task")) - 1
        if not threads:
            break
        time.sleep(0.01)
    found = ["{} thread{}".format(threads, "s" if threads > 1 else "")] if threads else []
    if children():
        found.append("a child process")
    for descriptor, target in descriptors().items():
        if before.get(descriptor) == target:
            continue
        if target.startswith("socket:"):
            found.append("an open socket")
        elif target.startswith("anon_inode:"):  # an event loop, a timer, a GPU's buffer
            found.append("an open " + target.partition(":")[2].strip("[]"))
        elif target.startswith("/dev/") and not target.startswith(HARMLESS):
            found.append("the open device " + target)
    return ", ".join(found)


def children():
    """The pids of our child processes."""
    try:
        with open("/proc/self/task/{}/children".format(os.getpid())) as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []  # a kernel without that file


def descriptors():
    """Number -> what it is, for each open descriptor."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue  # that of the listing itself
    return found


def place():
    """What a process has once, so that an import which changes it changes it for every engine."""
    umask = os.umask(0o077)
    os.umask(umask)
    variables = {name: value for name, value in os.environ.items() if name not in NUMERICAL}
    return os.getcwd(), umask, variables


def moved(before):
    """What an import has changed of `before`, in words; empty if nothing.

    Variables that it adds are what it would have added in an engine: packages that wrap libraries do that.
    """
    (cwd, umask, variables), (cwd_now, umask_now, now) = before, place()
    found = ["the working folder"] if cwd != cwd_now else []
    if umask != umask_now:
        found.append("the mask of new files")
    found += [name for name, value in variables.items() if now.get(name) != value]
    return ", ".join(found)


class Pool:
    """What is imported, one engine that is nearly made, and the line to the supervisor."""

    def __init__(self):
        self.channel = Channel()
        with open(os.path.join(os.environ["IPYTHON_CLUSTER_HOME"], SETTINGS)) as file:
            self.settings = json.load(file)
        self.left_out = json.loads(os.environ.pop(LEFT_OUT, "{}"))
        # What the user set for numerical libraries counts in the engines.
        self.chosen = {name: os.environ.get(name) for name in NUMERICAL}
        self.app: Any = None

    def log(self, text):
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)

    # -- before the fork ---------------------------------------------------------------------------

    def preload(self):
        """Import what the settings name; what cannot be shared makes us start over without it."""
        os.environ.update(dict.fromkeys(NUMERICAL, "1"))
        before, here = descriptors(), place()
        started = time.monotonic()
        done = []
        for name in self.settings["preload"]:
            bad = next((one for one in self.left_out if (name + ".").startswith(one + ".")), None)
            if bad:
                self.log("not preloaded: {} ({})".format(name, self.left_out[bad]))
                continue
            self.channel.send(importing=name)  # if it ends us, the supervisor knows what did
            if self.load(name):
                done.append(name)
            reason = left_behind(before)
            if reason:
                self.start_over(name, "it leaves behind " + reason, here)
            reason = moved(here)
            if reason:
                self.start_over(name, "it changes " + reason, here)
        self.channel.send(importing=None, preloaded=done, left_out=self.left_out)
        self.log("preloaded in {:.2f} s: {}".format(time.monotonic() - started, " ".join(done) or "nothing"))
        for name, value in self.chosen.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    def load(self, name):
        """Import one module, or the nearest package above it; whether that worked."""
        # It ends us when the import hangs, even in C; the supervisor then leaves that module out.
        signal.setitimer(signal.ITIMER_REAL, self.settings["timeout"])
        try:
            while True:
                try:
                    importlib.import_module(name)
                    return True
                except ModuleNotFoundError:
                    name = name.rpartition(".")[0]  # `from package import name`, which is not a module
                    if not name:
                        raise
        except BaseException as error:  # whatever it raises, engines can do without
            if isinstance(error, ModuleNotFoundError):
                self.log("not preloaded: {}".format(error))
            else:
                self.log("not preloaded: {} raised\n{}".format(name, traceback.format_exc()))
            return False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def start_over(self, name, why, here):
        self.left_out[name] = why
        self.log("starting over without {}: {}".format(name, why))
        for pid in children():  # they would be ours again
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for variable, value in self.chosen.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
        cwd, umask, variables = here
        os.chdir(cwd)
        os.umask(umask)
        os.environ.update(variables)
        os.environ[LEFT_OUT] = json.dumps(self.left_out)
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
                code = 1
                try:
                    line.close()
                    self.become(number, logs, threads, ids.get(str(number), number))
                    code = 0
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else 1
                except BaseException:
                    traceback.print_exc()
                finally:
                    self.end(code)
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
        reseed()
        limit_threads(self.chosen, threads)
        app = self.app
        app.number, app.id = number, wish
        app.session = type(app.session)(parent=app)  # a session refuses to send from another process
        app.ident = app.session.session
        app.start()

    @staticmethod
    def end(code):
        """End as an interpreter does, without going back through the frames of the pool."""
        import atexit
        import threading

        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def open_log(path):
    """A descriptor to append to `path`; on a full disk, one into nothing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def reseed():
    """Random numbers that no other engine has. ``random`` does it by itself at a fork, these do not."""
    for module, seed in (("numpy.random", "seed"), ("torch", "seed")):
        if module in sys.modules:
            getattr(sys.modules[module], seed)()


def limit_threads(chosen, threads):
    """Let numerical libraries use what the user chose, or else this engine's share of the processors."""
    wanted = {name: value for name, value in chosen.items() if value and value.isdigit()}
    most = max([int(value) for value in wanted.values()], default=threads)
    if most > 1:
        try:
            from threadpoolctl import threadpool_limits  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            return  # one thread an engine
        threadpool_limits(most)


def prepare(pool):
    """Do all that comes before a fork; why there can be none, in words, or nothing."""
    reason = unknown()
    if reason:
        return reason
    pool.preload()
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
