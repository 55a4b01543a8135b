"""A pool of notebook kernels: a process that has imported what the notebooks import, and forks kernels.

`kernel_pools` starts it, as ``python -m ipython_cluster.kernels FD``, for the same Python and with the same
variables as the kernels; FD is one end of a pair of sockets. It imports with a kernel's shell in place: so a
package that asks for the shell at its import (``tqdm.auto``, ``ipywidgets``, ``matplotlib.pyplot``) finds
what it would find in a kernel. That is why kernels do not come from the engines' pool.
"""

from ipython_cluster._start import say_what_fits, without_working_folder

without_working_folder()

import gc  # noqa: E402
import glob  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402

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

SETTINGS = "IPYTHON_KERNELS_SETTINGS"  # JSON: our command, what to import, the seconds for one module
LARGEST = 1 << 18  # bytes of a request: a kernel's variables
# What a kernel imports beside that, and what every notebook of a cluster imports.
TOO = (
    "IPython.extensions.storemagic", "ipykernel.subshell_manager", "sqlite3",
    "ipyparallel", "ipython_cluster.drawing", "ipython_cluster.mapping",
)  # fmt: skip


class Kernels(Preloader):
    """What is imported, and the line to the Jupyter server."""

    def __init__(self, line):
        self.given = os.environ.pop(SETTINGS)
        settings = json.loads(self.given)
        self.command = settings.pop("command")
        super().__init__(**settings)
        if importlib.util.find_spec("threadpoolctl") is None:
            self.limited = ()  # nothing could give them their threads back: those that start any are left out
        self.line = line
        self.server = os.getppid()
        self.variables = dict(os.environ)  # as they were before any import added to them
        self.before = descriptors()
        self.sources: dict[str, float] = {}  # what kernels are made of -> when it was changed
        self.living: dict[int, int] = {}  # descriptor of a kernel's end -> pid

    def tell(self, **facts):
        self.line.send(json.dumps(facts).encode())

    def again(self):
        os.environ[SETTINGS] = self.given
        os.set_inheritable(self.line.fileno(), True)
        os.execvp(self.command[0], self.command)  # noqa: S606

    # -- before the fork ---------------------------------------------------------------------------

    def make(self):
        """Have a kernel's shell, and import; why nothing can be forked, in words, or nothing."""
        reason = unknown("ipykernel")
        if reason:
            return reason
        os.close(os.pidfd_open(os.getpid()))  # an old system has none: then nobody could watch a kernel
        from ipykernel.compiler import XCachingCompiler
        from ipykernel.zmqshell import ZMQInteractiveShell

        # Before anything imports numpy: a configuration may do that.
        os.environ.update(dict.fromkeys(self.limited, "1"))
        config, folders = configured()
        self.sources = changed(sources(folders))
        config.IPKernelApp.connection_file = ""  # by such a section packages know a kernel
        config.HistoryManager.enabled = False  # its thread must not exist yet; a kernel has its own
        ZMQInteractiveShell.instance(config=config, compiler_class=XCachingCompiler)
        for name in (*LATE, *TOO):
            try:
                importlib.import_module(name)
            except ImportError:
                continue  # another version has no such module
        # As a kernel has it before its first cell.
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        reason = left_behind(self.before)
        if reason:
            return "before anything is imported there is " + reason
        self.import_all()
        if "matplotlib" in sys.modules:
            self.sources.update(changed([sys.modules["matplotlib"].matplotlib_fname()]))
        if "MPLBACKEND" not in self.variables:
            del os.environ["MPLBACKEND"]
        return left_behind(self.before)

    # -- forks -------------------------------------------------------------------------------------

    def serve(self):
        """Fork what we are asked for, until the server is gone; kernels end by themselves then."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        gc.collect()
        gc.freeze()  # what is here stays, and the collector of a child shall not write to its pages
        self.tell(ready=True)
        poll = select.poll()
        poll.register(self.line, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor in self.living:
                    poll.unregister(descriptor)
                    self.ended(descriptor)
                    continue
                data, handed, _, _ = socket.recv_fds(self.line, LARGEST, 2)
                if not data:
                    return
                try:
                    watched = self.fork(json.loads(data), handed)
                    if watched is not None:
                        poll.register(watched, select.POLLIN)
                finally:
                    for one in handed:
                        os.close(one)

    def ended(self, descriptor):
        """Say how a kernel has ended."""
        pid = self.living.pop(descriptor)
        os.close(descriptor)
        status = os.waitpid(pid, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        self.tell(ended=pid, code=code)

    def fork(self, request, handed):
        """Fork one kernel and send its pid with a descriptor of its end; that descriptor, or None."""
        if changed(self.sources) != self.sources:
            self.log("something was installed or set: the next kernels come from another pool")
            self.tell(number=request["number"], stale=True)
            sys.exit()
        if time.monotonic() > request["until"]:  # nobody waits for it any more
            self.tell(number=request["number"])
            return None
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or too little memory
            os.close(reading)
            os.close(writing)
            self.log("cannot fork: {}".format(error))
            self.tell(number=request["number"])
            return None
        if not pid:
            os.close(reading)
            be(self.become, request, handed, writing)
        os.close(writing)
        # It leads a group of its own before anybody can send that group a signal.
        os.read(reading, 1)
        os.close(reading)
        watched = os.pidfd_open(pid)
        self.living[watched] = pid
        said = json.dumps({"number": request["number"], "pid": pid}).encode()
        socket.send_fds(self.line, [said], [watched])
        return watched

    # -- in the kernel -----------------------------------------------------------------------------

    def become(self, request, handed, ready):
        """Be that kernel from here on."""
        os.setsid()
        os.write(ready, b"\n")
        os.close(ready)
        self.line.close()
        for descriptor in self.living:
            os.close(descriptor)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, *handed)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["cwd"])
        added = {name: value for name, value in os.environ.items() if name not in self.variables}
        os.environ.clear()
        os.environ.update({**added, **request["env"]})
        words = request["argv"]
        start = words.index("-m") + 1
        found = importlib.util.find_spec(words[start])
        sys.argv = [str(found and found.origin), *words[start + 1 :]]
        reseed(self.unseeded)
        limit_threads(self.chosen, len(os.sched_getaffinity(0)))
        application(words[start], self.server).launch_instance(words[start + 1 :])


def application(module, server):
    """The application of a kernel that this module starts, for the shell that is there."""
    from traitlets import Integer

    if module == "ipython_cluster.kernel":
        from ipython_cluster.kernel import IPKernelApp as base
    else:
        from ipykernel.kernelapp import IPKernelApp as base  # type: ignore[assignment]

    class IPKernelApp(base):  # type: ignore[misc,valid-type]
        parent_handle = Integer(server)

        def init_poller(self):
            watch(server)  # which is not our parent

        def init_kernel(self):
            super().init_kernel()
            shell, kernel = self.kernel.shell, self.kernel
            # What it would have been made with.
            shell.kernel = shell.parent = kernel
            shell.profile_dir, shell.config = self.profile_dir, self.config
            shell.starting_dir = os.getcwd()
            shell.init_environment()
            shell.configurables.remove(shell.history_manager)
            shell.init_history()
            shell.init_user_ns()  # In, Out and the like are its lists

    return IPKernelApp


def configured():
    """What this user has configured for kernels, and the folders where that stands."""
    from ipykernel.kernelapp import IPKernelApp
    from IPython.core.application import BaseIPythonApplication

    one, hook = IPKernelApp(), sys.excepthook
    BaseIPythonApplication.initialize(one, [])
    sys.excepthook = hook
    return one.config, one.config_file_paths


def sources(folders):
    """Where an installation or a setting changes something: folders of packages, files of settings."""
    found = [path for folder in folders for path in glob.glob(os.path.join(glob.escape(folder), "ipython*"))]
    for path in sys.path:
        named = os.path.basename(path) in ("site-packages", "dist-packages")
        if named or glob.glob(os.path.join(glob.escape(path), "*.dist-info")):
            found.append(path)  # another folder changes with every file that somebody saves there
    return found


def changed(paths):
    """Path -> when it was changed; 0 where it is not there."""
    found = {}
    for path in paths:
        try:
            found[path] = os.stat(path).st_mtime
        except OSError:
            found[path] = 0.0
    return found


def watch(server):
    """End when the Jupyter server has ended, as an ordinary kernel does."""

    def wait():
        try:
            descriptor = os.pidfd_open(server)
        except ProcessLookupError:
            os._exit(1)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait, name="server", daemon=True).start()


def main():
    say_what_fits()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the server's terminal is the server's
    kernels = Kernels(socket.socket(fileno=int(sys.argv[1])))
    try:
        reason = kernels.make()
    except Exception as error:  # a version that is unlike those we know: kernels start without us
        kernels.log("no kernel can be made before the fork:\n" + traceback.format_exc())
        reason = "{}: {}".format(type(error).__name__, error)
    try:
        if not reason:
            kernels.serve()
            return
        kernels.log("kernels are started one by one: " + reason)
        kernels.tell(refused=reason)
    except OSError:
        return  # the server is gone


if __name__ == "__main__":
    main()
