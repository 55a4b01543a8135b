"""Notebook kernels from a pool, for every Jupyter: a kernel provisioner, and a server extension.

A kernel's specification asks for it::

    "metadata": {"kernel_provisioner": {"provisioner_name": "ipython-cluster-pool",
                                        "config": {"preload": ["numpy", "pandas"]}}}

A pool (see `kernels`) belongs to the process that asked for it and ends with it. There is one for each Python
and each set of variables. A server that has many kernels makes it when the first one was started the ordinary
way, or, as its extension ``ipython_cluster.provisioner``, before that. Whatever cannot come from a pool (none
is ready, other variables, arguments of its own, something was installed since) starts as before.
"""

import asyncio
import json
import os
import select
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from typing import Any

from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Float, List, Unicode
from traitlets.log import get_logger

from ipython_cluster.preloading import LEFT_OUT

NAME = "ipython-cluster-pool"
SETTINGS = "IPYTHON_KERNELS_SETTINGS"  # as `kernels` reads them
STARTS = ("ipython_cluster.kernel", "ipykernel_launcher", "ipykernel")  # of kernels that can be forked
BESIDE = ("matplotlibrc", ".numba_config.yaml")  # read at an import, in the folder of that moment
ANSWER_SECONDS = 5.0
ENDING_SECONDS = 1.0  # for word of how a kernel has ended
LARGEST = 1 << 18  # bytes of a message
TRIES = 10  # how often a pool is started again whose import ended it
MOST = 4  # pools of a server: one for each kind of kernel, and variables may differ without end
AFTER_SECONDS = 1.0  # from the server's first answer: a page is loaded meanwhile

_pools: dict[object, "Pool"] = {}
_lock = threading.Lock()


class PoolProvisioner(LocalProvisioner):
    """Kernels of this machine, forked from a pool where that can be; otherwise as `LocalProvisioner`."""

    preload = List(Unicode(), help="Modules that a kernel has imported before it starts.").tag(config=True)
    timeout = Float(30.0, help="Seconds that the import of one of them may take.").tag(config=True)

    def __init__(self, **kwargs):
        for name in kwargs.keys() - set(self.trait_names()):
            log = getattr(kwargs.get("parent"), "log", get_logger())
            log.warning("%s has no setting %r, only preload and timeout", NAME, name)
            del kwargs[name]
        super().__init__(**kwargs)

    async def launch_kernel(self, cmd, **kwargs):
        wanted = Wanted(cmd, kwargs, self.preload, self.timeout)
        if wanted.reason:
            self.log.debug("a kernel is started without a pool: %s", wanted.reason)
            return await super().launch_kernel(cmd, **kwargs)
        with _lock:
            pool = _pools.get(wanted.key)
        process = None
        if pool is not None:
            process = await asyncio.get_running_loop().run_in_executor(None, pool.fork, wanted)
        elif isinstance(getattr(self.parent, "parent", None), MultiKernelManager):
            # Only a server has a next one; and this one shall not have to share the processors.
            asyncio.get_running_loop().call_later(AFTER_SECONDS, wanted.pool)
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = process
        self.pid = self.pgid = process.pid
        self.cwd = wanted.cwd
        return self.connection_info


