"""The controller with real engines and clients: what it remembers, who it forgets, what stops it from nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest

from tests.conftest import require
from tests.stand import MB, Stand, resident, stand
from tests.workbench import until

pytestmark = pytest.mark.slow

SECONDS = 60  # only ends what would never end


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Stand]:
    """A controller with two engines."""
    with stand(tmp_path) as made:
        made.up(2)
        yield made


def sleep(seconds: float) -> str:
    """For `eval` on an engine: the engine's process, after a while."""
    return f"__import__('time').sleep({seconds}) or __import__('os').getpid()"


def touch(path: Path, seconds: float = 0) -> str:
    """For `eval` on an engine: say that it has begun, and take a while."""
    return f"(open({str(path)!r}, 'a').write('x'), {sleep(seconds)})[1]"


def got(task: Any) -> Any:
    """A task's result, or the name of its error."""
    try:
        return task.get(timeout=SECONDS)
    except ipp.error.RemoteError as problem:
        return problem.ename
    except ipp.error.EngineError:
        return "EngineError"


def test_a_gigabyte_later_the_hub_has_kept_little(there: Stand) -> None:
    rc = there.client()
    hub = there.processes["controller", 0].pid
    data = os.urandom(10 * MB)
    for _ in range(60):
        rc[0].push({"data": data}, block=False).get(timeout=SECONDS)
    for _ in range(20):
        assert len(rc[0].pull("data", block=False).get(timeout=SECONDS)) == len(data)
    view = rc.load_balanced_view()
    for _ in range(30):
        assert len(view.apply_async(bytes, 10 * MB).get(timeout=SECONDS)) == 10 * MB
    assert got(rc[0].apply_async(len, data)) == len(data)
    assert got(view.map_async(pow, range(2000), [2] * 2000))[-1] == 1999**2
    until(lambda: not there.said["busy"] and there.said["tasks"]["done"] >= 2110, "the hub has heard of all")
    assert resident(hub) < 200
    # What came last is still there for others, with its result.
    last = view.apply_async(pow, 7, 2)
    assert got(last) == 49
    assert there.client().get_result(last.msg_ids[0]).get(timeout=SECONDS) == 49


def test_who_is_to_leave_finishes_its_task_and_gets_no_other(there: Stand, tmp_path: Path) -> None:
    rc = there.client()
    pids = rc[:].apply_async(os.getpid).get_dict(timeout=SECONDS)
    view = rc.load_balanced_view(targets=[0])
    begun = tmp_path / "begun"
    task = view.apply_async(eval, touch(begun, 3))
    until(begun.exists, "engine 0 works")
    there.tell("controller", leaving=[there.uuids[0]])
    until(lambda: there.said["busy"] == [0], "only the one is busy")
    others = rc.load_balanced_view().map_async(eval, [sleep(0.05)] * 40, chunksize=1)
    assert set(got(others)) == {pids[1]}
    assert got(task) == pids[0]
    # Nor when it is the only one that is idle.
    waiting = [rc.load_balanced_view().apply_async(eval, sleep(0.5)) for _ in range(4)]
    assert {got(one) for one in waiting} == {pids[1]}
    # What only it may run waits until it stays after all.
    mine = view.apply_async(os.getpid)
    assert not mine.wait(1)
    there.tell("controller", staying=[there.uuids[0]])
    assert got(mine) == pids[0]


def test_the_dead_are_forgotten_when_the_supervisor_says_so(there: Stand) -> None:
    rc = there.client()
    uuid = there.uuids[0]
    task = rc[0].apply_async(eval, sleep(1000))
    until(lambda: there.said["busy"] == [0], "it works")
    there.kill("engine", 0)
    there.tell("controller", lost=uuid)
    assert got(task) == "EngineError"
    until(lambda: rc.ids == [1], "the client knows it")
    there.add([0])
    until(lambda: rc.ids == [0, 1], "the client knows the successor")
    assert got(rc[0].apply_async(pow, 3, 2)) == 9


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of a few megabytes at `folder`."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"only root may mount a file system, and only where it may: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte on the disk of `folder`."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return filler


def test_a_full_disk_costs_the_journal_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "4m"), stand(disk / "stand") as there:
        there.up(2)
        rc = there.client()
        view = rc.load_balanced_view()
        journal = there.security / "tasks.journal"
        assert got(view.map_async(pow, range(20), [2] * 20))[-1] == 361
        assert journal.stat().st_size > 1000
        filler = fill(disk)
        task = view.apply_async(eval, sleep(4))
        assert got(view.map_async(pow, range(200), [2] * 200))[-1] == 199**2
        assert got(view.apply_async(len, b"x" * MB)) == MB
        assert not journal.exists()
        # A controller that is started now has a log with not a byte of room.
        there.log("controller").write_bytes(b"")
        fill(disk)
        there.restart_controller()
        assert got(task) in {there.processes["engine", number].pid for number in range(2)} | {"EngineError"}
        assert got(view.map_async(pow, range(20), [2] * 20))[-1] == 361
        filler.unlink()

        def written() -> bool:
            assert got(view.apply_async(pow, 2, 2)) == 4
            return journal.exists()

        until(written, "there is a journal again")
        # It counts: what waited is run by the successor.
        waiting = [view.apply_async(eval, sleep(0.2)) for _ in range(20)]
        until(lambda: there.said["tasks"]["queued"] >= 10, "they wait")
        there.restart_controller()
        results = [got(one) for one in waiting]
        assert len([one for one in results if one != "EngineError"]) >= 10


