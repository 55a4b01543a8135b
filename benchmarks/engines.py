"""From none to N engines: `ipython-builder scale` in a running cluster against `ipcluster start -n N`.

The time is from typing until a client in the engines' environment sees all of them. CPU is what the command,
the controller, the engines and what starts and guards them used from then until a second after. Memory (PSS)
is that of the controller and the engines at that moment: the stock side's nannies and our pool count,
`ipcluster` itself and our supervisor do not. Both sides are warm, with the same version of ipyparallel. Bar,
at 64 engines: 10 times faster, and at most 0.3 of the memory. Where the stock side does not have all engines
at once within five minutes, ours is measured alone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import start

from ipython_builder import processes

COUNTS = (4, 16, 64, 256)
LIMIT = 300.0  # seconds after which a start has failed
SETTLE = 1.0  # seconds after the last engine registered
MIB = 2**20
TICKS = os.sysconf("SC_CLK_TCK")
THOUSAND_SECONDS, THOUSAND_BYTES = 60, 16e9


@dataclass(frozen=True)
class Figures:
    """What one start took."""

    seconds: float
    cpu: float
    memory: float  # bytes


class Stock(start.ByHand):
    """An ordinary virtual environment in which `ipcluster start` is typed."""

    packages = ("ipyparallel",)

    def __init__(self, work: Path) -> None:
        super().__init__(work, 0)
        self.figures: dict[int, list[Figures]] = {}

    def scale(self, count: int) -> float:
        self.starts += 1
        home = self.work / f"by-hand-{self.starts}"
        notebooks = home / "notebooks"
        notebooks.mkdir(parents=True)
        env = self.env | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython")}
        connection = home / "ipython" / "profile_default" / "security" / "ipcontroller-client.json"
        words = ["ipcluster", "start", "-n", str(count)]
        with watching(self.venv / "bin" / "python", connection, count, env) as watcher, swept(home):
            began = time.monotonic()
            with start.started(words, env | {processes.MARK: str(home)}, notebooks) as pid:
                seconds = watcher.wait(LIMIT)["engines"] - began
                time.sleep(SETTLE)
                pids = processes.of(home)
                took = Figures(seconds, cpu(pids), memory(pids, {pid}))
        self.figures.setdefault(count, []).append(took)
        return seconds


class Ours(start.Ours):
    """`ipython-builder scale` in a cluster that has no engines yet."""

    def __init__(self, work: Path) -> None:
        super().__init__(work, 0)
        self.cluster = self.security.parents[2]
        self.figures: dict[int, list[Figures]] = {}

    def scale(self, count: int) -> float:
        up = self.tool("up", self.folder, "-n", "0", "--label", "bench", "--json", "--progress", "none")
        with swept(self.cluster):
            try:
                made: dict[str, Any] = json.loads(interruptible(up, self.env))
                self.python = Path(made["environment"]["path"], "bin", "python")
                took = self._scale(count, made["viewer"]["pid"], made["controller"]["pid"])
            finally:
                self.down()
        self.figures.setdefault(count, []).append(took)
        return took.seconds

    def _scale(self, count: int, viewer: int, controller: int) -> Figures:
        supervisor = processes.parent(controller)
        assert supervisor
        connection = self.security / "ipcontroller-client.json"
        with watching(self.python, connection, count, self.env) as watcher:
            before = cpu(self._pids(viewer))
            typed = commands()
            began = time.monotonic()
            common.run(self.tool("scale", "bench", str(count), "--json"), env=self.env)
            typed = commands() - typed
            seconds = watcher.wait(LIMIT)["engines"] - began
            time.sleep(SETTLE)
            pids = self._pids(viewer)
            return Figures(seconds, cpu(pids) - before + typed, memory(pids, {supervisor}))

    def down(self) -> None:
        """Whoever ends a benchmark half-way may do so before there is a cluster."""
        if (self.cluster / "cluster.json").exists():
            super().down()

    def _pids(self, viewer: int) -> set[int]:
        return set(processes.of(self.cluster)) - processes.below({viewer})


def interruptible(argv: common.Words, env: Mapping[str, str]) -> str:
    """Run a command and return its stdout; one that is cut short has time to end what it started."""
    words = [os.fspath(word) for word in argv]
    with subprocess.Popen(
        words, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as up:
        try:
            said, _ = up.communicate()
        except BaseException:
            up.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.communicate(timeout=30)
            up.kill()
            raise
    if up.returncode:
        sys.exit(f"{' '.join(words)} ended with {up.returncode}")
    return said


@contextlib.contextmanager
def watching(python: Path, connection: Path, count: int, env: Mapping[str, str]) -> Iterator[start.Watcher]:
    """A watcher of the engines, which does not outlive what it watches."""
    watcher = start.Watcher(python, None, connection, count, env)
    try:
        yield watcher
    finally:
        watcher.process.kill()
        watcher.process.wait()


@contextlib.contextmanager
def swept(home: Path) -> Iterator[None]:
    """At the end no process with the mark of `home` is left."""
    try:
        yield
    finally:
        processes.sweep(home)


def cpu(pids: Collection[int]) -> float:
    """Seconds, user and system, that processes and their ended children have used."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def commands() -> float:
    """Seconds, user and system, of the commands that this process has run."""
    times = os.times()
    return times.children_user + times.children_system