class Wanted:
    """A kernel that shall be started, as its command and its variables say.

    Attributes:
        reason: why no pool can have it, in words; None if one can.
        key: what kernels of the same pool have in common.
    """

    def __init__(self, command, kwargs, preload, timeout):
        self.argv = [str(word) for word in command]
        if self.argv[0] in ("python", "python3", "python{}.{}".format(*sys.version_info)):
            self.argv[0] = sys.executable  # as jupyter_client has it
        self.env = dict(os.environ if kwargs.get("env") is None else kwargs["env"])
        self.cwd = str(kwargs.get("cwd") or os.getcwd())
        self.preload, self.timeout = tuple(preload), timeout
        others = {name for name, value in kwargs.items() if value is not None}
        others -= {"env", "cwd", "extra_arguments", "kernel_id"}
        self.reason = None
        if "-m" not in self.argv[1:-1] or self.argv[self.argv.index("-m") + 1] not in STARTS:
            self.reason = "it is not started as an ipykernel"
        elif self.argv[self.argv.index("-m") + 2 : -1] != ["-f"]:
            self.reason = "it has arguments of its own"
        elif others:
            self.reason = "it wants " + ", ".join(sorted(others))
        elif not os.path.isdir(self.cwd):
            self.reason = "its folder is not there"
        elif not os.path.basename(self.argv[0]).startswith("python"):
            self.reason = "it is started by way of another program"
        elif not all(map(os.path.isabs, (self.env.get("PYTHONPATH") or "/").split(":"))):
            self.reason = "its modules are looked for in its own folder"
        elif any(os.path.exists(os.path.join(self.cwd, name)) for name in BESIDE):
            self.reason = "there are settings of packages in its folder"
        start = self.argv[: self.argv.index("-m")] if not self.reason else self.argv
        self.start = tuple(start)
        self.variables = {name: value for name, value in self.env.items() if not name.startswith("JPY_")}
        self.key = self.start, self.preload, timeout, frozenset(self.variables.items())

    def pool(self):
        """See that there is a pool for it."""
        with _lock:
            if self.key in _pools:
                return
            if len(_pools) >= MOST:
                _pools.pop(next(iter(_pools))).close()
            _pools[self.key] = Pool(self)


class Pool:
    """A process that forks kernels, as this process sees it. What it says is heard by a thread."""

    def __init__(self, wanted):
        self.wanted = wanted
        self.changed = threading.Condition()
        self.ready = False
        self.deaf = False  # whether it let somebody wait, and has said nothing since
        self.refused = None  # why it forks nothing
        self.importing = None
        self.suspect = None  # what was being imported when somebody killed it: the kernel, for want of memory
        self.stale = False  # whether it imported what is no longer there
        self.left_out = {}
        self.asked: set[int] = set()  # numbers of requests that somebody waits for
        self.answers: dict[int, Any] = {}  # number of a request -> what it said
        self.codes: dict[int, int] = {}  # pid -> exit code
        self.requests = 0
        self.tries = 0
        self.start()

    def start(self):
        """Have its process."""
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [*self.wanted.start, "-m", "ipython_cluster.kernels", str(theirs.fileno())]
        settings = {
            "command": command, "preload": self.wanted.preload, "timeout": self.wanted.timeout,
        }  # fmt: skip
        env = {**self.wanted.variables, SETTINGS: json.dumps(settings), LEFT_OUT: json.dumps(self.left_out)}
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=2, env=env, cwd="/", pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self.refused = str(error)
            self.line.close()
            return
        finally:
            theirs.close()
        threading.Thread(target=self.listen, name="pool of kernels", daemon=True).start()

    def listen(self):
        """Hear what it says until it ends; start it again without the module that ended it."""
        while True:
            try:
                data, handed, _, _ = socket.recv_fds(self.line, LARGEST, 1)
            except OSError:
                break
            if not data:
                break
            self.hear(json.loads(data), handed)
        with self.changed:
            self.ready = False
            self.changed.notify_all()
            self.line.close()
        code = self.process.wait()
        with _lock:
            killed = code in (-signal.SIGTERM, -signal.SIGKILL)
            if self.importing and self.tries < TRIES and not self.refused:
                self.tries += 1
                if not killed or self.suspect == self.importing:  # twice is not by chance
                    self.left_out[self.importing] = "the pool ended with {} at its import".format(code)
                self.suspect, self.importing = self.importing, None
                self.start()
            elif self.stale:
                self.stale = False
                self.left_out = {}  # what could not be shared may be gone, or another version
                self.start()
            elif not self.refused and _pools.get(self.wanted.key) is self:
                del _pools[self.wanted.key]  # killed by somebody: the next kernel makes another one

    def hear(self, message, handed):
        with self.changed:
            if "number" in message:
                if message["number"] in self.asked:
                    self.answers[message["number"]] = message, handed
                else:  # too late: that kernel was started the ordinary way
                    for descriptor in handed:
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        os.close(descriptor)
                self.stale = message.get("stale", False)
            if "ended" in message:
                self.codes[message["ended"]] = message["code"]
            self.deaf = False
            self.ready = message.get("ready", self.ready)
            self.refused = message.get("refused", self.refused)
            self.importing = message.get("importing", self.importing)
            self.left_out.update(message.get("left_out", {}))
            self.changed.notify_all()

    def fork(self, wanted):
        """A new kernel's process; None where it has to be started the ordinary way."""
        with self.changed:
            if not self.ready or self.deaf:
                return None
            self.requests += 1
            number = self.requests
            until = time.monotonic() + ANSWER_SECONDS  # a clock that all processes have
            request = {"number": number, "until": until}
            request.update(argv=wanted.argv, env=wanted.env, cwd=wanted.cwd)
            try:
                socket.send_fds(self.line, [json.dumps(request).encode()], [1, 2], socket.MSG_DONTWAIT)
            except OSError as error:  # it is gone, stopped, or all that is too much for a message
                get_logger().debug("a kernel is started without its pool: %s", error)
                return None
            self.asked.add(number)
            answered = self.changed.wait_for(lambda: number in self.answers or not self.ready, ANSWER_SECONDS)
            self.deaf = not answered
            self.asked.discard(number)
            message, handed = self.answers.pop(number, ({}, []))
            process = self.process
        return Process(message["pid"], handed[0], self, process) if "pid" in message else None

    def code(self, pid, process):
        """How that process ended, which this life of the pool has forked; None if it will not say."""
        with self.changed:
            code = self.codes.pop(pid, None)
            if code is None and (process is not self.process or process.poll() is not None):
                return 1  # who knew it is gone
            return code

    def close(self):
        """Fork no more; its kernels live on."""
        with self.changed:
            self.refused = "there are other pools now"
            self.ready = False
            try:
                self.line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is gone already


