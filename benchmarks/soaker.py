"""The client of `soak.py`, in a process of its own in the cluster's environment.

Each line on stdin is a number of seconds. For so long it maps, sends arrays there and back, and has tasks,
one after the other; then it prints one JSON object: how many it did, what was reported as failed, and what
was lost. A result that is wrong or does not come is lost; a task of an engine that was killed is reported.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import ipyparallel
import numpy as np
from ipyparallel.error import EngineError, NoEnginesRegistered, RemoteError

from ipython_cluster import pmap

ITEMS = 500  # of a map
FLOATS = 1 << 20  # of an array: 8 MiB
LIMIT = 90.0  # seconds after which an answer is lost

Counts = Counter[str]


def mapped(client: Any, counts: Counts, draw: random.Random) -> None:
    """A map over tiny items, or over some that take a while."""
    if draw.random() < 0.5:
        scale = draw.randrange(1, 100)
        found = pmap(lambda item: item * scale, range(ITEMS), view=client, retries=10, progress=False)
        right = list(found) == [item * scale for item in range(ITEMS)]
    else:
        items = [draw.uniform(0.001, 0.02) for _ in range(ITEMS // 10)]

        def nap(seconds: float) -> float:
            import time

            time.sleep(seconds)
            return seconds

        right = list(pmap(nap, items, view=client, retries=10, progress=False)) == items
    counts["maps"] += 1
    if not right:
        counts["lost: a map's results were wrong"] += 1


def sent(client: Any, counts: Counts, draw: random.Random) -> None:
    """An array to all engines, and one back from each."""
    array = np.full(FLOATS, draw.random())
    sums = client[:].apply_async(lambda one: float(one.sum()), array).get(timeout=LIMIT)
    back = client[:].apply_async(lambda one: one * 2, array).get(timeout=LIMIT)
    counts["arrays"] += len(sums) + len(back)
    if set(sums) != {float(array.sum())} or any(not np.array_equal(one, array * 2) for one in back):
        counts["lost: an array was not what was sent"] += 1


def balanced(client: Any, counts: Counts, draw: random.Random) -> None:
    """Ten tasks of a load-balanced view, that are computed again if their engine dies."""
    view = client.load_balanced_view()
    view.retries = 3
    tasks = [view.apply_async(lambda base, power: base**power, base, 3) for base in range(10)]
    for base, task in enumerate(tasks):
        try:
            if task.get(timeout=LIMIT) != base**3:
                counts["lost: a task's result was wrong"] += 1
        except EngineError:
            counts["reported"] += 1
    counts["tasks"] += len(tasks)


def work(client: Any, seconds: float, draw: random.Random) -> Counts:
    """All of it, in turn, for so long."""
    counts: Counts = Counter()
    kinds: list[Callable[[Any, Counts, random.Random], None]] = [mapped, sent, balanced]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for kind in kinds:
            try:
                kind(client, counts, draw)
                tidy(client, counts, kind.__name__)
            except (EngineError, NoEnginesRegistered):
                counts["reported"] += 1
            except ipyparallel.TimeoutError:
                counts[f"lost: no answer within {LIMIT:.0f} s ({kind.__name__})"] += 1
            except ipyparallel.CompositeError as error:
                if all(one[0] == "EngineError" for one in error.elist):
                    counts["reported"] += 1
                else:
                    counts[f"lost: {error}"] += 1
            except RemoteError as error:
                reported = error.ename == "EngineError"
                counts["reported" if reported else f"lost: {error.ename}: {error.evalue}"] += 1
    tidy(client, counts, "at the end")
    return counts


def tidy(client: Any, counts: Counts, what: str) -> None:
    """See that nothing is left of what has ended. Views keep results until they are told not to."""
    late = list(client.outstanding)
    if late and not client.wait(late, timeout=LIMIT):
        counts[f"lost: no end within {LIMIT:.0f} s ({what})"] += 1
        client.outstanding.clear()
    if what != mapped.__name__:  # a map keeps nothing
        client.purge_everything()


def main() -> None:
    client = ipyparallel.Client(timeout=60)
    draw = random.Random(1)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(work(client, float(line), draw)), flush=True)


if __name__ == "__main__":
    main()
