"""Daemons that several test processes share: the first one starts it, it ends with the last one.

Whoever uses a daemon holds ``FOLDER/users`` shared. The kernel lets go of that when a process ends, however it
ends; so a daemon outlives no interrupted and no killed test run. A keeper of its own session, which is this file
run as a program, waits for the lock for itself alone and then ends the daemon. The keeper's sign of life is
another lock, on ``FOLDER/keeper``. Standard library only, because the keeper runs this file by its path.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn

PATIENCE = 20  # seconds that a daemon has to end its containers
START = 60  # seconds that it has to answer


class NotStarted(Exception):
    """A daemon does not answer; the message has the end of its log."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all processes that ask for this path; waits for the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def kept(
    folder: Path,
    start: Callable[[Path], tuple[str, list[str]]],
    answers: Callable[[str], bool],
    seconds: float = START,
) -> Iterator[str]:
    """The address of a daemon that all share who are in here with the same `folder`.

    `start` is given a short folder for its sockets, which goes with the daemon, and says address and command.
    `answers` has to be true within `seconds`.

    Raises:
        NotStarted: it ended or did not answer; the next one who comes tries again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keeper = None
    with contextlib.ExitStack() as use:
        users = use.enter_context((folder / "users").open("a"))
        with locked(folder / "start"):
            fcntl.flock(users, fcntl.LOCK_SH)  # waits while an old one is being ended
            with (folder / "keeper").open("a") as sign:
                if taken(sign):
                    forget(folder)
                    runtime = Path(tempfile.mkdtemp(prefix="ipb-"))
                    (folder / "runtime").write_text(str(runtime))
                    keeper = begin(folder, sign, runtime, *start(runtime))
            address = (folder / "address").read_text()
            deadline = time.monotonic() + seconds
            while not answers(address):
                if time.monotonic() > deadline or (keeper and keeper.poll() is not None):
                    tail = (folder / "log").read_text(errors="replace")[-2000:]
                    raise NotStarted(f"the daemon at {address} does not answer; its log ends with:\n{tail}")
                time.sleep(0.1)
        yield address
    depart(folder, keeper)


def taken(file: IO[str], how: int = fcntl.LOCK_EX) -> bool:
    """Whether a lock could be taken at once."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def forget(folder: Path) -> None:
    """Remove the short folder of an earlier life, whose keeper was killed before it could."""
    try:
        shutil.rmtree((folder / "runtime").read_text(), ignore_errors=True)
    except FileNotFoundError:
        pass


def begin(
    folder: Path, sign: IO[str], runtime: Path, address: str, command: list[str]
) -> subprocess.Popen[bytes]:
    """Start a keeper, which inherits the locked sign."""
    (folder / "address").write_text(address)
    return subprocess.Popen(
        [sys.executable, __file__, folder, runtime, str(sign.fileno()), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[sign.fileno()],
        start_new_session=True,
    )


def depart(folder: Path, keeper: subprocess.Popen[bytes] | None) -> None:
    """Wait until the daemon has ended, unless somebody else uses it."""
    deadline = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < deadline:
        with (folder / "keeper").open("a") as sign, (folder / "users").open("a") as users:
            if taken(sign):
                break
            if not taken(users) and taken(users, fcntl.LOCK_SH):
                return
        time.sleep(0.1)
    if keeper:
        keeper.wait(PATIENCE)


# -- the keeper -----------------------------------------------------------------------------------


class Ended(Exception):
    """The daemon has ended by itself, or the keeper was told to end it."""


def end(number: int, frame: object) -> NoReturn:
    raise Ended


def follow() -> None:
    """In the daemon: end when the keeper does (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def keep(folder: Path, runtime: Path, sign: int, command: list[str]) -> None:
    with (folder / "log").open("wb") as log, (folder / "users").open("a") as users:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            preexec_fn=follow,
        )
        try:
            signal.signal(signal.SIGTERM, end)
            signal.signal(signal.SIGCHLD, end)
            if daemon.poll() is None:
                fcntl.flock(users, fcntl.LOCK_EX)
        except Ended:
            pass
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        daemon.terminate()
        try:
            daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        try:
            os.killpg(daemon.pid, signal.SIGKILL)  # what it started and did not end
        except ProcessLookupError:
            pass
        shutil.rmtree(runtime, ignore_errors=True)
        os.close(sign)  # before the users' lock: who waits for that one looks at this one next


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
