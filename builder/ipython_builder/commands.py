"""The one door to subprocesses: argv lists only, lines streamed, secrets redacted, whole groups killed.

The supervisor of roles has processes of its own kind (node.py); everything else that is run comes through
here.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipython_builder.errors import BuilderError, Transient

# Up to the last @ before the path: a password may hold one that nobody escaped. Looks back only, and so takes
# no longer than the text is long.
_CREDENTIALS = re.compile(r"(?<=://)[^/\s'\"]+@")


def redact(text: str, secrets: Sequence[str] = ()) -> str:
    """`text` without the user:password part of any URL in it and without any of `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _CREDENTIALS.sub("***@", text)


@dataclass(frozen=True)
class Result:
    """A finished command: its exit code and what it printed, redacted."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    on_line: Callable[[str], None] | None = None,
    secrets: Sequence[str] = (),
    timeout: float | None = None,
    grace: float = 0.0,
    check: bool = False,
    merged: bool = False,
) -> Result:
    """Run a command to its end and return what it said.

    Args:
        argv: program and arguments; never a shell line.
        env: the whole environment of the child (None: ours).
        stdin: text for its standard input (None: an empty one, so that nothing waits for a person).
        on_line: called with each redacted line of stderr, as it comes.
        secrets: strings that are replaced in everything returned or shown.
        timeout: seconds after which its whole process group is killed.
        grace: seconds in which it may put away what it has begun when we are interrupted.
        check: raise on a non-zero exit code.
        merged: its stdout is part of its stderr, line by line as it comes.

    Raises:
        BuilderError: the program is not there, or `check` and it failed.
        Transient: it ran past `timeout`.
    """
    words = tuple(os.fspath(a) for a in argv)
    try:
        process = subprocess.Popen(
            words,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # so that Ctrl-C reaches it through us, once, and its children with it
        )
    except FileNotFoundError as error:
        missing = error.filename or words[0]
        raise BuilderError(
            f"cannot run {words[0]}: {missing} is not there", "install it, or mend PATH"
        ) from error
    except OSError as error:  # not executable, not a program, an argument list too long
        raise BuilderError(f"cannot run {words[0]}: {error.strerror}") from error
    _guard.add(process.pid)
    out: list[str] = []
    err: list[str] = []

    def pump_err() -> None:
        stream = process.stdout if merged else process.stderr
        assert stream is not None
        for raw in stream:
            line = redact(raw.rstrip("\n"), secrets)
            err.append(line)
            if on_line:
                on_line(line)

    def pump_out() -> None:
        assert process.stdout is not None
        out.append(process.stdout.read())

    targets = [pump_err] if merged else [pump_err, pump_out]
    pumps = [threading.Thread(target=target, daemon=True) for target in targets]
    for pump in pumps:
        pump.start()
    try:
        if stdin is not None and process.stdin is not None:
            try:
                process.stdin.write(stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it ended without reading: its exit code tells more than this would
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        process.wait()
        raise Transient(f"{words[0]} did not finish within {timeout:.0f} s", "try again") from None
    except BaseException:
        _stop(process, grace)
        raise
    finally:
        _guard.remove(process.pid)
    for pump in pumps:
        pump.join(5)
    result = Result(words, process.returncode, redact("".join(out), secrets), "\n".join(err))
    if check and result.returncode != 0:
        tail = "\n".join((result.stderr or result.stdout).splitlines()[-20:])
        shown = redact(" ".join(words[:3]), secrets)
        raise BuilderError(f"{shown} … ended with {result.returncode}:\n{tail}")
    return result


@contextmanager
def beside(argv: Sequence[str], sign: re.Pattern[str], timeout: float) -> Iterator[re.Match[str]]:
    """Run a command as long as the block lasts; the block has what of its output matched `sign` first.

    Raises:
        BuilderError: the program is not there, or ended before it said that.
        Transient: it did not say it in `timeout` seconds.
    """
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BuilderError(f"cannot run {argv[0]}: {error.strerror}", "install it, or mend PATH") from error
    _guard.add(process.pid)
    lines: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(redact(line.rstrip("\n")))
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    try:
        yield _first(lines, sign, argv[0], timeout)
    finally:
        _stop(process, 0.0)
        _guard.remove(process.pid)


def _first(lines: queue.Queue[str | None], sign: re.Pattern[str], name: str, timeout: float) -> re.Match[str]:
    """The first match in what is said."""
    deadline = time.monotonic() + timeout
    said: list[str] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise Transient(f"{name} did not begin within {timeout:.0f} s", "try again") from None
        if line is None:
            raise BuilderError(f"{name} ended:\n" + "\n".join(said[-8:]))
        if found := sign.search(line):
            return found
        said.append(line)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is needed in passing; it goes too when this process is killed."""
    with tempfile.TemporaryDirectory(prefix="ipython-builder-") as name:
        _guard.add(name)
        try:
            yield Path(name)
        finally:
            _guard.remove(name)


# Reads what is to be put away, a word before each: + for what is there, - for what is gone. The end of what
# it reads is the end of the process that wrote it, in whatever way.
_GUARD = """
while read -r said what; do
    case $said in
        +) kept="$kept $what " ;;
        -) kept="${kept%% $what *} ${kept#* $what }" ;;
    esac
done
for what in $kept; do
    case $what in
        /*) folders="$folders $what" ;;
        *) kill -s KILL -- "-$what" ;;
    esac
done 2>/dev/null
test -z "$folders" || rm -rf -- $folders
"""


class _Guard:
    """Ends what this process has begun when it is killed, and could do nothing about that itself.

    PR_SET_PDEATHSIG reaches neither what a command has started nor a folder, and it follows a thread.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pipe: int | None = None
        self.owner = 0

    def add(self, what: int | str) -> None:
        self._say("+", what)

    def remove(self, what: int | str) -> None:
        self._say("-", what)

    def _say(self, word: str, what: int | str) -> None:
        if re.search(r"[^\w/.-]", str(what)):
            return  # a TMPDIR with a space in it: what is there is left there
        with self.lock:
            try:
                if self.owner != os.getpid():
                    self.pipe, self.owner = self._start(), os.getpid()
                if self.pipe is not None:
                    os.write(self.pipe, f"{word} {what}\n".encode())
            except OSError:
                self.pipe = None  # no shell here, or somebody ended it: what it is for is a courtesy

    def _start(self) -> int:
        reading, writing = os.pipe()
        try:
            subprocess.Popen(
                ["/bin/sh", "-c", _GUARD],
                env={"PATH": os.defpath},
                cwd="/",
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        return writing


_guard = _Guard()


def _stop(process: subprocess.Popen[str], grace: float) -> None:
    try:
        if grace:
            kill_group(process.pid, signal.SIGINT)
            process.wait(grace)
    except subprocess.TimeoutExpired:
        pass  # it had its time
    finally:  # a second Ctrl-C does not wait
        kill_group(process.pid)
        process.wait()


def kill_group(pid: int, sig: signal.Signals = signal.SIGKILL) -> None:
    """Send `sig` to the process group `pid` leads; a group that is gone is no error."""
    try:
        os.killpg(pid, sig)
    except ProcessLookupError:
        return
