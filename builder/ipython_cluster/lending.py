"""Memory that is handed from one process of a machine to others: written once, and seen by all of them.

Who has something writes it once into a memory file (``memfd``, Linux) and hands its descriptor to whoever
asks, over a socket with an abstract name, which only processes of the same network namespace reach, and only
those of the same user are answered. No file has a name, so nothing has to be removed: the kernel frees the
memory with its last user, however that one ended, and a small ``/dev/shm`` does not matter. What arrives is
read-only.
"""

import fcntl
import functools
import hashlib
import logging
import mmap
import os
import re
import resource
import socket
import struct
import sys
import threading
import time

SECONDS = 10.0  # for the other side to answer
SPOKEN_SECONDS = 1.0  # for who has connected to say why
KEPT_SECONDS = 600.0  # for a result that was handed over to be asked for; its message may have got lost
TOKEN_BYTES = 16
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # of linux/fcntl.h: no more seals, no other size, no writing
ADD_SEALS = 1033

log = logging.getLogger("ipython_cluster")


class Gone(LookupError):
    """Memory that nobody lends any more, or that cannot be reached from here."""


@functools.lru_cache(maxsize=None)
def place():
    """Where this process can hand memory to others: machine, network namespace and user, as one word."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        network = os.stat("/proc/self/ns/net").st_ino
        os.memfd_create  # noqa: B018  Linux has it
    except (OSError, AttributeError):
        return ""
    text = "{} {} {}".format(boot, network, os.getuid())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def located(ident):
    """An engine's identity, with its place. ipyparallel makes names of variables of it: no other signs."""
    here = place()
    return "{}-{}".format(ident, here) if here else ident


def is_ours(uuid):
    """Whether an engine of this project has this identity, and no other one."""
    return re.search("-[0-9a-f]{16}$", uuid) is not None


def all_here(uuids):
    """Whether all of these engines are where this process is."""
    here = place()
    found = list(uuids)  # at once: a client's other thread may be adding to them
    return bool(here and found) and all(uuid.endswith("-" + here) for uuid in found)


def memory(buffer):
    """A descriptor of a memory file with this content, which nobody can change.

    Raises:
        OSError: there is not enough memory.
    """
    descriptor = os.memfd_create("ipython-cluster", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(buffer).cast("B")
        os.ftruncate(descriptor, len(left))
        at = 0
        while len(left):
            written = os.pwrite(descriptor, left[: 2**30], at)
            left, at = left[written:], at + written
        fcntl.fcntl(descriptor, ADD_SEALS, SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def mapped(descriptor):
    """The content of such a file, read-only, as long as somebody has it."""
    # From 3.13 on the map needs no descriptor of its own.
    options = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    return mmap.mmap(descriptor, os.fstat(descriptor).st_size, mmap.MAP_SHARED, mmap.PROT_READ, **options)


def same_user(line):
    """Whether the process at the other end is this user's. Names of sockets are no secret."""
    credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] == os.getuid()


class Lender:
    """What this process lends, and what others have handed over to it.

    Attributes:
        address: the name of its socket.
    """

    def __init__(self):
        self.pid = os.getpid()
        self.address = "ipython-cluster-{}-{}".format(self.pid, os.urandom(8).hex())
        self.lent = {}  # token -> descriptor
        self.received = {}  # token -> (descriptor, when)
        self.lock = threading.RLock()  # what a garbage collection takes back, it may while we hold it
        # Before 3.13 each array that was received has one; a shell's usual limit is 1,024.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind("\0" + self.address)
        self.socket.listen(128)
        threading.Thread(target=self._serve, name="lender", daemon=True).start()

    def lend(self, buffer):
        """A token for this content, until it is taken back."""
        token, descriptor = os.urandom(TOKEN_BYTES), memory(buffer)
        with self.lock:
            self.lent[token] = descriptor
        return token

    def take_back(self, tokens):
        """Whoever has asked for it keeps it; nobody else gets it any more."""
        for token in tokens:
            with self.lock:
                descriptor = self.lent.pop(token, None)
            if descriptor is not None:
                os.close(descriptor)

    def claim(self, token):
        """What was handed over under this token, once.

        Raises:
            Gone: there is none.
        """
        with self.lock:
            descriptor, _ = self.received.pop(token, (None, None))
        if descriptor is None:
            raise Gone("a large array can be fetched once, and was")
        try:
            return mapped(descriptor)
        finally:
            os.close(descriptor)

    def _serve(self):
        while True:
            try:
                line, _ = self.socket.accept()
            except OSError as problem:  # too many open files, too little memory: who asks waits
                if self.socket.fileno() < 0:
                    return
                log.warning("lender: %s", problem)
                time.sleep(0.1)
                continue
            with line:
                try:
                    self._answer(line)
                except (OSError, ValueError) as problem:
                    log.debug("lender: %s", problem)

    def _answer(self, line):
        line.settimeout(SPOKEN_SECONDS)
        if not same_user(line):
            return
        said, descriptors, _, _ = socket.recv_fds(line, 1 + TOKEN_BYTES, 1)
        verb, token = said[:1], said[1:]
        if verb == b"g":
            with self.lock:
                descriptor = self.lent.get(token)
                if descriptor is not None:
                    socket.send_fds(line, [b"here"], [descriptor])
        elif verb == b"p" and descriptors:
            now = time.monotonic()
            with self.lock:
                self.received[token] = descriptors[0], now
                late = [one for one, (_, when) in self.received.items() if now - when > KEPT_SECONDS]
                gone = [self.received.pop(one)[0] for one in late]
            for descriptor in gone:
                os.close(descriptor)
            line.send(b"have")


_lender = None
_making = threading.RLock()


def lender():
    """This process's own; a child that was forked has its own too.

    Raises:
        OSError: it cannot be had.
    """
    global _lender
    with _making:
        if _lender is None or _lender.pid != os.getpid():
            _lender = Lender()
        return _lender


def borrow(address, token):
    """What a lender has under this token, read-only.

    However long it takes: a lender that is stopped, or busy in code that is no Python, answers later.

    Raises:
        Gone: it has taken it back, is gone, or is elsewhere.
    """
    own = _lender
    if own is not None and own.pid == os.getpid() and own.address == address:
        return own.claim(token)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.connect("\0" + address)
            if not same_user(line):
                raise OSError("its name belongs to somebody else now")
            line.send(b"g" + token)
            _, descriptors, _, _ = socket.recv_fds(line, 16, 1)
    except OSError as problem:
        raise Gone("the memory of an array is gone with who has sent it: {}".format(problem)) from None
    if not descriptors:
        raise Gone("the memory of an array was taken back before it was asked for")
    try:
        return mapped(descriptors[0])
    finally:
        os.close(descriptors[0])


def hand_over(address, buffer):
    """Give this content to a lender; the token that it is claimed with.

    Raises:
        OSError: it cannot be reached, or there is not enough memory.
    """
    token = os.urandom(TOKEN_BYTES)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(SECONDS)
        line.connect("\0" + address)  # before the content is copied: it may be on another machine
        if not same_user(line):
            raise OSError("its name belongs to somebody else now")
        descriptor = memory(buffer)
        try:
            socket.send_fds(line, [b"p" + token], [descriptor])
            if line.recv(16) != b"have":
                raise OSError("an array was not taken")
        finally:
            os.close(descriptor)
    return token
