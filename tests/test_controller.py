"""The controller with real engines and clients: what it remembers, who it forgets, what stops it from nothing."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
import zmq
from jupyter_client.session import Session

from tests.conftest import missing, require
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


def sleep(seconds: float | str) -> str:
    """For `eval` on an engine: the engine's process, after a while."""
    return f"__import__('time').sleep({seconds}) or __import__('os').getpid()"


def touch(path: Path, seconds: float | str = 0) -> str:
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
        missing(f"the right to mount a file system ({done.stderr.strip()})")
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
        there.log("engine", 2).write_bytes(b"")
        fill(disk)
        there.add([2])  # nor does an engine need a log
        assert got(there.client()[2].apply_async(print, "x" * 10_000)) is None
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
            missing(f"the right to make a network namespace ({said})")

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

    def block(self, port: int) -> None:
        """Have nothing pass to this port of this end, and end what is connected to it."""
        self.rule("--append", port)
        subprocess.run(
            [*self.before, "ss", "--kill", "--tcp", "dport", f":{port}"], check=True, capture_output=True
        )

    def unblock(self, port: int) -> None:
        self.rule("--delete", port)

    def rule(self, what: str, port: int) -> None:
        command = [*self.before, "iptables", what, "OUTPUT", "--protocol", "tcp", "--dport", str(port)]
        subprocess.run([*command, "--jump", "DROP"], check=True, capture_output=True)

    def close(self) -> None:
        self.far.kill()  # the namespace goes with its last process, and the cable with it
        self.far.wait()


@pytest.fixture
def cable() -> Iterator[Cable]:
    for tool in ("ip", "ss", "iptables", "unshare", "nsenter"):
        require(tool)
    made = Cable()
    yield made
    made.close()


def end_connections(*which: str) -> None:
    """End connections of this machine, as ss selects them."""
    command = [require("ss"), "--kill", "--no-header", "--tcp", *which]
    if not subprocess.run(command, check=True, capture_output=True).stdout:
        missing("the right to end connections, or CONFIG_INET_DIAG_DESTROY in the kernel")


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
            missing("a kernel that ends connections of others (CONFIG_INET_DIAG_DESTROY)")
        work.submit()
        time.sleep(2)
        cable.plug()
        work.is_over()
        # The same while nobody says anything: nothing that is sent shows this end that nobody is there.
        cable.pull()
        cable.forget()
        time.sleep(1)
        cable.plug()
        until(lambda: [got(one.apply_async(pow, 2, 2)) for one in work.rc] == [4, 4], "both can be reached")
        work.is_over()


def test_engines_that_are_known_before_they_can_be_reached(cable: Cable, tmp_path: Path) -> None:
    with stand(tmp_path, host=cable.host) as there:
        there.start("controller")
        there.add(range(2), before=cable.before)
        work = Interrupted(there, tmp_path / "mark")
        direct = json.loads((there.security / "ipcontroller-engine.json").read_text())["mux"]
        cable.block(direct)
        there.restart_controller()
        until(lambda: there.uuids == work.uuids and work.rc.ids == [0, 1], "both have registered again")
        # Sent before the client asks for what was lost, and when it asks no more: nobody gets either.
        work.submit()
        hub = json.loads((there.security / "ipcontroller-client.json").read_text())["registration"]
        end_connections("dst", cable.host, "dport", "=", f":{hub}")
        time.sleep(8)
        work.submit()
        cable.unblock(direct)
        work.is_over()


def test_a_client_whose_connections_break(there: Stand) -> None:
    rc = there.client()
    ports = json.loads((there.security / "ipcontroller-client.json").read_text())
    first, last = ports["registration"], ports["broadcast"]
    which = ["dst", "127.0.0.1", "dport", ">=", f":{first}", "dport", "<=", f":{last}"]
    views = [rc[0], rc[1], rc.load_balanced_view(), rc.broadcast_view()]
    for _ in range(3):
        tasks = [view.apply_async(eval, sleep(0.02)) for _ in range(40) for view in views]
        tasks[20].wait(SECONDS)
        end_connections(*which)
        results = [got(task) for task in tasks]
        assert len([one for one in results if not isinstance(one, str)]) >= 20
    assert rc.ids == [0, 1]
    assert rc[:].apply_async(pow, 2, 2).get(timeout=SECONDS) == [4, 4]


