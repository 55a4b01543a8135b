"""The engine pool, and what a cluster does when its parts are killed: real clusters, real kills."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipython_builder import processes
from tests.conftest import Cli, Home, missing
from tests.workbench import console, notebook, pid_of, until

pytestmark = pytest.mark.slow

DEVICE = "/dev/fuse" if os.path.islink("/dev/ptmx") else "/dev/ptmx"  # a container's is a link to a terminal
PIDS = "print(dict(rc[:].apply_async(__import__('os').getpid).get_dict()))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "notebooks"
    notebook(root / "main.ipynb", "import colorsys, decimal")
    return root


def roles(cli: Cli, label: str = "main") -> dict[tuple[str, int], dict[str, Any]]:
    return {(one["role"], one["id"]): one for one in cli("status", label, "--json").json["roles"]}


def pids(cli: Cli) -> dict[tuple[str, int], int]:
    return {name: one["pid"] for name, one in roles(cli).items()}


def ready(cli: Cli) -> bool:
    return bool(cli("status", "main", "--json").json["state"] == "ready")


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def preload(folder: Path, *names: str, timeout: float = 30) -> None:
    (folder / ".ipython-builder.toml").write_text(
        f"[pool]\npreload = {json.dumps(names)}\ntimeout = {timeout}\n"
    )


def test_engines_are_forked_and_share_nothing_that_they_should_not(cli: Cli, folder: Path) -> None:
    preload(folder, "json.tool")
    cli("up", folder, "-n", "3", "--label", "main", check=True)
    pool = pid_of(cli, "main", "pool")
    for number in range(3):
        engine = pid_of(cli, "main", "engine", number)
        # The same program, with nothing of the pool's command line: a fork.
        assert "ipython_cluster.pool" in Path(f"/proc/{engine}/cmdline").read_text()
        # The supervisor is its parent, so it outlives the pool and its end is heard.
        assert processes.parent(engine) == pid_of(cli, "main", "supervisor")
        assert engine != pool
    asked = (
        "import random\n"
        "print(len(set(rc[:].apply_sync(lambda: __import__('random').random()))))\n"
        "print(rc[:].apply_sync(lambda: 'json.tool' in __import__('sys').modules))"
    )
    assert console(cli, "main", asked).split("\n") == ["3", "[True, True, True]"]
    assert "json.tool" in cli("logs", "main", "pool", check=True).stdout


def test_one_engine_is_interrupted_in_mid_task(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    code = """
import signal, time
tasks = [rc[one].apply_async(time.sleep, seconds) for one, seconds in ((0, 1000), (1, 2))]
time.sleep(0.5)
rc.send_signal(signal.SIGINT, 0, block=True)
for task in tasks:
    try:
        print(task.get(timeout=60))
    except Exception as error:
        print(error.ename)
