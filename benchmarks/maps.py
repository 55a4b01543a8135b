"""`pmap` against `LoadBalancedView.map`, dask, joblib and `concurrent.futures`, with 4 workers each.

Two jobs: 10,000 items that take no time, and 1,000 that sleep for 10 to 100 ms, so that the number of cores
does not matter. All workers are there and have worked before anything is timed. LoadBalancedView has the
engines of `ipcluster start`, pmap those of `up`. The ideal of the second job is the sum of all sleeps through
the workers. Bars: the first at least 20 times faster than LoadBalancedView.map, the second at most 1.15 of
the ideal.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import engines
import player
import start

from ipython_builder import processes

WORKERS = 4


class Player:
    """A process that maps in one way when it is told to."""

    script = Path(player.__file__)

    def __init__(
        self, python: Path, way: str, env: dict[str, str], workers: int, file: Path | None = None
    ) -> None:
        words = [str(python), str(self.script), way, str(workers), *([str(file)] if file else [])]
        self.way = way
        self.process = subprocess.Popen(
            words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def play(self, job: str, count: int) -> float:
        """Seconds that a job took."""
        return float(self.ask(json.dumps({"name": job, "count": count})))

    def ask(self, line: str) -> str:
        """The answer to one line."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        said = self.process.stdout.readline().strip()
        return said or sys.exit(f"{self.way} ended with {self.process.wait()}")

    def end(self) -> None:
        """Without a word for those who do not listen any more."""
        assert self.process.stdin
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


class Stock(start.ByHand):
    """`ipcluster start` in an ordinary virtual environment, which the other peers share."""

    packages = ("ipyparallel", "cloudpickle", "distributed", "joblib")

    @contextlib.contextmanager
    def cluster(self) -> Iterator[tuple[Path, Path, dict[str, str]]]:
        """(Python, connection file, environment) of a cluster that is starting."""
        home = self.work / "by-hand-home"
        notebooks = home / "notebooks"
        notebooks.mkdir(parents=True)
        env = self.env | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython"), processes.MARK: str(home)}
        file = home / "ipython" / "profile_default" / "security" / "ipcontroller-client.json"
        words = ["ipcluster", "start", "-n", str(self.count)]
        with engines.swept(home), start.started(words, env, notebooks):
            while not file.exists():
                time.sleep(0.1)
            yield self.venv / "bin" / "python", file, env

    @contextlib.contextmanager
    def started(self) -> Iterator[list[Player]]:
        """All peers."""
        with self.cluster() as (python, file, env), contextlib.ExitStack() as stack:
            players = [Player(python, "LoadBalancedView.map", env, self.count, file)]
            players += [
                Player(python, way, env, self.count) for way in ("dask", "joblib", "concurrent.futures")
            ]
            for one in players:
                stack.callback(one.end)
            yield players


class Ours(start.Ours):
    """`ipython-builder up`."""

    player = Player

    @contextlib.contextmanager
    def started(self, way: str) -> Iterator[Player]:
        up = self.tool("up", self.folder, "-n", str(self.count), "--label", "bench", "--json")
        with engines.swept(self.security.parents[2]):
            try:
                made: dict[str, Any] = json.loads(engines.interruptible(up, self.env))
                python = Path(made["environment"]["path"], "bin", "python")
                file = self.security / "ipcontroller-client.json"
                with contextlib.ExitStack() as stack:
                    one = self.player(python, way, self.env, self.count, file)
                    stack.callback(one.end)
                    yield one
            finally:
                self.down()


def compare(
    peers: list[Player], ours: Player, runs: int, job: str, count: int, title: str, least: float
) -> list[common.Case]:
    """All peers and us in turn."""
    seconds: dict[str, list[float]] = {one.way: [] for one in (*peers, ours)}
    for _ in range(runs):
        for one in (*peers, ours):
            seconds[one.way].append(one.play(job, count))
    mine = seconds.pop(ours.way)

    def keeps(way: str) -> Callable[[common.Case], bool] | None:
        return (lambda case: case.ratio >= least) if least and way == peers[0].way else None

    return [
        common.Case(
            f"{title}, {way}",
            theirs,
            mine,
            f"at least {least:.0f} times faster" if keeps(way) else "",
            keeps(way),
        )
        for way, theirs in seconds.items()
    ]


def main() -> None:
    parser = common.parser(__doc__, runs=3)
    options = parser.parse_args()
    many, few = (200, 12) if options.quick else (10_000, 1_000)
    with common.workplace(options.work) as work:
        stock, mine = Stock(work, WORKERS), Ours(work, WORKERS)
        stock.install()
        mine.install()
        with stock.started() as peers, mine.started("pmap") as ours:
            cases = compare(peers, ours, options.runs, "tiny", many, f"{many:,} tiny", 20)
            uneven = compare(peers, ours, options.runs, "nap", few, f"{few:,} uneven", 0)
    ideal = sum(player.jobs("nap", few)[1]) / WORKERS
    bar = 1.15
    name, words = f"{few:,} uneven, the ideal", f"at most {bar} of it"
    cases += [*uneven, common.Case(name, [ideal], uneven[0].ours, words, lambda case: case.ratio >= 1 / bar)]
    common.report(f"maps over {WORKERS} workers", "peer", cases, options)


if __name__ == "__main__":
    main()