def test_a_controller_that_stands_still_for_twenty_seconds(there: Stand, tmp_path: Path) -> None:
    work = Interrupted(there, tmp_path / "mark")
    controller = there.processes["controller", 0].pid
    os.killpg(controller, signal.SIGSTOP)
    work.submit()
    time.sleep(20)
    os.killpg(controller, signal.SIGCONT)
    assert not {"EngineError", "CompositeError"} & set(map(str, work.is_over()))


def test_broadcasts_outlive_their_controller(there: Stand, tmp_path: Path) -> None:
    rc = there.client()
    pids = rc[:].apply_async(os.getpid).get(timeout=SECONDS)
    for together in (False, True):
        view = rc.broadcast_view(is_coalescing=together)
        assert view.apply_async(os.getpid).get(timeout=SECONDS) == pids
        mark = tmp_path / f"mark-{together}"
        # The first engine answers the controller that is killed, the second one its successor.
        seconds = f"0.1 if __import__('os').getpid() == {pids[0]} else 2"
        split = view.apply_async(eval, touch(mark, seconds))
        waiting = view.apply_async(os.getpid)
        until(lambda mark=mark: mark.exists() and len(mark.read_text()) == 2, "both engines work")
        time.sleep(0.5)
        there.restart_controller()
        for task in (split, waiting):
            # What comes is right, and what does not come is said.
            assert got(task) in (pids, "EngineError", "CompositeError")
        assert view.apply_async(os.getpid).get(timeout=SECONDS) == pids
    assert "KeyError" not in there.log("controller").read_text()


