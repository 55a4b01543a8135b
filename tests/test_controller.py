"""The controller with real engines and clients: what it remembers, who it forgets, what stops it from nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest

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
