"""The map helper on a real controller with real engines, and on a cluster that is not ours."""

from __future__ import annotations

import importlib
import itertools
import linecache
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import ipyparallel
import numpy
import pytest

from ipython_cluster import MapError, finding, imap, mapping, pmap, telling, work
from ipython_cluster.telling import RemoteTraceback
from tests.conftest import CHECKOUT, Cli, Home
from tests.stand import Stand, stand
from tests.workbench import until

pytestmark = [pytest.mark.slow, pytest.mark.oldest]

ENGINES = 3


def up(made: Stand) -> Stand:
    """Start it. Its engines find this module: what is not sent along is imported there."""
    made.start("controller")
    made.add(range(ENGINES), env={"PYTHONPATH": str(CHECKOUT)})
    return made


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("stand")) as made:
        yield up(made)


@pytest.fixture(scope="module")
def client(there: Stand) -> Any:
    return there.client()


def free(client: Any) -> None:
    """Wait until no engine does or has to do anything."""

    def nothing() -> bool:
        status = client.queue_status()
        return all(
            not one["queue"] and not one["tasks"] for engine, one in status.items() if isinstance(engine, int)
        )

    until(nothing, "engines are free", 10)
    assert client[:].apply_sync(math.sqrt, 4) == [2.0] * len(client.ids)


def test_the_same_as_the_builtin(client: Any) -> None:
    assert pmap(lambda x: x * x, range(1000), view=client) == [x * x for x in range(1000)]
    assert pmap(pow, [2, 3, 4], (x for x in (5, 6)), view=client[:]) == [32, 729]
    assert pmap(str, [], view=client) == []
    found = pmap(os.getpid.__class__.__call__, [os.getpid] * 50, view=client.load_balanced_view([0]))
    assert len(set(found)) == 1, "one engine was named"


def test_a_client_keeps_nothing_of_a_map(client: Any) -> None:
    before = len(client.history)
    for _ in range(3):
        pmap(str, range(1000), view=client)
    assert (len(client.history), len(client.results)) == (before, 0)
    # Word that a task's output is complete may come after its result.
    until(lambda: len(client.metadata) < ENGINES, "tasks are forgotten", 10)


def test_what_a_function_uses_goes_with_it(client: Any) -> None:
    offset = 3

    def shifted(x: int) -> int:
        return math.floor(x) + offset + ENGINES

    assert pmap(shifted, [1, 2], view=client) == [7, 8]