class Process:
    """A kernel that a pool has forked, with what `LocalProvisioner` needs of a ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, pid, descriptor, pool, parent):
        self.pid = pid
        self.descriptor = descriptor  # readable when it has ended
        self.pool = pool
        self.parent = parent  # the pool's process that forked it
        self.returncode = None
        self.gone = None  # since when

    def poll(self):
        """Its exit code, or None while it runs."""
        if self.returncode is None and (self.gone or self._ended(0)):
            self.gone = self.gone or time.monotonic()
            code = self.pool.code(self.pid, self.parent)
            if code is None and time.monotonic() - self.gone < ENDING_SECONDS:
                return None  # in a moment
            self.returncode = 1 if code is None else code
            os.close(self.descriptor)
        return self.returncode

    def wait(self, timeout=None):
        """Wait for its end; its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs longer than that.
        """
        if self.returncode is None and not self._ended(timeout):
            raise subprocess.TimeoutExpired([str(self.pid)], timeout)
        while self.poll() is None:
            time.sleep(0.005)
        return self.returncode

    def _ended(self, timeout):
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return poll.poll(None if timeout is None else timeout * 1000)

    def send_signal(self, number):
        """Send it a signal, unless it has ended."""
        if self.poll() is None and not self.gone:
            signal.pidfd_send_signal(self.descriptor, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


# -- the extension ---------------------------------------------------------------------------------------


def _jupyter_server_extension_points():
    return [{"module": __name__}]


def _load_jupyter_server_extension(app):
    app.io_loop.call_later(AFTER_SECONDS, warm, app.kernel_spec_manager)


def warm(manager):
    """Make the pools for all kernels of this Jupyter that want one."""
    for name in manager.find_kernel_specs():
        try:
            spec = manager.get_kernel_spec(name)
        except Exception as error:
            get_logger().debug("no pool for %s: %s", name, error)
            continue
        stanza = spec.metadata.get("kernel_provisioner", {})
        if stanza.get("provisioner_name") != NAME:
            continue
        config = stanza.get("config", {})
        env = {name: string.Template(value).safe_substitute(os.environ) for name, value in spec.env.items()}
        env = {**os.environ, **env}
        wanted = Wanted(spec.argv, {"env": env}, config.get("preload", ()), config.get("timeout", 30.0))
        if not wanted.reason:
            wanted.pool()
