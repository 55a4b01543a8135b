"""Large arrays on a real cluster: who sees whose memory, and that none is left, whoever dies."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel
import numpy
import pytest

from ipython_cluster import imap, lending, pmap, sharing
from tests.conftest import CHECKOUT
from tests.stand import Stand, stand
from tests.workbench import until

pytestmark = [pytest.mark.slow, pytest.mark.oldest]

SIZE = 2**21  # floats: 16 MiB
# What makes an engine believe that it is in another network namespace.
ELSEWHERE = """
import os
stat = os.stat
os.stat = lambda path, **more: stat("/" if path == "/proc/self/ns/net" else path, **more)
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("stand")) as made:
        made.start("controller")
        made.add(range(3), env={"PYTHONPATH": str(CHECKOUT)})
        yield made


@pytest.fixture(scope="module")
def client(there: Stand) -> Any:
    return there.client()


@pytest.fixture
def array() -> Any:
    return numpy.random.default_rng(1).random(SIZE)


def memories(pid: int | str = "self") -> int:
    """How many memory files of ours a process has open or sees."""
    files = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(one).startswith("/memfd:ipython-cluster"):
                files.add(os.stat(one).st_ino)
        except OSError:
            continue
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "/memfd:ipython-cluster" in line:
            files.add(int(line.split()[4]))
    return len(files)


def of_engines(there: Stand) -> int:
    return sum(memories(process.pid) for (role, _), process in there.processes.items() if role == "engine")


def nothing_left() -> None:
    """This process has let go of all; ipyparallel's own results are cycles, which Python collects when it will."""
    until(lambda: [gc.collect()] and memories() == 0, "nothing is left", 20)


def is_shared(found: Any) -> bool:
    """Whether an array is in memory that others see."""
    base = found
    while getattr(base, "base", None) is not None:
        base = base.base
    return type(getattr(base, "obj", base)).__name__ == "mmap"


def summed(found: Any) -> Any:
    return float(found.sum()), bool(found.flags.writeable), is_shared(found)


def ones(size: int) -> Any:
    return __import__("numpy").ones(size)


def test_arguments_of_all_views(client: Any, there: Stand, array: Any) -> None:
    expected = (float(array.sum()), False, True)
    for view in (client[:], client.broadcast_view(), client.load_balanced_view()):
        found = view.apply_sync(summed, array)
        assert (found if isinstance(found, list) else [found]) == [expected] * (
            3 if isinstance(found, list) else 1
        )
    client[:].push({"kept": array}, block=True)
    assert client[:].apply_sync(summed, ipyparallel.Reference("kept")) == [expected] * 3
    nothing_left()
    assert of_engines(there) == 3
    client[:].execute("del kept", block=True)
    client[:].apply_sync(gc.collect)
    until(lambda: of_engines(there) == 0, "nobody has it any more", 10)


def test_results(client: Any, there: Stand, array: Any) -> None:
    client[:].push({"kept": array}, block=True)
    found = client[:].pull("kept", block=True)
    assert [summed(one) for one in found] == [(float(array.sum()), False, True)] * 3
    with pytest.raises(ValueError, match="read-only"):
        found[0][0] = 1
    del found
    client[:].execute("del kept", block=True)
    nothing_left()


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_an_array_is_comes_along(client: Any, order: str) -> None:
    kinds = numpy.dtype([("a", "f8"), ("b", "i4", (3,))])
    for made in (
        numpy.asarray(numpy.arange(2**19).reshape(2**9, 2**10), order=order),  # type: ignore[call-overload]
        numpy.zeros(2**17, kinds),
        numpy.arange(2**20)[::2],
        numpy.full(2**18, numpy.datetime64("2026-01-01")),
    ):
        back = client[0].apply_sync(lambda x: x, made)
        assert back.dtype == made.dtype
        assert numpy.array_equal(back, made)
        assert back.flags.c_contiguous or back.flags.f_contiguous == made.flags.f_contiguous


def test_small_ones_and_objects_go_the_ordinary_way(client: Any) -> None:
    small, objects = numpy.arange(100), numpy.array([{"a": 1}, None] * 2**17)
    for made in (small, objects):
        assert client[0].apply_sync(is_shared, made) is False
        back = client[0].apply_sync(lambda x: x, made)
        assert not is_shared(back)
        assert (back == made).all()


def test_maps(client: Any, there: Stand, array: Any) -> None:
    table = array.reshape(-1, 2)
    found = pmap(lambda number: (float(table[number, 0]), is_shared(table)), range(2000), view=client)
    assert found == [(float(table[number, 0]), True) for number in range(2000)]
    pieces = [array + number for number in range(6)]
    back = pmap(lambda piece: piece * 2, pieces, view=client)
    assert all(
        numpy.array_equal(one, piece * 2) and is_shared(one) for one, piece in zip(back, pieces, strict=True)
    )
    assert {type(one) for one in pmap(lambda x: 1 / x if x else array, range(2), view=client)} == {
        numpy.ndarray,
        float,
    }
    del back
    nothing_left()