print(rc[0].apply_sync(lambda: 7))
"""
    assert console(cli, "main", code).split("\n") == ["KeyboardInterrupt", "None", "7"]
    assert roles(cli)["engine", 0]["restarts"] == 0


def test_what_cannot_be_shared_is_left_out_by_looking(cli: Cli, folder: Path, home: Home) -> None:
    site = folder / "site"
    bad = {
        "leaves_thread": "import threading, time; threading.Thread(target=time.sleep, args=(999,), daemon=True).start()",
        "leaves_socket": "import socket; line = socket.socket()",
        "leaves_child": "import subprocess; child = subprocess.Popen(['sleep', '999'])",
        "raises": "raise RuntimeError('not today')",
        "exits": "import os; os._exit(3)",
        "quits": "raise SystemExit(4)",
        "hangs": "import time; time.sleep(999)",
        "deaf": "import signal, time; signal.signal(signal.SIGALRM, signal.SIG_IGN); time.sleep(999)",
        "wanders": "import os; os.chdir('/')",
        "masks": "import os; os.umask(0)",
        "sets": "import os; os.environ['HOME'] = '/nowhere'",
        "adds": "import os; os.environ['ADDED'] = 'yes'",
        # A GPU is opened like any device; these are there where there is none.
        "opens": f"import os; device = os.open('{DEVICE}', os.O_RDWR | os.O_NOCTTY)",
        "borrows": "import tempfile; folder = tempfile.TemporaryDirectory(prefix='borrowed-')",
        "returns": "import tempfile; folder = tempfile.TemporaryDirectory(); folder.cleanup()",
        "prints": "print('hello from an import')",
    }
    site.mkdir(parents=True)
    for name, text in bad.items():
        (site / f"{name}.py").write_text(text + "\n")
    (folder / "requirements.txt").write_text("./brings\n")
    package = folder / "brings"
    package.mkdir()
    names = list(bad)
    (package / "pyproject.toml").write_text(
        "[project]\nname = 'brings'\nversion = '1'\n"
        f"[tool.setuptools]\npy-modules = {json.dumps(names)}\npackage-dir = {{'' = 'src'}}\n"
    )
    site.rename(package / "src")
    preload(folder, *names, timeout=2)
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    until(lambda: ready(cli), "the cluster is ready")
    said = cli("logs", "main", "pool", "--last", "1000", check=True).stdout
    assert "starting over without leaves_thread: it leaves behind 1 thread" in said
    assert "starting over without leaves_socket: it leaves behind an open socket" in said
    assert "starting over without leaves_child: it leaves behind a child process" in said
    assert "not preloaded: raises raised" in said
    assert "not preloaded: exits (the pool ended with 3 while it was imported)" in said
    assert "not preloaded: quits raised" in said
    assert "not preloaded: hangs (its import took too long)" in said
    assert "not preloaded: deaf (its import took too long)" in said
    assert "starting over without wanders: it changes the working folder" in said
    assert "starting over without masks: it changes the mask of new files" in said
    assert "starting over without sets: it changes HOME" in said
    assert f"starting over without opens: it leaves behind the open device {DEVICE}" in said
    assert "starting over without borrows: it leaves behind a temporary folder" in said
    assert not list(Path(tempfile.gettempdir()).glob("borrowed-*"))
    assert "hello from an import" in said
    left_out = cli("status", "main", "--json").json["pool"]["left_out"]
    assert set(left_out) == {
        *("leaves_thread", "leaves_socket", "leaves_child", "exits", "hangs"),
        *("deaf", "wanders", "masks", "sets", "opens", "borrows"),
    }
    asked = "__import__('os').environ.get('ADDED'), __import__('os').environ['HOME']"
    home = os.environ["HOME"]
    assert console(cli, "main", f"print(rc[0].apply_sync(lambda: ({asked})))") == f"('yes', {home!r})"
    assert console(cli, "main", "print(rc[:].apply_sync(lambda: 'prints' in __import__('sys').modules))") == (
        "[True, True]"
    )


def test_without_the_fork_engines_are_the_same(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", "--no-fork", check=True)
    assert ("pool", 0) not in roles(cli)
    engine = pid_of(cli, "main", "engine", 1)
    assert "ipython_cluster.engine" in Path(f"/proc/{engine}/cmdline").read_text()
    kill(engine)
    until(lambda: ready(cli) and pid_of(cli, "main", "engine", 1) != engine, "the engine is back")
    assert console(cli, "main", "print(rc.ids)") == "[0, 1]"


def test_a_pool_that_is_killed_leaves_its_engines_alone(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    before = pids(cli)
    kill(before["pool", 0])
    until(lambda: ready(cli) and pids(cli)["pool", 0] != before["pool", 0], "another pool")
    after = pids(cli)
    assert {name for name in before if before[name] != after[name]} == {("pool", 0)}
    cli("scale", "main", "4", check=True)
    assert console(cli, "main", "print(rc.ids)") == "[0, 1, 2, 3]"


def test_a_killed_supervisor_is_succeeded_and_everything_lives_on(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    console(cli, "main", "rc[:].push({'kept': 5}, block=True)")
    before = pids(cli)
    kill(before["supervisor", 0])
    assert cli("status", "main", "--json").json["state"] == "unsupervised"
    cli("up", folder, "--label", "main", check=True)
    after = pids(cli)
    assert {name for name in before if before[name] != after[name]} == {("supervisor", 0)}
    assert console(cli, "main", "print(rc[:]['kept'])") == "[5, 5]"
    # What was taken over is watched like what was started.
    kill(after["engine", 0])
    until(lambda: ready(cli) and pids(cli)["engine", 0] != after["engine", 0], "the engine is back")
    cli("down", "main", check=True)
    assert not any(processes.alive(pid) for pid in after.values())


def test_all_at_once(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "3", "--label", "main", check=True)
    before = pids(cli)
    kill(*(before[name] for name in (("controller", 0), ("pool", 0), ("engine", 1), ("viewer", 0))))
    until(lambda: ready(cli) and pids(cli)["engine", 1] != before["engine", 1], "all is back")
    after = pids(cli)
    assert {name for name in before if before[name] == after[name]} == {
        ("supervisor", 0),
        ("engine", 0),
        ("engine", 2),
    }
    assert console(cli, "main", "print(rc.ids, sorted(rc[:].apply_sync(lambda: 1)))") == "[0, 1, 2] [1, 1, 1]"


def test_none_is_a_number_of_engines(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    cli("scale", "main", "0", check=True)
    assert [name for name in pids(cli) if name[0] == "engine"] == []
    cli("scale", "main", "2", check=True)
    assert console(cli, "main", "print(len(rc.ids))") == "2"


def test_a_changed_preload_list_reaches_a_running_cluster(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "1", "--label", "main", check=True)
    before = pids(cli)
    preload(folder, "json.tool")
    cli("up", folder, "--label", "main", check=True)
    until(lambda: "json.tool" in cli("logs", "main", "pool").stdout, "it is preloaded")
    after = pids(cli)
    assert {name for name in before if before[name] != after[name]} == {("pool", 0)}


def test_an_engine_that_ends_itself_is_back_and_its_task_failed(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    code = """
import os
task = rc[1].apply_async(os._exit, 3)
try:
    task.get(timeout=30)
except Exception as error:
    print(error.ename)