def memory(pids: Collection[int], but: Collection[int]) -> float:
    """Bytes of processes, shared pages counted in parts."""
    return sum(processes.memory(pid for pid in pids if pid not in but).values())


def cases(count: int, peer: list[Figures], ours: list[Figures]) -> list[common.Case]:
    """What there is to say about one number of engines."""

    def compare(
        what: str, unit: str, figure: Callable[[Figures], float], words: str = "", least: float = 0
    ) -> common.Case:
        keeps = (lambda case: case.ratio >= least) if count == 64 and least else None
        theirs, own = ([figure(one) for one in side] for side in (peer, ours))
        return common.Case(f"{count} engines, {what}", theirs, own, words if keeps else "", keeps, unit)

    return [
        compare("time", "s", lambda one: one.seconds, "at least 10 times faster", 10),
        compare("CPU", "s", lambda one: one.cpu),
        compare("memory", "MiB", lambda one: one.memory / MIB, "at most 0.3 of the memory", 1 / 0.3),
    ]


def alone(ours: Ours, count: int) -> Figures:
    """How engines of ours fare where there is nothing to compare them with."""
    ours.scale(count)
    return ours.figures.pop(count)[-1]


def words(took: Figures) -> str:
    return f"{took.seconds:.3f} s, {took.memory / 2**30:.2f} GiB, {took.cpu:.1f} s of CPU"


def thousand(took: Figures) -> str:
    """What there is to say about 1,000 engines."""
    met = took.seconds <= THOUSAND_SECONDS and took.memory <= THOUSAND_BYTES
    return f"{words(took)}  within 60 s and 16 GB: {'met' if met else 'MISSED'}"


def main() -> None:
    parser = common.parser(__doc__, runs=3)
    parser.add_argument(
        "-n", "--engines", type=int, action="append", metavar="N",
        help="engines to start, may be repeated (default 4, 16, 64 and 256; quick: 2)",
    )  # fmt: skip
    parser.add_argument(
        "--thousand", action="store_true", help="1,000 engines of ours alone; beside others only with -n"
    )
    options = parser.parse_args()
    counts = sorted(set(options.engines or ([2] if options.quick else [] if options.thousand else COUNTS)))
    more = {}
    with common.workplace(options.work) as work:
        peer, ours = Stock(work), Ours(work)
        if counts:
            peer.install()
        if not options.quick:  # neither pays for a first time; our first `up` makes the environments
            if counts:
                peer.scale(2)
            ours.scale(2)
            peer.figures.clear()
            ours.figures.clear()
        for count in list(counts):
            try:
                common.take_turns(
                    options.runs, functools.partial(peer.scale, count), functools.partial(ours.scale, count)
                )
            except start.NotThere:
                counts.remove(count)
                said = f"not all at once within {LIMIT:.0f} s by `ipcluster start`"
                more[f"{count}_engines"] = f"{words(alone(ours, count))}; {said}"
        if options.thousand:
            more["a_thousand_engines"] = thousand(alone(ours, 1000))
    compared = [case for count in counts for case in cases(count, peer.figures[count], ours.figures[count])]
    common.report("engines from none, warm", "ipcluster start", compared, options, **more)


if __name__ == "__main__":
    main()