# The clock on the wall, ahead by the seconds in a file; the steady one is left alone, as when a clock is set.
CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long ahead(void) {
    char text[32] = "";
    int file = open(getenv("TEST_CLOCK"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
    close(file);
    return atol(text);
}
int clock_gettime(clockid_t which, struct timespec *now) {
    int rc = syscall(SYS_clock_gettime, which, now);
    if (!rc && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return rc;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    now->tv_sec = t.tv_sec;
    now->tv_usec = t.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *result) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (result) *result = t.tv_sec;
    return t.tv_sec;
}
"""


def test_a_clock_that_is_set_stops_nothing(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    (tmp_path / "clock.c").write_text(CLOCK)
    command = [require("cc"), "-shared", "-fPIC", "-o", tmp_path / "clock.so", tmp_path / "clock.c"]
    subprocess.run(command, check=True)
    env = {"LD_PRELOAD": str(tmp_path / "clock.so"), "TEST_CLOCK": str(clock)}
    with stand(tmp_path / "stand") as there:
        there.start("controller", env=env)
        there.add(range(2), env=env)
        rc = there.client()
        view = rc.load_balanced_view()
        uuids = dict(there.uuids)
        for hours in (2, -2):
            running = [view.apply_async(eval, sleep(2)) for _ in range(4)]
            clock.write_text(str(hours * 3600))
            said = there.said["tasks"]["done"]
            assert not {"EngineError"} & {got(one) for one in running}
            # All of them have seen it.
            task = rc[0].apply_async(time.time)
            assert abs(got(task) - time.time() - hours * 3600) < 60
            query = {"msg_id": task.msg_ids[0]}
            query["received"] = {"$ne": None}  # the hub hears of it after the client
            (record,) = until(lambda query=query: rc.db_query(query, keys=["received"]), "the hub has it")
            assert abs(record["received"].timestamp() - time.time() - hours * 3600) < 60
            until(lambda said=said: there.said["tasks"]["done"] >= said + 5, "the controller still reports")
            # Longer than two heartbeats, so that one that stopped would be missed.
            time.sleep(7)
            assert there.uuids == uuids
            there.add([2], env=env)
            assert got(rc[:].apply_async(pow, 2, 2)) == [4, 4, 4]
            uuid = there.uuids[2]
            there.kill("engine", 2)
            there.tell("controller", lost=uuid)
            until(lambda: 2 not in there.uuids and rc.ids == [0, 1], "it is forgotten")


def test_what_cannot_be_pickled_fails_at_once(there: Stand) -> None:
    rc = there.client()
    lock = threading.Lock()
    for view in (rc[0], rc[:], rc.load_balanced_view(), rc.broadcast_view()):
        with pytest.raises((TypeError, AttributeError, ValueError, pickle.PicklingError)):
            view.apply_async(lock.acquire)
        with pytest.raises((TypeError, AttributeError, ValueError, pickle.PicklingError)):
            view.apply_async(len, [lock])
    assert not rc.outstanding
    # Nor is a result that cannot be.
    for view in (rc[0], rc.load_balanced_view()):
        assert got(view.apply_async(eval, "__import__('threading').Lock()")) == "TypeError"
    assert not rc.outstanding
    until(lambda: not there.said["busy"], "nobody waits")
    tasks = there.said["tasks"]
    assert (tasks["queued"], tasks["running"], tasks["failed"]) == (0, 0, 2)


def test_an_engine_that_dies_while_its_task_is_made(there: Stand) -> None:
    """It was chosen already, and large arguments take a while: nobody would answer, and the client would wait."""
    rc = there.client()

    class Late:
        def __reduce__(self) -> tuple[Any, ...]:
            if 0 in rc.ids:
                there.kill("engine", 0)
                there.tell("controller", lost=there.uuids[0])
                until(lambda: 0 not in rc.ids, "the client knows")
            return pow, (2, 5)

    late = Late()
    tasks = [rc[0].apply_async(str, late), rc[1].apply_async(str, late)]
    assert [got(task) for task in tasks] == ["EngineError", "32"]
    assert not rc.outstanding


def test_a_task_that_ends_its_engine(there: Stand, tmp_path: Path) -> None:
    rc = there.client()
    view = rc.load_balanced_view()
    mark = tmp_path / "mark"
    # Ends the engine that has it first.
    code = f"(open({str(mark)!r}, 'a').write('x'), open({str(mark)!r}).read())[1]"
    code = f"{sleep(0.2)} if {code} == 'xx' else __import__('os')._exit(3)"
    with view.temp_flags(retries=1):
        tried = view.apply_async(eval, code)

    def dies() -> int:
        """The engine that ended; the supervisor would notice."""
        engines = {number: there.processes["engine", number] for number in there.uuids}
        dead = until(lambda: [n for n, process in engines.items() if process.poll() is not None], "one ends")
        there.tell("controller", lost=there.uuids[dead[0]])
        until(lambda: dead[0] not in there.uuids, "the controller knows")
        return int(dead[0])

    first = dies()
    assert got(tried) == there.processes["engine", 1 - first].pid
    assert mark.read_text() == "xx"
    # What has no tries left fails, and what waited for the same engine does not.
    there.add([first])
    task = view.apply_async(os._exit, 3)
    others = [view.apply_async(eval, sleep(0.05)) for _ in range(20)]
    second = dies()
    assert got(task) == "EngineError"
    assert {got(one) for one in others} == {there.processes["engine", 1 - second].pid}
    assert got(rc[1 - second].apply_async(pow, 2, 2)) == 4
    last = rc[1 - second].apply_async(os._exit, 3)
    dies()
    assert got(last) == "EngineError"


def test_the_hub_answers_as_it_is_written(there: Stand) -> None:
    """As in https://ipyparallel.readthedocs.io/en/latest/reference/db.html and the client's own words."""
    rc, other = there.client(), there.client()
    view = rc.load_balanced_view()
    tasks = [rc[0].apply_async(pow, 2, 5), view.apply_async(pow, 3, 2), view.apply_async(divmod, 1, 0)]
    assert [got(one) for one in tasks] == [32, 9, "ZeroDivisionError"]
    ids = [one.msg_ids[0] for one in tasks]
    until(lambda: there.said["tasks"]["done"] + there.said["tasks"]["failed"] == 3, "the hub knows them all")

    history = other.hub_history()
    # In the order in which they came; what goes to an engine and what goes to any take different ways.
    assert sorted(history) == sorted(ids)
    assert history.index(ids[1]) < history.index(ids[2])
    assert [other.get_result(one).get(timeout=SECONDS) for one in ids[:2]] == [32, 9]
    assert got(other.get_result(ids[2])) == "ZeroDivisionError"
    status = other.result_status(ids, status_only=True)
    assert sorted(status["completed"]) == sorted(ids)
    assert status["pending"] == []
    (record,) = other.db_query({"msg_id": ids[1]}, keys=["engine_uuid", "completed", "queue"])
    assert record["engine_uuid"] in there.uuids.values()
    assert record["queue"] == "task"
    after = other.db_query({"completed": {"$gte": record["completed"]}}, keys=["msg_id"])
    assert ids[1] in {one["msg_id"] for one in after}
    after = other.db_query({"completed": {"$gt": record["completed"]}}, keys=["msg_id"])
    assert ids[1] not in {one["msg_id"] for one in after}
    assert len(other.db_query({"queue": "mux"}, keys=["msg_id"])) == 1

    again = other.resubmit(ids[1])
    assert got(again) in (9, [9])
    assert again.msg_ids[0] not in ids

    long = rc[0].apply_async(eval, sleep(2))
    behind = rc[0].apply_async(pow, 2, 2)
    until(lambda: other.queue_status(targets=0)["queue"] == 2, "both are in the queue")
    status = other.queue_status(verbose=True)
    assert status[0]["queue"] == [long.msg_ids[0], behind.msg_ids[0]]
    assert other.result_status(long.msg_ids, status_only=True)["pending"] == long.msg_ids
    rc.abort(behind, targets=0, block=True)
    with pytest.raises(ipp.error.TaskAborted):
        behind.get(timeout=SECONDS)
    assert got(long) == there.processes["engine", 0].pid
    until(lambda: other.queue_status(targets=0)["queue"] == 0, "nothing waits")

    other.purge_hub_results(ids[0])
    assert ids[0] not in other.hub_history()
    assert ids[1] in other.hub_history()
    with pytest.raises((KeyError, ipp.error.RemoteError)):
        other.get_result(ids[0]).get(timeout=SECONDS)
    other.purge_hub_results(targets=[0])
    assert long.msg_ids[0] not in other.hub_history()
    rc.purge_results("all")
    assert other.hub_history() == []
    assert got(view.apply_async(pow, 2, 3)) == 8

    rc.shutdown(targets=[1], block=True)
    there.processes["engine", 1].wait(SECONDS)
    until(lambda: rc.ids == other.ids == [0], "the other one has gone")
    assert got(rc[0].apply_async(pow, 2, 4)) == 16
    assert got(view.apply_async(os.getpid)) == there.processes["engine", 0].pid


class Hearer:
    """A controller that hears an engine's first word, and dies before it can answer."""

    def __init__(self, url: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.bind(url)

    def hear(self) -> list[bytes]:
        assert self.socket.poll(SECONDS * 1000)
        words: list[bytes] = self.socket.recv_multipart()
        return words

    def die(self) -> None:
        self.context.destroy(linger=0)


def registration_url(there: Stand) -> str:
    said = json.loads((there.security / "ipcontroller-engine.json").read_text())
    return f"{said['interface']}:{said['registration']}"


@pytest.mark.parametrize("answered", [False, True], ids=["before it answers", "after it has answered"])
def test_a_controller_that_dies_while_an_engine_registers(tmp_path: Path, answered: bool) -> None:
    with stand(tmp_path) as there:
        first = Hearer(registration_url(there))
        there.start("engine", 0)
        sender, *words = first.hear()
        if answered:
            key = json.loads((there.security / "ipcontroller-engine.json").read_text())["key"]
            session = Session(key=key.encode())
            _, parts = session.feed_identities(words)
            uuid = session.deserialize(parts)["content"]["uuid"]
            said = json.loads((there.security / "ipcontroller-engine.json").read_text())
            content = {"id": 0, "status": "ok", "hb_period": 3000, "connection_info": said}
            session.send(first.socket, "registration_reply", content=content, ident=sender)
            # It is gone before any other line to it is whole.
            until(lambda: there.facts.get(("engine", 0), {}).get("ready"), "it takes itself for registered")
            assert there.facts["engine", 0]["uuid"] == uuid
        first.die()
        there.start("controller")
        there.registered([0])
        assert (
            there.client()[0].apply_async(os.getpid).get(timeout=SECONDS) == there.processes["engine", 0].pid
        )