def test_an_iterator_that_is_closed_leaves_nothing(client: Any, array: Any) -> None:
    results = imap(lambda x: x.sum(), iter([array] * 100), view=client)
    next(results)
    results.close()
    nothing_left()


def test_results_wait_for_who_takes_his_time(
    client: Any, array: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "KEPT_SECONDS", 0.5)
    for number, one in enumerate(imap(lambda x: array + x, range(9), view=client)):
        assert one[0] == array[0] + number
        time.sleep(0.3)
    del one
    nothing_left()


def test_more_arrays_than_a_shell_allows_files(there: Stand) -> None:
    program = f"""
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
import ipython_cluster._client_hook
import ipyparallel, numpy
from ipython_cluster import pmap
client = ipyparallel.Client({str(there.security / "ipcontroller-client.json")!r}, timeout=60)
make = lambda number: __import__("numpy").full(2**17, number)
print(sum(one[-1] for one in pmap(make, range(300), view=client)))
print(sum(one[-1] for one in client.load_balanced_view().map_sync(make, range(300))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["44850", "44850"], done.stderr


def test_a_result_that_cannot_be_had_is_no_silence(
    client: Any, array: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(lending, "mapped", refuse)
    for view in (client[:], client.load_balanced_view(), client.broadcast_view()):
        with pytest.raises(ipyparallel.error.RemoteError, match="Too many open files"):
            view.apply_async(ones, SIZE).get(20)
    with pytest.raises(OSError, match="Too many open files"):
        pmap(ones, [SIZE], view=client)
    monkeypatch.undo()
    assert client[0].apply_sync(ones, SIZE).shape == (SIZE,)
    nothing_left()


def test_a_large_array_is_fetched_once(client: Any) -> None:
    sent = client.load_balanced_view().apply_async(ones, SIZE)
    assert sent.get(20).shape == (SIZE,)
    with pytest.raises(LookupError, match="can be fetched once"):
        client.get_result(sent.msg_ids[0], block=True).get(20)
    del sent
    nothing_left()


def test_an_iterator_that_nobody_asks_leaves_nothing(client: Any, array: Any) -> None:
    results = imap(lambda x: array.sum() + x, range(3), view=client)
    assert memories() == 1
    del results
    nothing_left()


def test_an_engine_from_elsewhere_that_comes_meanwhile(tmp_path: Path, array: Any) -> None:
    with stand(tmp_path / "stand") as made:
        made.start("controller")
        made.add([0], env={"PYTHONPATH": str(CHECKOUT)})
        client = made.client()
        (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)

        def slow(x: int) -> float:
            time.sleep(0.05)
            return float(array[x])

        results = imap(slow, range(100), view=client)  # a task is on its way, and another one waits
        found = [next(results)]
        made.add([1], env={"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"})
        until(lambda: len(client.ids) == 2, "the client knows it")
        found += list(results)
        assert found == [float(one) for one in array[:100]]


def test_a_client_that_is_killed_leaves_nothing(client: Any, there: Stand) -> None:
    client[:].apply_sync(gc.collect)
    assert of_engines(there) == 0
    program = f"""
