"""What a cluster does when two things go wrong at once, files vanish, a disk is full: real clusters, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipython_builder import processes
from tests.conftest import Cli, Home, missing
from tests.test_pool import kill, little_memory, pids, ready, roles
from tests.workbench import console, notebook, pid_of, until

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "notebooks"
    notebook(root / "main.ipynb", "import colorsys")
    return root


@pytest.fixture
def there(cli: Cli, home: Home, folder: Path) -> Path:
    """The folder of a cluster with two engines."""
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    return home.clusters / "main"


def changed(before: dict[Any, int], after: dict[Any, int]) -> set[Any]:
    return {name for name in before if before[name] != after.get(name)}


def wrong(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("status", "main", "--json").json["wrong"]
    return found


def test_an_engine_that_fell_silent_registers_again(cli: Cli, there: Path) -> None:
    engine = pid_of(cli, "main", "engine", 1)
    os.kill(engine, signal.SIGSTOP)
    try:
        until(
            lambda: cli("status", "main", "--json").json["engines"]["registered"] == 1,
            "the controller does not count it any more",
            180,
        )
    finally:
        os.kill(engine, signal.SIGCONT)
    until(lambda: ready(cli), "it is known again")
    assert pid_of(cli, "main", "engine", 1) == engine
    assert console(cli, "main", "print(rc.ids, rc[1].apply_sync(__import__('os').getpid))") == (
        f"[0, 1] {engine}"
    )


def test_a_controller_that_is_killed_while_engines_register(cli: Cli, there: Path) -> None:
    words = [sys.executable, "-m", "ipython_builder", "scale", "main", "24"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as scale:
        until(lambda: cli("status", "main", "--json").json["engines"]["registered"] > 3, "some are there")
        kill(pid_of(cli, "main", "controller"))
        scale.wait()
    until(lambda: ready(cli), "all are registered", 180)
    engines = cli("status", "main", "--json").json["engines"]
    assert (engines["requested"], engines["registered"]) == (24, 24)
    assert console(cli, "main", "print(sum(rc[:].apply_sync(lambda: 1)))") == "24"


# -- up beside what lives --------------------------------------------------------------------------


def test_an_up_that_is_cut_off_while_it_takes_over_ends_no_engine(
    cli: Cli, folder: Path, there: Path
) -> None:
    console(cli, "main", "rc[:].push({'kept': 5}, block=True)")
    before = pids(cli)
    kill(before["supervisor", 0])
    words = [sys.executable, "-m", "ipython_builder", "up", str(folder), "--label", "main"]
    # The viewer cannot be started, so that it is not over too soon.
    kill(before["viewer", 0])
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as up:
        until(lambda: (there / "node.sock").exists(), "it has begun")
        up.send_signal(signal.SIGINT)
        up.wait()
    cli("up", folder, "--label", "main", check=True)
    assert changed(before, pids(cli)) <= {("supervisor", 0), ("viewer", 0)}
    assert console(cli, "main", "print(rc[:]['kept'])") == "[5, 5]"


def test_a_start_that_fails_leaves_what_lived_alone(cli: Cli, folder: Path, there: Path) -> None:
    before = pids(cli)
    kill(before["supervisor", 0])
    (there / "node.sock").unlink()
    (there / "node.sock").mkdir()  # no supervisor can start
    said = cli("up", folder, "--label", "main")
    assert said.rc == 1
    assert processes.alive(before["engine", 0])
    assert processes.alive(before["controller", 0])
    (there / "node.sock").rmdir()
    cli("up", folder, "--label", "main", check=True)
    assert changed(before, pids(cli)) == {("supervisor", 0)}


def test_a_socket_that_is_removed_is_made_again(cli: Cli, folder: Path, there: Path) -> None:
    before = pids(cli)
    (there / "node.sock").unlink()
    cli("up", folder, "--label", "main", check=True)
    assert changed(before, pids(cli)) == set()


def test_a_supervisor_that_is_stopped_goes_on(cli: Cli, folder: Path, there: Path) -> None:
    before = pids(cli)
    os.kill(before["supervisor", 0], signal.SIGSTOP)
    cli("up", folder, "--label", "main", check=True)
    assert changed(before, pids(cli)) == set()


def test_a_console_outlives_the_supervisor(cli: Cli, folder: Path, there: Path) -> None:
    words = [sys.executable, "-m", "ipython_builder", "console", "main", "--no-banner", "-c"]
    code = "print(rc.ids, flush=True); import sys; sys.stdin.readline(); print(rc[:].apply_sync(lambda: 7))"
    with subprocess.Popen([*words, code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stdout.readline().strip() == "[0, 1]"
        kill(pids(cli)["supervisor", 0])
        cli("up", folder, "--label", "main", check=True)
        assert shell.communicate("\n", timeout=60)[0].strip() == "[7, 7]"


# -- files -----------------------------------------------------------------------------------------


def test_a_controller_and_a_pool_come_back_without_any_of_their_files(cli: Cli, there: Path) -> None:
    console(cli, "main", "rc[:].push({'kept': 5}, block=True)")
    before = pids(cli)
    subprocess.run(["rm", "-rf", there / "ipython", there / "pool.json", there / "key"], check=True)
    kill(before["controller", 0], before["pool", 0], before["viewer", 0])
    until(lambda: ready(cli) and pids(cli)["controller", 0] != before["controller", 0], "all is back")
    assert changed(before, pids(cli)) == {("controller", 0), ("pool", 0), ("viewer", 0)}
    cli("scale", "main", "3", check=True)
    assert console(cli, "main", "print(rc.ids, rc[:2]['kept'])") == "[0, 1, 2] [5, 5]"


def test_up_writes_again_what_was_removed(cli: Cli, folder: Path, there: Path) -> None:
    before = pids(cli)
    subprocess.run(["rm", "-rf", there / "ipython"], check=True)
    cli("up", folder, "--label", "main", check=True)
    assert changed(before, pids(cli)) == set()
    assert console(cli, "main", "print(rc.ids)") == "[0, 1]"


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """While this lasts there is not a byte of room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_disk(cli: Cli, folder: Path, home: Home) -> None:
    disk = home.clusters
    disk.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tests", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        missing(f"a small disk ({mounted.stderr.strip()})")
    try:
        cli("up", folder, "-n", "2", "--label", "main", check=True)
        console(cli, "main", "rc[:].push({'kept': 5}, block=True)")
        with full(disk):
            before = pids(cli)
            kill(before["viewer", 0], before["engine", 1])
            until(lambda: ready(cli) and not changed_back(cli, before), "viewer and engine are back")
            said = cli("scale", "main", "4", check=True)
            assert "No space left" in json.dumps(wrong(cli)), said.stderr
            before = pids(cli)
            kill(before["supervisor", 0])
            cli("up", folder, "--label", "main", check=True)
            # Also those that were started while nothing could be written.
            living = {name: pid for name, pid in before.items() if name[1] in (0, 1) and name[0] == "engine"}
            assert changed(living, pids(cli)) == set()
            assert console(cli, "main", "print(rc[0]['kept'])") == "5"
        until(lambda: not wrong(cli), "nothing is wrong any more")
        cli("down", "main", check=True)
    finally:
        cli("down", "--all")
        subprocess.run(["umount", "-l", disk], check=True)


