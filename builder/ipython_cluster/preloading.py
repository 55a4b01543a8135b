"""What a process does that forks others: it imports what they will need, as far as a fork can share it.

A fork copies one thread, so it is sound only while there is one. What an import leaves behind is looked at
after each: threads, child processes, open sockets and devices. A module that leaves any is left out, by
starting over without it.
"""

import atexit
import importlib
import importlib.metadata
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref

LEFT_OUT = "IPYTHON_POOL_LEFT_OUT"  # JSON: module -> why; from who started us, or from ourselves
# What ipykernel imports only when it starts.
LATE = (
    "ipykernel.debugger", "tornado.gen", "tornado.locks", "tornado.platform.asyncio", "tornado.queues",
)  # fmt: skip
# One thread each while they are imported; they would start theirs at once, on all processors.
NUMERICAL = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
# Whose inside is made before the fork: the first and the last major version that it is sound with.
KNOWN = {"ipyparallel": (8, 9), "ipykernel": (6, 7)}
_seed = random.Random.seed
_mkdtemp = tempfile.mkdtemp
# Devices that every process may have open.
HARMLESS = tuple(
    "/dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty", "pts/", "shm/", "console")
)


def unknown(*names):
    """Why the installed versions of these are none that can be forked, in words; empty if they can."""
    for name in names:
        first, last = KNOWN[name]
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
    return os.getcwd(), umask, variables, (sys.stdout, sys.stderr)


def moved(before):
    """What an import has changed of `before`, in words; empty if nothing.

    Variables that it adds are what it would have added in an engine: packages that wrap libraries do that.
    """
    (cwd, umask, variables, streams), (cwd_now, umask_now, now, streams_now) = before, place()
    found = ["the working folder"] if cwd != cwd_now else []
    if umask != umask_now:
        found.append("the mask of new files")
    if streams != streams_now:
        found.append("stdout or stderr")
    found += [name for name, value in variables.items() if now.get(name) != value]
    return ", ".join(found)


class Preloader:
    """A process that imports, and then forks.

    Attributes:
        preload: the modules to import; `timeout` the seconds that one of them may take.
        left_out: module -> why it is not imported.
        folders: temporary ones that modules have made at their import, to be removed at the end of a process:
            the first child that ended would remove them for all.
        limited: the variables that make numerical libraries begin with one thread.
        unseeded: random generators that modules have made at their import, to be other ones in each child.
    """

    limited: tuple[str, ...] = NUMERICAL

    def __init__(self, preload=(), timeout=30.0):
        self.preload, self.timeout = preload, timeout
        self.left_out = json.loads(os.environ.pop(LEFT_OUT, "{}"))
        # What the user set for numerical libraries counts in the children.
        self.chosen = {name: os.environ.get(name) for name in NUMERICAL}
        self.unseeded: weakref.WeakSet[random.Random] = weakref.WeakSet()
        self.folders: list[str] = []

    def tell(self, **facts):
        """Let who started us know."""
        raise NotImplementedError

    def log(self, text):
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)

    def import_all(self):
        """Import what the settings name; what cannot be shared makes us start over without it."""
        os.environ.update(dict.fromkeys(self.limited, "1"))
        before, here = descriptors(), place()
        started = time.monotonic()
        random.Random.seed = self._seed()  # type: ignore[assignment,method-assign]
        tempfile.mkdtemp = self._mkdtemp
        done = []
        for name in self.preload:
            bad = next((one for one in self.left_out if (name + ".").startswith(one + ".")), None)
            if bad:
                self.log("not preloaded: {} ({})".format(name, self.left_out[bad]))
                continue
            self.tell(importing=name)  # if it ends us, the supervisor knows what did
            if self.load(name):
                done.append(name)
            reason = left_behind(before)
            if not reason and any(map(os.path.isdir, self.folders)):
                reason = "a temporary folder"
            if reason:
                self.start_over(name, "it leaves behind " + reason, here)
            reason = moved(here)
            if reason:
                self.start_over(name, "it changes " + reason, here)
        self.tell(importing=None, preloaded=done, left_out=self.left_out)
        self.log("preloaded in {:.2f} s: {}".format(time.monotonic() - started, " ".join(done) or "nothing"))
        random.Random.seed = _seed  # type: ignore[method-assign]
        tempfile.mkdtemp = _mkdtemp
        self.choose()

    def load(self, name):
        """Import one module, or the nearest package above it; whether that worked."""
        # It ends us when the import hangs, even in C; the supervisor then leaves that module out.
        signal.setitimer(signal.ITIMER_REAL, self.timeout)
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
        cwd, umask, variables, (sys.stdout, sys.stderr) = here
        self.log("starting over without {}: {}".format(name, why))
        for pid in children():  # they would be ours again
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.choose()
        os.chdir(cwd)
        os.umask(umask)
        os.environ.update(variables)
        os.environ[LEFT_OUT] = json.dumps(self.left_out)
        self.again()

    def again(self):
        """Be a new process of the same kind."""
        raise NotImplementedError

    def _seed(self):
        """``random.Random.seed``, that notes which generators of modules were given no seed."""
        unseeded = self.unseeded

        def seed(generator, a=None, version=2):
            unseeded.discard(generator)
            if a is None:
                unseeded.add(generator)
            return _seed(generator, a, version)

        return seed

    def _mkdtemp(self, *arguments, **options):
        """``tempfile.mkdtemp``, that notes what it makes. A module may have kept it for later."""
        folder = _mkdtemp(*arguments, **options)
        if tempfile.mkdtemp is not _mkdtemp:
            self.folders.append(folder)
        return folder

    def choose(self):
        """Have the user's word for numerical libraries again."""
        for name, value in self.chosen.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# -- in a child ------------------------------------------------------------------------------------------


def be(become, *arguments):
    """Do in a new child what it is for, and end it."""
    code = 1
    try:
        threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # a fork leaves the pool's
        become(*arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        end(code)


def end(code):
    """End as an interpreter does, without going back through the frames of the pool."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def reseed(unseeded):
    """Random numbers that no other process has. ``random`` does it by itself at a fork, these do not."""
    for generator in unseeded:
        generator.seed()
    for module, seed in (("numpy.random", "seed"), ("torch", "seed")):
        if module in sys.modules:
            getattr(sys.modules[module], seed)()


def limit_threads(chosen, threads):
    """Let numerical libraries use what the user chose, or else this engine's share of the processors."""
    wanted = {name: value for name, value in chosen.items() if value and value.isdigit()}
    most = max([int(value) for value in wanted.values()], default=threads)
    if most > 1:
        variables = dict(os.environ)
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            return  # one thread a process
        threadpool_limits(most)
        if "numexpr" in sys.modules:
            sys.modules["numexpr"].set_num_threads(min(most, 8))  # as many as it takes by itself
        if "numba" in sys.modules:
            sys.modules["numba"].config.NUMBA_NUM_THREADS = most
        for name in os.environ.keys() - variables:  # it sets one at its import
            del os.environ[name]