def test_without_cloudpickle(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    offset = 3
    assert pmap(lambda x: x + offset, range(5), view=client) == [3, 4, 5, 6, 7]
    assert pmap(math.sqrt, [4, 9], view=client) == [2, 3]


def test_a_large_function_goes_to_each_engine_once(client: Any) -> None:
    ballast = os.urandom(mapping.SMALL)
    found = pmap(lambda x: (os.getpid(), len(ballast) + x), range(200), view=client)
    assert [one[1] - len(ballast) for one in found] == list(range(200))


def test_one_that_is_reached_early_is_many_items_later(client: Any) -> None:
    found = pmap(abs, range(20_000), view=client)
    assert sum(task.count for task in found.tasks) == 20_000
    assert len(found.tasks) < 200
    assert {task.engine for task in found.tasks} == set(client.ids)
    assert all(task.submitted <= task.started <= task.completed for task in found.tasks)


def test_short_items_at_the_start_are_no_promise(client: Any) -> None:
    def nap(item: int) -> int:
        import time

        time.sleep(0 if item < 4 else 0.1)
        return item

    found = pmap(nap, range(60), view=client)
    assert found == list(range(60))
    assert max(task.count for task in found.tasks) <= 60 / ENGINES / 2 + 1, (
        "all the rest did not go to one engine"
    )


def test_items_that_take_long_are_sent_singly(client: Any) -> None:
    found = pmap(time.sleep, [0.15] * 12, view=client)
    assert {task.count for task in found.tasks} == {1}


def test_as_they_come(client: Any) -> None:
    found = dict(imap(lambda x: x + 1, range(100), view=client, ordered=False))
    assert found == {x: x + 1 for x in range(100)}


def test_an_input_without_end(client: Any) -> None:
    read = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    results = imap(lambda x: -x, numbers(), view=client)
    assert list(itertools.islice(results, 5)) == [0, -1, -2, -3, -4]
    results.close()
    assert len(read) <= 5 + 3 * ENGINES * mapping.MOST, "it is read only as far as engines are busy with it"
    free(client)
    for endless in (itertools.count(), itertools.cycle([1]), itertools.repeat(1)):
        with pytest.raises(ValueError, match="use imap"):
            pmap(abs, endless, view=client)
    assert pmap(pow, [2, 3], itertools.repeat(2), view=client) == [4, 9]


# -- what goes wrong -------------------------------------------------------------------------------


class Odd(Exception):
    """One that can be pickled, and not be made again."""

    def __init__(self, number: int, word: str) -> None:
        super().__init__(f"{word} {number}")


def test_an_exception_is_the_functions_own(client: Any) -> None:
    def inverse(x: int) -> float:
        return 1 / (x - 5)

    with pytest.raises(ZeroDivisionError) as caught:
        pmap(inverse, range(100), view=client)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in inverse" in str(caught.value.__cause__)
    assert "ipython_cluster" not in str(caught.value.__cause__)
    free(client)
    found = pmap(inverse, range(3, 8), view=client, return_exceptions=True)
    assert [type(one) for one in found] == [float, float, ZeroDivisionError, float, float]


def test_what_is_printed_is_printed_here(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def speak(item: int) -> int:
        import sys

        print("item", item)
        print("careful", file=sys.stderr)
        return item

    assert pmap(speak, range(20), view=client, progress=False) == list(range(20))
    said = capsys.readouterr()
    assert sorted(said.out.splitlines()) == sorted(f"item {item}" for item in range(20))
    assert said.err == "careful\n" * 20
    pmap(lambda item: print("x" * 10**6), range(4), view=client, progress=False)
    assert len(capsys.readouterr().out) <= 4 * 1.1 * work.SAID
    # An engine speaks as before afterwards.
    task = client[0].apply_async(print, "by itself")
    task.get(timeout=30)
    until(lambda: task.stdout == "by itself\n", "it is heard")


def test_a_traceback_has_the_lines_of_a_cell(client: Any) -> None:
    """An engine has no file of a notebook's cell; who called the map has."""
    name = "/tmp/ipykernel_1/2.py"
    source = "def inverse(x):\n    return 1 / x\n\ndef outer(x):\n    return [inverse(y) for y in (x,)]\n"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), space)
    with pytest.raises(ZeroDivisionError) as caught:
        pmap(space["outer"], [1, 0], view=client)
    told = str(caught.value.__cause__)
    assert f'File "{name}", line 2, in inverse\n    return 1 / x\n' in told
    assert f'File "{name}", line 5, in ' in told
    assert told.count("inverse(y)") == 1 + (sys.version_info < (3, 12)), (
        "with its line, also in a comprehension"
    )


def test_what_cannot_be_sent(client: Any) -> None:
    lock = threading.Lock()

    def odd(x: int) -> NoReturn:
        raise Odd(x, "odd")

    with pytest.raises(TypeError, match=r"cannot be sent to engines: .*lock"):
        pmap(lambda x: lock, [1], view=client)
    with pytest.raises(TypeError, match=r"item 1 cannot be sent to an engine: .*lock"):
        pmap(abs, [1, lock], view=client)
    with pytest.raises(TypeError, match=r"item 0: its result, of type lock, cannot be sent: .*lock"):
        pmap(lambda x: threading.Lock(), [1], view=client)
    with pytest.raises(TypeError, match="item 0: Odd: odd 1") as caught:
        pmap(odd, [1], view=client)
    assert "in odd" in str(caught.value.__cause__)
    with pytest.raises(TypeError, match="is no function"):
        pmap(5, [1], view=client)
    with pytest.raises(TypeError, match="nothing to map over"):
        pmap(abs, view=client)
    free(client)