def changed_back(cli: Cli, before: dict[Any, int]) -> bool:
    """Whether viewer or engine 1 is still what it was."""
    now = pids(cli)
    return any(now.get(name) in (None, before[name]) for name in (("viewer", 0), ("engine", 1)))


# -- two at once -----------------------------------------------------------------------------------


def test_a_task_of_an_engine_that_dies_with_the_controller_fails_soon(cli: Cli, there: Path) -> None:
    before = pids(cli)
    code = f"""
import os, signal, time
view = rc.load_balanced_view(targets=[1])
task = view.apply_async(time.sleep, 1000)
time.sleep(1)
start = time.monotonic()
for pid in {[before["controller", 0], before["engine", 1]]}:
    os.kill(pid, signal.SIGKILL)
try:
    task.get(timeout=120)
except Exception as error:
    # A controller that knows nothing of the death waits for half a minute.
    print(error.ename, time.monotonic() - start < 20)
"""
    assert console(cli, "main", code) == "EngineError True"
    until(lambda: ready(cli), "all is back")


def test_engines_are_forked_again_when_what_forks_them_is_killed(cli: Cli, there: Path) -> None:
    pool = pid_of(cli, "main", "pool")
    words = [sys.executable, "-m", "ipython_builder", "scale", "main", "60"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as scale:
        batches: set[int] = set()
        while not batches and scale.poll() is None:  # they live for a second
            said = Path(f"/proc/{pool}/task/{pool}/children").read_text()
            batches = {int(pid) for pid in said.split()}
        kill(*batches)
        scale.wait()
        assert scale.returncode == 0
    assert batches
    assert ready(cli)
    assert pid_of(cli, "main", "pool") == pool


def test_a_pool_that_is_stopped_keeps_nobody_waiting(cli: Cli, there: Path) -> None:
    pool = pid_of(cli, "main", "pool")
    os.kill(pool, signal.SIGSTOP)
    try:
        cli("scale", "main", "3", check=True)
        assert console(cli, "main", "print(rc.ids)") == "[0, 1, 2]"
    finally:
        os.kill(pool, signal.SIGCONT)
    until(lambda: ready(cli), "there is no engine 2 twice")
    assert console(cli, "main", "print(rc.ids)") == "[0, 1, 2]"


# -- what is said ----------------------------------------------------------------------------------


def test_what_dies_again_and_again_waits_and_is_named(cli: Cli, there: Path) -> None:
    for _ in range(6):
        engine = pid_of(cli, "main", "engine", 1)
        kill(engine)
        until(
            lambda before=engine: roles(cli)["engine", 1]["pid"] not in (None, before) and ready(cli),
            "it is back",
        )
    said = [one for one in wrong(cli) if one["role"] == "engine"]
    assert said, roles(cli)
    assert said[0]["what"].startswith("engine 1: killed by SIGKILL, restarted ")
    # Since it began, and not since it came back the last time.
    assert said[0]["since"] < roles(cli)["engine", 1]["since"]


def test_engines_come_although_the_viewer_fails(cli: Cli, there: Path) -> None:
    record = json.loads((there / "cluster.json").read_text())
    (there / "cluster.json").write_text(json.dumps(record | {"viewer_python": "/nowhere/python"}))
    cli("scale", "main", "1", check=True)  # the record is read anew
    kill(pid_of(cli, "main", "viewer"))
    until(lambda: any(one["role"] == "viewer" for one in wrong(cli)), "the viewer fails")
    cli("scale", "main", "3", check=True)
    assert console(cli, "main", "print(rc.ids)") == "[0, 1, 2]"


def test_one_damaged_record_leaves_the_others_listed(cli: Cli, home: Home, there: Path) -> None:
    (home.clusters / "other").mkdir()
    (home.clusters / "other" / "cluster.json").write_text("{")
    said = cli("ls", "--json", check=True)
    states = {one["label"]: one["state"] for one in said.json}
    assert states == {"main": "ready", "other": "damaged"}
    assert "is damaged" in cli("status", "other", "--json").json["wrong"][0]["what"]


def test_the_lack_of_memory_of_others_is_not_blamed(cli: Cli, there: Path, tmp_path: Path) -> None:
    with little_memory(50, tmp_path) as group:
        greedy = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); x = b'x' * 10**9"
        ended = subprocess.run([sys.executable, "-c", greedy, group], check=False).returncode
    assert ended == -signal.SIGKILL
    # Not for this test to know how long a moment is; a console is started meanwhile.
    for _ in range(3):
        console(cli, "main", "import time; time.sleep(1)")
    engine = pid_of(cli, "main", "engine", 1)
    kill(engine)
    until(lambda: ready(cli) and pid_of(cli, "main", "engine", 1) != engine, "it is back")
    assert roles(cli)["engine", 1]["reason"] == "killed by SIGKILL"