class Cable:
    """A network between this machine and a namespace of its own, where engines run; it can be pulled.

    Attributes:
        host: this end's address.
        before: words that run a command at the other end.
    """

    def __init__(self) -> None:
        self.far = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.before = ["nsenter", "--target", str(self.far.pid), "--net"]
        number = self.far.pid % 16000
        self.name = f"near{number}"
        net = f"10.213.{number // 64}.{number % 64 * 4}"
        self.host, there = (f"{net.rpartition('.')[0]}.{number % 64 * 4 + one}" for one in (1, 2))
        try:
            here = os.readlink("/proc/self/ns/net")
            until(lambda: os.readlink(f"/proc/{self.far.pid}/ns/net") != here, "there is a namespace", 5)
            self.ip(
                "link", "add", self.name, "type", "veth", "peer", "name", "far", "netns", str(self.far.pid)
            )
            self.ip("addr", "add", f"{self.host}/30", "dev", self.name)
            self.ip("link", "set", self.name, "up")
            self.ip("addr", "add", f"{there}/30", "dev", "far", far=True)
            self.ip("link", "set", "far", "up", far=True)
            self.ip("link", "set", "lo", "up", far=True)
        except (subprocess.CalledProcessError, OSError, AssertionError) as problem:
            self.close()
            said = getattr(problem, "stderr", None) or problem
            pytest.skip(f"only root may make network namespaces, and only where it may: {said}")

    def ip(self, *words: str, far: bool = False) -> None:
        command = [*(self.before if far else []), "ip", *words]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def pull(self) -> None:
        self.ip("link", "set", self.name, "down")

    def plug(self) -> None:
        self.ip("link", "set", self.name, "up")

    def forget(self) -> int:
        """End all connections at the other end; while the cable is pulled, this end does not hear of it."""
        command = [*self.before, "ss", "--kill", "--no-header", "--tcp", "dst", self.host]
        return len(subprocess.run(command, check=True, capture_output=True).stdout.splitlines())

    def close(self) -> None:
        self.far.kill()  # the namespace goes with its last process, and the cable with it
        self.far.wait()


@pytest.fixture
def cable() -> Iterator[Cable]:
    for tool in ("ip", "ss", "unshare", "nsenter"):
        require(tool)
    made = Cable()
    yield made
    made.close()


class Interrupted:
    """Work on two engines that goes on while they cannot be reached, and what must be true afterwards."""

    def __init__(self, there: Stand, mark: Path) -> None:
        self.there = there
        self.rc = rc = there.client()
        self.view = rc.load_balanced_view()
        rc[:].push({"kept": 5}, block=False).get(timeout=SECONDS)
        self.uuids = dict(there.uuids)
        self.pids = rc[:].apply_async(os.getpid).get(timeout=SECONDS)
        self.tasks = [self.view.apply_async(eval, touch(mark, 3)) for _ in range(4)]
        self.tasks.append(rc[0].apply_async(eval, sleep(1)))
        until(lambda: mark.exists() and len(mark.read_text()) == 2, "both engines work")

    def submit(self) -> None:
        """More, while nobody gets it."""
        shared = self.rc.broadcast_view()
        self.tasks += [
            self.view.apply_async(os.getpid),
            self.rc[1].apply_async(os.getpid),
            shared.apply_async(os.getpid),
        ]

    def is_over(self) -> list[Any]:
        """Nothing hangs, nobody is missing, nothing is forgotten; returns the results of the tasks."""
        results = [got(task) for task in self.tasks]
        until(lambda: self.there.uuids == self.uuids and self.rc.ids == [0, 1], "all are there again")
        assert self.rc[:].pull("kept", block=False).get(timeout=SECONDS) == [5, 5]
        assert self.rc[:].apply_async(os.getpid).get(timeout=SECONDS) == self.pids
        assert self.rc.broadcast_view().apply_async(os.getpid).get(timeout=SECONDS) == self.pids
        assert set(got(self.view.map_async(eval, [sleep(0.1)] * 10, chunksize=1))) == set(self.pids)
        return results


def test_twenty_seconds_without_network_cost_nothing(cable: Cable, tmp_path: Path) -> None:
    with stand(tmp_path, host=cable.host) as there:
        there.start("controller")
        there.add(range(2), before=cable.before)
        work = Interrupted(there, tmp_path / "mark")
        cable.pull()
        work.submit()
        time.sleep(20)
        assert there.uuids == work.uuids
        cable.plug()
        assert not {"EngineError", "CompositeError"} & set(map(str, work.is_over()))


def test_connections_that_only_one_end_believes_in(cable: Cable, tmp_path: Path) -> None:
    with stand(tmp_path, host=cable.host) as there:
        there.start("controller")
        there.add(range(2), before=cable.before)
        work = Interrupted(there, tmp_path / "mark")
        cable.pull()
        if not cable.forget():
            pytest.skip("this kernel ends no connections of others (CONFIG_INET_DIAG_DESTROY)")
        work.submit()
        time.sleep(2)
        cable.plug()
        work.is_over()


def test_a_controller_that_stands_still_for_twenty_seconds(there: Stand, tmp_path: Path) -> None:
    work = Interrupted(there, tmp_path / "mark")
    controller = there.processes["controller", 0].pid
    os.killpg(controller, signal.SIGSTOP)
    work.submit()
    time.sleep(20)
    os.killpg(controller, signal.SIGCONT)
    assert not {"EngineError", "CompositeError"} & set(map(str, work.is_over()))