import os, sys, time
import ipython_cluster._client_hook
import ipyparallel, numpy
client = ipyparallel.Client({str(there.security / "ipcontroller-client.json")!r}, timeout=60)
array = numpy.ones({SIZE})
found = client[:].apply_async(lambda x: __import__("time").sleep(1), array)
print("sent", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout
        assert victim.stdout.readline() == "sent\n"
        until(lambda: of_engines(there) == 3, "engines have it")
        victim.send_signal(signal.SIGKILL)
    until(lambda: of_engines(there) == 0, "it went with the tasks", 20)


def test_an_engine_that_is_killed_leaves_nothing(tmp_path: Path, array: Any) -> None:
    with stand(tmp_path / "stand") as made:
        made.start("controller")
        made.add(range(2), env={"PYTHONPATH": str(CHECKOUT)})
        client = made.client()
        client[:].push({"kept": array}, block=True)
        client[0].apply_async(lambda x: __import__("time").sleep(60), array)
        until(lambda: memories(made.processes["engine", 0].pid) == 2, "it has two")
        uuid = made.uuids[0]
        made.kill("engine", 0)
        made.tell("controller", lost=uuid)
        nothing_left()
        assert memories(made.processes["engine", 1].pid) == 1


def test_engines_elsewhere_get_it_the_ordinary_way(tmp_path: Path, array: Any) -> None:
    with stand(tmp_path / "stand") as made:
        made.start("controller")
        # Another network namespace would be another machine; another user's memory is not ours to see.
        elsewhere = {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
        (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
        made.add([0], env={"PYTHONPATH": str(CHECKOUT)})
        made.add([1], env=elsewhere)
        client = made.client()
        assert len({uuid.rpartition("-")[2] for uuid in made.uuids.values()}) == 2
        assert [one[2] for one in client[:].apply_sync(summed, array)] == [False, False]
        client[0].push({"kept": array}, block=True)
        assert numpy.array_equal(client[0].pull("kept", block=True), array)


# -- the lender ------------------------------------------------------------------------------------


@pytest.fixture
def lender() -> lending.Lender:
    return lending.Lender()


def test_what_was_taken_back_is_not_to_be_had(lender: lending.Lender) -> None:
    token = lender.lend(b"a" * 100)
    with lending.borrow(lender.address, token) as found:
        assert found[:] == b"a" * 100
        with pytest.raises(TypeError):
            found[0] = 1
    lender.take_back([token, token])
    with pytest.raises(LookupError, match="taken back"):
        lending.borrow(lender.address, token)
    with pytest.raises(LookupError, match="is gone"):
        lending.borrow("ipython-cluster-nobody", token)


def test_what_is_handed_over_can_be_claimed_once(
    lender: lending.Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = lending.hand_over(lender.address, b"b" * 10)
    assert lender.claim(token)[:] == b"b" * 10
    with pytest.raises(LookupError, match="can be fetched once"):
        lender.claim(token)
    monkeypatch.setattr(lending, "KEPT_SECONDS", -1)
    lending.hand_over(lender.address, b"c")
    assert not lender.received, "nobody has asked for it"


def test_nobody_can_write_into_it(lender: lending.Lender) -> None:
    token = lender.lend(b"d" * 10)
    descriptor = lender.lent[token]
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 1)


def test_noise_and_silence_do_no_harm(lender: lending.Lender) -> None:
    token = lender.lend(b"e")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect("\0" + lender.address)
        for said in (b"", b"x", b"p" + token, b"g", os.urandom(1000)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
                line.connect("\0" + lender.address)
                line.send(said)
        assert lending.borrow(lender.address, token)[:] == b"e"


def test_another_user_is_not_answered(lender: lending.Lender) -> None:
    if os.getuid():
        pytest.skip("only root can be somebody else")
    token = lender.lend(b"secret")
    program = f"import os\nfrom ipython_cluster import lending\nos.setuid(65534)\nlending.borrow({lender.address!r}, {token!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "Gone: the memory of an array" in done.stderr
    assert lender.lent.keys() == {token}


def test_who_took_the_name_of_another_gets_nothing() -> None:
    if os.getuid():
        pytest.skip("only root can be somebody else")
    name = f"ipython-cluster-{os.getpid()}-of-tests"
    program = (
        "import os, socket\nos.setuid(65534)\nline = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"line.bind({name!r}.join(['\\0', '']))\nline.listen()\nprint('listens', flush=True)\n"
        "while True: print(line.accept()[0].recv(99), flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as thief:
        assert thief.stdout
        assert thief.stdout.readline() == "listens\n"
        with pytest.raises(OSError, match="somebody else"):
            lending.hand_over(name, b"secret")
        with pytest.raises(LookupError, match="somebody else"):
            lending.borrow(name, b"t" * lending.TOKEN_BYTES)
        thief.kill()
        assert thief.stdout.read().split() in (["b''"], ["b''", "b''"], [])


def test_a_collection_may_come_while_memory_is_taken_back(lender: lending.Lender) -> None:
    token = lender.lend(b"f")
    with lender.lock:  # as when the collector finds a map that is over
        lender.take_back([token])
    assert not lender.lent


def test_no_memory_is_no_failure(client: Any, array: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel refuses a memory file like a file on a full disk, here and on the engines."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = "import resource; before = resource.getrlimit(resource.RLIMIT_FSIZE); resource.setrlimit(resource.RLIMIT_FSIZE, (LEAST, before[1]))"
    client[:].execute(limit.replace("LEAST", str(2**20)), block=True)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        there = client[:].apply_sync(lambda one: (float(one.sum()), one * 2), array)
        data, lent = sharing.lend(array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        client[:].execute("resource.setrlimit(resource.RLIMIT_FSIZE, before)", block=True)
    assert lent == ()
    assert (pickle.loads(data) == array).all()
    assert "File too large" in caplog.text
    for total, back in there:
        assert total == pytest.approx(float(array.sum()))
        assert (back == array * 2).all()


def test_many_at_once(lender: lending.Lender) -> None:
    tokens = [lender.lend(str(number).encode()) for number in range(50)]
    found: dict[int, bytes] = {}

    def get(number: int) -> None:
        found[number] = lending.borrow(lender.address, tokens[number])[:]

    threads = [threading.Thread(target=get, args=(number,)) for number in range(50)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == {number: str(number).encode() for number in range(50)}
