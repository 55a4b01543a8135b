"""Ending what belongs to a cluster, with real processes that would rather live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipython_builder import processes
from ipython_builder.processes import MARK
from tests.workbench import until

# Says its pid when it is ready, so that nobody has to guess when that is.
READY = "import os, time; print(os.getpid(), flush=True)\n"
SLEEP = READY + "time.sleep(3600)"
STUBBORN = "import signal; [signal.signal(s, signal.SIG_IGN) for s in (15, 2, 1)]\n" + SLEEP
# A daemon by the book: it leaves session, group and parent behind. Its pid is printed by itself.
DAEMON = "import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n" + SLEEP

Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program with a cluster's mark, and returns the pid that it says when it is ready."""
    started: list[subprocess.Popen[str]] = []
    pids: list[int] = []

    def start(program: str, home: Path | None = tmp_path) -> int:
        environ = {name: value for name, value in os.environ.items() if name != MARK}
        if home is not None:
            environ[MARK] = str(home)
        process = subprocess.Popen(
            [sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        pids.append(int(process.stdout.readline()))
        return pids[-1]

    yield start
    for pid in pids:
        if processes.alive(pid):
            os.kill(pid, signal.SIGKILL)
    for process in started:
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("program", [SLEEP, STUBBORN, DAEMON], ids=["plain", "ignores SIGTERM", "daemon"])
def test_sweep_ends_what_bears_the_mark(start: Start, tmp_path: Path, program: str) -> None:
    pid = start(program)
    assert pid in processes.of(tmp_path)
    assert processes.sweep(tmp_path, grace=0.3) == 1
    assert not processes.alive(pid)
    assert processes.of(tmp_path) == []


def test_children_inherit_the_mark_even_when_their_parent_is_gone(start: Start, tmp_path: Path) -> None:
    child = "import subprocess, sys, os\nsleep = [sys.executable, '-c', 'import time; time.sleep(999)']\n"
    orphan = start(child + "print(subprocess.Popen(sleep).pid, flush=True); os._exit(0)")
    until(lambda: processes.of(tmp_path) == [orphan], "the parent, which has spoken, ends")
    assert processes.sweep(tmp_path) == 1
    assert not processes.alive(orphan)


def test_others_are_left_alone(start: Start, tmp_path: Path) -> None:
    longer = tmp_path.with_name(tmp_path.name + "0")
    spared = [start(SLEEP, None), start(SLEEP, longer), start(SLEEP, tmp_path / "below")]
    mine = start(SLEEP)
    assert processes.of(tmp_path) == [mine]
    assert processes.sweep(tmp_path) == 1
    assert [processes.alive(pid) for pid in [mine, *spared]] == [False, True, True, True]
    assert processes.of(longer) == [spared[1]]


def test_a_mark_that_only_looks_like_one_is_none(start: Start, tmp_path: Path) -> None:
    environ = {"OTHER": f"{MARK}={tmp_path}", f"X{MARK}": str(tmp_path), f"{MARK}X": str(tmp_path)}
    words = [sys.executable, "-c", SLEEP]
    with subprocess.Popen(words, env=os.environ | environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert processes.of(tmp_path) == []
        process.kill()


def test_who_sweeps_from_inside_the_cluster_survives_with_those_above_it(
    start: Start, tmp_path: Path
) -> None:
    """`down`, typed in a terminal of the very cluster that it ends."""
    neighbour = start(STUBBORN)
    inner = "from ipython_builder import processes; from pathlib import Path; import sys\n"
    inner += "print(processes.sweep(Path(sys.argv[1]), grace=0.2), flush=True)"
    shell = f'{sys.executable} -c "$1" "$2"; echo the shell lives'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", inner, str(tmp_path)],
        env=os.environ | {MARK: str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[:2] == ["1", "the shell lives"], done.stderr
    assert not processes.alive(neighbour)


def test_nothing_to_sweep(tmp_path: Path) -> None:
    assert processes.of(tmp_path) == []
    assert processes.sweep(tmp_path) == 0


def test_a_zombie_is_not_alive() -> None:
    assert processes.alive(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert not processes.alive(child.pid)
    child.wait()
    assert not processes.alive(child.pid)