def test_what_keeps_a_function_here_is_named(client: Any) -> None:
    lock = threading.Lock()
    with pytest.raises(
        TypeError, match=r"cannot be sent to engines: .*\n next: make lock inside of the function"
    ):
        pmap(lambda item: (lock, item), range(3), view=client)


def test_classes_of_a_notebook(there: Stand) -> None:
    program = f"""
import dataclasses
import ipyparallel
from ipython_cluster import pmap

@dataclasses.dataclass
class Point:
    x: int

class Own(Exception):
    pass

def move(point):
    if point.x == 7:
        raise Own("seven", 7)
    return Point(point.x + 1)

client = ipyparallel.Client({str(there.security / "ipcontroller-client.json")!r}, timeout=60)
assert pmap(move, map(Point, range(5)), view=client) == list(map(Point, range(1, 6)))
try:
    pmap(move, [Point(7)], view=client)
except Own as error:
    print(error.args, error.__cause__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "('seven', 7) on an engine, for item 0:" in done.stdout, done.stderr
    assert "in move" in done.stdout


def test_an_input_that_raises(client: Any) -> None:
    def numbers() -> Iterator[int]:
        yield from range(50)
        raise KeyError("the input's own")

    with pytest.raises(KeyError, match="the input's own"):
        pmap(abs, numbers(), view=client)
    free(client)


def test_ctrl_c_leaves_engines_free(client: Any) -> None:
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pmap(time.sleep, [60] * 50, view=client)
    assert time.monotonic() - begun < 20
    free(client)


def test_what_others_compute_goes_on(client: Any) -> None:
    def slow(number: int) -> int:
        time.sleep(3)
        return number

    others = [client[number].apply_async(slow, number) for number in client.ids]
    results = imap(time.sleep, [1] * 20, view=client)
    with pytest.raises(TimeoutError), limited(1):
        next(results)
    results.close()
    assert [other.get(20) for other in others] == client.ids
    free(client)


def test_what_is_ours_is_interrupted_with_others_behind_it(client: Any) -> None:
    results = imap(time.sleep, [0.1, 60, 60, 60], view=client)
    next(results)
    others = [client[number].apply_async(abs, -number) for number in client.ids]
    begun = time.monotonic()
    results.close()
    assert [other.get(20) for other in others] == client.ids
    assert time.monotonic() - begun < 20
    free(client)


def test_an_iterator_that_ipyparallels_thread_collects(client: Any) -> None:
    results = imap(time.sleep, [0.01] * 10 + [60] * 10, view=client)
    next(results)
    closed = threading.Event()
    client._io_loop.add_callback(lambda: (results.close(), closed.set()))
    assert closed.wait(5)
    free(client)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread after some time."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_module_that_was_read_again(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "read_again.py"
    file.write_text("def which(x):\n    return 'old'\n")
    monkeypatch.syspath_prepend(tmp_path)
    client[:].apply_sync(lambda folder: __import__("sys").path.insert(0, folder), str(tmp_path))
    module = importlib.import_module("read_again")
    assert set(pmap(module.which, range(30), view=client)) == {"old"}
    file.write_text("def which(x):\n    return 'another one'\n")
    importlib.reload(module)
    client[:].apply_sync(lambda: __import__("importlib").reload(__import__("read_again")) and None)
    assert set(pmap(module.which, range(30), view=client)) == {"another one"}


def test_a_function_that_is_no_function_of_python(client: Any) -> None:
    """Compilers leave objects that have some of what a function has."""
    assert telling.RemoteTraceback("a traceback", Compiled(abs)).text == "a traceback"
    with pytest.raises(ZeroDivisionError):
        pmap(Compiled(lambda x: 1 / x), [0], view=client)


class Compiled:
    def __init__(self, function: Any) -> None:
        self.function = function
        self.__code__ = getattr(function, "__code__", None)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class Unspeakable(list[int]):
    def __repr__(self) -> str:
        raise RuntimeError("too much to say")


def test_what_is_mapped_over_is_not_looked_at_first(client: Any) -> None:
    assert pmap(abs, Unspeakable([-1, -2]), view=client) == [1, 2]
    with pytest.raises(ValueError, match="never ends"):
        pmap(abs, itertools.repeat(1), view=client)
    assert pmap(abs, itertools.repeat(-1, 3), view=client) == [1, 1, 1]


def test_whom_a_map_waits_for_is_said(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mapping, "OTHERS_SECONDS", 0.5)
    others = [client[number].apply_async(time.sleep, 4) for number in client.ids]
    assert pmap(abs, range(-20, 0), view=client, progress=False) == list(range(20, 0, -1))
    listed = ", ".join(map(str, client.ids))
    assert f"engines {listed} are at something else, and this map waits for them" in capsys.readouterr().err
    for other in others:
        other.get(10)
    # Its own items may take what they take.
    pmap(time.sleep, [3] * len(client.ids), view=client, progress=False)
    client[client.ids[0]].apply_async(time.sleep, 3)
    pmap(time.sleep, [0.1] * 20, view=client, progress=False)
    assert "at something else" not in capsys.readouterr().err


def test_what_is_cancelled_ends_after_its_item(client: Any, tmp_path: Path) -> None:
    def touch(number: int) -> None:
        (tmp_path / str(number)).touch()
        time.sleep(0.1)

    results = imap(touch, range(10_000), view=client)
    next(results)
    results.close()
    count = len(list(tmp_path.iterdir()))
    free(client)
    assert len(list(tmp_path.iterdir())) <= count + ENGINES


def test_what_somebody_else_cancels_is_said(client: Any) -> None:
    results = imap(time.sleep, [0.5] * 20, view=client)
    threading.Timer(0.8, lambda: client.abort(block=False)).start()
    with pytest.raises(MapError, match=r"items \d+ to \d+ were cancelled from elsewhere"):
        list(results)
    free(client)


@pytest.fixture
def ours(cli: Cli, home: Home, tmp_path: Path) -> Iterator[Any]:
    """A client of a cluster whose engines come back."""
    (tmp_path / "notebooks").mkdir()
    cli("up", tmp_path / "notebooks", "-n", str(ENGINES), "--label", "main", check=True)
    (file,) = (home.clusters / "main").rglob("ipcontroller-client.json")
    client = ipyparallel.Client(str(file), timeout=60)
    yield client
    client.close()


def test_an_engine_that_dies_takes_nothing_with_it(ours: Any, tmp_path: Path) -> None:
    def slow(number: int) -> int:
        with open(tmp_path / "log", "a") as log:
            log.write(f"{number}\n")
        time.sleep(0.03)
        return number

    victim = ours[1].apply_sync(os.getpid)
    threading.Timer(0.6, os.kill, (victim, signal.SIGKILL)).start()
    assert pmap(slow, range(150), view=ours) == list(range(150))
    seen = (tmp_path / "log").read_text().split()
    assert len(set(seen)) == 150
    assert 150 < len(seen) < 150 + 10, "only what the engine had"


def test_engines_that_were_named_may_die_too(ours: Any) -> None:
    def slow(number: int) -> int:
        time.sleep(0.03)
        return number

    some = ours[[0, 1]]
    victims = some.apply_sync(os.getpid)
    threading.Timer(0.6, lambda: [os.kill(one, signal.SIGKILL) for one in victims]).start()
    found = pmap(slow, range(100), view=some)
    assert found == list(range(100))
    assert {task.engine for task in found.tasks} <= {0, 1}


def test_an_item_that_kills_its_engine_is_named(ours: Any) -> None:
    def fatal(number: int) -> int:
        if number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(MapError, match=r"(?s)item 7 was on an engine that died, 2 times: 7.*retries=1"):
        pmap(fatal, range(20), view=ours, retries=1)
    with pytest.raises(MapError, match=r"(?s)item 0 was on an engine that died.*allow to compute again"):
        pmap(fatal, [7], view=ours, retries=0)
    assert pmap(fatal, range(7), view=ours) == list(range(7))


def test_no_item_is_computed_twice(client: Any, tmp_path: Path) -> None:
    def count(number: int) -> None:
        with open(tmp_path / "log", "a") as log:
            log.write(f"{number}\n")

    pmap(count, range(3000), view=client)
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(3000))


def test_a_write_into_what_is_shared_says_what_to_do(client: Any) -> None:
    def change(array: Any) -> None:
        array[0] = 1

    with pytest.raises(ValueError) as caught:
        pmap(change, [numpy.zeros(2**18)], view=client)
    assert "a = a.copy()" in str(caught.value.__cause__)


def test_what_is_no_cluster_is_named() -> None:
    with pytest.raises(TypeError, match="view= takes a Client or one of its views, and not 'mine'"):
        pmap(str, [1], view="mine")


def test_no_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "ENGINE_SECONDS", 1)
    with stand(tmp_path / "stand") as made:
        made.start("controller")
        until(lambda: made.said, "it is there")
        client = made.client()
        with pytest.raises(MapError, match="the cluster has no engines"):
            pmap(abs, [1], view=client)
        made.add([0])
        until(lambda: client.ids, "the client knows it")

        def kill() -> None:
            uuid = made.uuids[0]
            made.kill("engine", 0)
            made.tell("controller", lost=uuid)

        threading.Timer(0.5, kill).start()
        with pytest.raises(MapError, match="none has come for 1 s"):
            pmap(time.sleep, [1] * 5, view=client)


def test_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr(finding, "_found", None)
    with pytest.raises(MapError, match=r"(?s)no cluster was found: .*next: start one"):
        pmap(abs, [1])


def test_the_cluster_is_found(there: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(there.folder / "ipython"))
    monkeypatch.setattr(finding, "_found", None)
    assert pmap(abs, [-1]) == [1]
    client = finding.here()
    assert finding.here() is client, "once"
    client.close()
    assert pmap(abs, [-2]) == [2]
    finding.here().close()


def test_progress(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def nap(x: int) -> None:
        time.sleep(0.2)

    pmap(nap, range(12), view=client, progress=True)
    said = capsys.readouterr()
    assert "nap" in said.err
    assert "12/12" in said.err
    assert said.out == ""
    pmap(nap, range(2), view=client)
    assert capsys.readouterr().err == "", "nobody would see it"


@pytest.mark.timeout(180)
def test_a_cluster_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    with ipyparallel.Cluster(n=2, log_level=40) as client:
        client.wait_for_engines(2, timeout=60, interactive=False)
        found = pmap(lambda x: x + 1, range(5000), view=client)
        assert found == list(range(1, 5001))
        loaded = pmap(lambda _: list(__import__("sys").modules), [1], view=client)[0]
        assert "_ipython_cluster_work" in loaded
        assert not {"ipython_cluster.engine", "ipython_cluster.work"} & set(loaded)
        begun = time.monotonic()
        results = imap(time.sleep, [0.01] + [60] * 10, view=client)
        next(results)
        results.close()
        assert time.monotonic() - begun < 20
        free(client)


# -- what an engine does, without one --------------------------------------------------------------


def test_an_engine_remembers_few_functions() -> None:
    work._functions.clear()
    data = __import__("pickle").dumps([(1,)])
    for number in range(10):
        packed = __import__("pickle").dumps(abs)
        assert work.run(number, None, data, False) is None
        assert work.run(number, packed, data, False)[2] == 1
        assert work.run(number, None, data, False)[2] == 1
    assert len(work._functions) == work.KEPT
