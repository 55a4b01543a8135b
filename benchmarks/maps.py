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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import engines
import player
import start

from ipython_builder import processes

WORKERS = 4
PLAYER = Path(player.__file__)
PACKAGES = ("distributed", "joblib")


class Player:
    """A process that maps in one way when it is told to."""

    def __init__(self, python: Path, way: str, env: dict[str, str], file: Path | None = None) -> None:
        words = [str(python), str(PLAYER), way, str(WORKERS), *([str(file)] if file else [])]
        self.way = way
        self.process = subprocess.Popen(
            words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def play(self, job: str, count: int) -> float:
        """Seconds that a job took."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"name": job, "count": count}) + "\n")
        self.process.stdin.flush()
        return float(self._answer())

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

    packages = ("ipyparallel", "cloudpickle", *PACKAGES)

    @contextlib.contextmanager
    def started(self) -> Iterator[list[Player]]:
        home = self.work / "by-hand-home"
        notebooks = home / "notebooks"
        notebooks.mkdir(parents=True)
        env = self.env | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython"), processes.MARK: str(home)}
        file = home / "ipython" / "profile_default" / "security" / "ipcontroller-client.json"
        python = self.venv / "bin" / "python"
        words = ["ipcluster", "start", "-n", str(WORKERS)]
        with engines.swept(home), start.started(words, env, notebooks), contextlib.ExitStack() as stack:
            while not file.exists():
                common.run(["sleep", "0.1"], env=env)
            players = [Player(python, "LoadBalancedView.map", env, file)]
            players += [Player(python, way, env) for way in ("dask", "joblib", "concurrent.futures")]
            for one in players:
                stack.callback(one.end)
            yield players


class Ours(start.Ours):
    """`ipython-builder up`."""

    @contextlib.contextmanager
    def started(self) -> Iterator[Player]:
        up = self.tool("up", self.folder, "-n", str(WORKERS), "--label", "bench", "--json")
        with engines.swept(self.security.parents[2]):
            try:
                made: dict[str, Any] = json.loads(engines.interruptible(up, self.env))
                python = Path(made["environment"]["path"], "bin", "python")
                one = Player(python, "pmap", self.env, self.security / "ipcontroller-client.json")
                try:
                    yield one
                finally:
                    one.end()
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
        with stock.started() as peers, mine.started() as ours:
            cases = compare(peers, ours, options.runs, "tiny", many, f"{many:,} tiny", 20)
            uneven = compare(peers, ours, options.runs, "nap", few, f"{few:,} uneven", 0)
    ideal = sum(player.jobs("nap", few)[1]) / WORKERS
    bar = 1.15
    name, words = f"{few:,} uneven, the ideal", f"at most {bar} of it"
    cases += [*uneven, common.Case(name, [ideal], uneven[0].ours, words, lambda case: case.ratio >= 1 / bar)]
    common.report(f"maps over {WORKERS} workers", "peer", cases, options)


if __name__ == "__main__":
    main()