"""
    assert console(cli, "main", code).split("\n")[-1] == "EngineError"
    until(lambda: ready(cli) and roles(cli)["engine", 1]["restarts"] == 1, "it is back")
    assert roles(cli)["engine", 1]["reason"] == "ended with 3"


def test_no_task_hangs_when_the_controller_or_one_of_its_processes_dies(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    code = """
import os, signal, time
def square(x):
    import time
    time.sleep(0.05)
    return x * x
view = rc.load_balanced_view()
direct = rc[0].apply_async(time.sleep, 3)
waiting = [view.apply_async(square, x) for x in range(100)]
time.sleep(1)
os.kill(VICTIM, signal.SIGKILL)
results = [task.get(timeout=60, return_exceptions=True) for task in waiting]
good = [one for one in results if isinstance(one, int)]
# What engines were computing may be lost; what waited is not.
print(direct.get(timeout=60), len(good) >= 90, set(good) <= {x * x for x in range(100)})
print(view.apply_sync(square, 3))
"""
    for victim in ("controller", "scheduler"):
        controller = pid_of(cli, "main", "controller")
        children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        pid = controller if victim == "controller" else int(children[3])
        said = console(cli, "main", code.replace("VICTIM", str(pid)))
        assert said.split("\n")[-2:] == ["None True True", "9"], victim
        until(lambda: ready(cli), "the cluster is ready")


def test_scale_lets_idle_engines_go_first_and_a_task_finish(cli: Cli, folder: Path) -> None:
    cli("up", folder, "-n", "3", "--label", "main", check=True)
    code = """
import subprocess, sys, time
task = rc[2].apply_async(lambda: __import__('time').sleep(5) or 'finished')
time.sleep(0.5)
subprocess.run(COMMAND, check=True)
print(rc.ids, task.get(timeout=60))
"""
    command = [sys.executable, "-m", "ipython_builder", "scale", "main", "1"]
    said = console(cli, "main", code.replace("COMMAND", repr(command)))
    assert said.split("\n")[-1] == "[2] finished"


def test_mpi_engines_are_started_one_by_one(cli: Cli, home: Home, folder: Path) -> None:
    cli("up", folder, "-n", "1", "--label", "main", check=True)
    profile = home.clusters / "main" / "ipython" / "profile_default"
    (profile / "ipengine_config.py").write_text("c.IPEngine.use_mpi = True\nc.IPEngine.init_mpi = ''\n")
    kill(pid_of(cli, "main", "pool"))
    until(lambda: roles(cli)["pool", 0]["state"] == "off", "the pool refuses")
    assert roles(cli)["pool", 0]["reason"] == "MPI engines are started one by one"
    cli("scale", "main", "2", check=True)
    engine = pid_of(cli, "main", "engine", 1)
    assert "ipython_cluster.engine" in Path(f"/proc/{engine}/cmdline").read_text()


def test_numpy_draws_other_numbers_in_each_engine(cli: Cli, folder: Path) -> None:
    (folder / "requirements.txt").write_text("numpy\n")
    preload(folder, "numpy.random")
    cli("up", folder, "-n", "3", "--label", "main", check=True)
    asked = (
        "def draw():\n"
        "    import sys\n"
        "    before = 'numpy.random' in sys.modules\n"
        "    import numpy\n"
        "    return before, numpy.random.random(), numpy.random.default_rng().random()\n"
        "there, old, new = zip(*rc[:].apply_sync(draw))\n"
        "print(there, len(set(old)), len(set(new)))"
    )
    assert console(cli, "main", asked) == "(True, True, True) 3 3"


@contextmanager
def little_memory(megabytes: int, tmp_path: Path) -> Iterator[Path]:
    """The file that takes the pids of processes that may have so much memory together, as in a container."""
    root = Path("/sys/fs/cgroup")
    older = root / "memory"
    if older.is_dir():  # version 1 of control groups
        group, limit = older / tmp_path.name, "memory.limit_in_bytes"
    else:
        group, limit = root / tmp_path.name, "memory.max"
    try:
        group.mkdir()
    except OSError as error:
        missing(f"a control group for memory ({error})")
    try:
        try:
            (group / limit).write_text(str(megabytes * 1024**2))
        except OSError as error:
            missing(f"a limit of memory ({error})")
        yield group / "cgroup.procs"
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "all in the group have ended")
        group.rmdir()


def test_an_engine_that_eats_all_memory_is_said_to(cli: Cli, folder: Path, tmp_path: Path) -> None:
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    with little_memory(300, tmp_path) as group:
        group.write_text(str(pid_of(cli, "main", "engine", 1)))
        code = """
task = rc[1].apply_async(lambda: len(b'x' * 10**9))
try:
    task.get(timeout=120)
except Exception as error:
    print(error.ename)
"""
        assert console(cli, "main", code) == "EngineError"
        until(lambda: ready(cli), "the engine is back")
    engine = roles(cli)["engine", 1]
    assert engine["reason"] == "killed by the kernel: out of memory"
    assert engine["restarts"] == 1
    assert roles(cli)["engine", 0]["restarts"] == 0
