"""A 100 MB array to 16 engines on this machine, and back from one, against stock views and dask.

All workers are there and have spoken before anything is timed. Stock views (`push` of a DirectView, a
BroadcastView) have the engines of `ipcluster start`; ours is the same `push` to the engines of `up`. Bar: to
all engines in at most 0.1 of the time of stock `push`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import carrier
import common
import maps

WAYS = ("DirectView.push", "BroadcastView", "dask")


class Carrier(maps.Player):
    """A process that brings an array there and back when it is told to."""

    script = Path(carrier.__file__)

    def carry(self, size: int) -> tuple[float, float]:
        """Seconds there and back."""
        there, back = json.loads(self.ask(str(size)))
        return there, back


class Stock(maps.Stock):
    """`ipcluster start`, with numpy and dask."""

    packages = ("ipyparallel", "numpy", "distributed")

    @contextlib.contextmanager
    def started(self) -> Iterator[list[maps.Player]]:
        with self.cluster() as (python, file, env), contextlib.ExitStack() as stack:
            players: list[maps.Player] = []
            for way in WAYS:
                players.append(Carrier(python, way, env, self.count, None if way == "dask" else file))
                stack.callback(players[-1].end)
            yield players


class Ours(maps.Ours):
    """`ipython-builder up` of a repository that wants numpy."""

    player = Carrier

    def __init__(self, work: Path, count: int) -> None:
        super().__init__(work, count)
        (self.folder / "requirements.txt").write_text("numpy\n")


def main() -> None:
    parser = common.parser(__doc__, runs=3)
    options = parser.parse_args()
    count, size = (2, 4_000_000) if options.quick else (16, 100_000_000)
    times: dict[str, list[tuple[float, float]]] = {}
    with common.workplace(options.work) as work:
        stock, mine = Stock(work, count), Ours(work, count)
        stock.install()
        mine.install()
        with stock.started() as peers, mine.started("push") as ours:
            for _ in range(options.runs):
                for one in (*peers, ours):
                    assert isinstance(one, Carrier)
                    times.setdefault(one.way, []).append(one.carry(size))
    own = times.pop("push")
    cases = []
    for way, found in times.items():
        for what, index in (("there", 0), ("back", 1)):
            barred = way == WAYS[0] and what == "there"
            cases.append(
                common.Case(
                    f"{what}, {way}",
                    [one[index] for one in found],
                    [one[index] for one in own],
                    "at most 0.1 of the time" if barred else "",
                    (lambda case: case.ratio >= 10) if barred else None,
                )
            )
    common.report(f"{size / 1e6:.0f} MB to {count} engines, and back from one", "peer", cases, options)


if __name__ == "__main__":
    main()
