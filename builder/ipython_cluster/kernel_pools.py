"""The pools of kernels that this process has, as `kernels` are seen from here: to have one, to have it fork.

There is one for each Python and each set of variables. A pool ends with the process that asked for it.
"""

import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from typing import Any

from traitlets.log import get_logger

from ipython_cluster.preloading import LEFT_OUT

SETTINGS = "IPYTHON_KERNELS_SETTINGS"  # as `kernels` reads them
ANSWER_SECONDS = 5.0
ENDING_SECONDS = 1.0  # for word of how a kernel has ended
LARGEST = 1 << 18  # bytes of a message
TRIES = 10  # how often a pool is started again whose import ended it
MOST = 4  # pools of a server: one for each kind of kernel, and variables may differ without end

_pools: dict[object, "Pool"] = {}
_lock = threading.Lock()


def found(wanted):
    """The pool that such a kernel comes from, or None."""
    with _lock:
        return _pools.get(wanted.key)


def have(wanted):
    """See that there is a pool for such a kernel."""
    with _lock:
        if wanted.key in _pools:
            return
        if len(_pools) >= MOST:
            _pools.pop(next(iter(_pools))).close()
        _pools[wanted.key] = Pool(wanted)


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
