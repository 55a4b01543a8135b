"""One way to map, in a process of its own: `python player.py WAY WORKERS [CONNECTION FILE]`.

It makes its workers and says "ready". Then each line on stdin, which is a job as JSON, is done and answered
with seconds. What has been computed is looked at, outside of what is timed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Sequence[Any]]


def tiny(number: int) -> int:
    return number + 1


def nap(seconds: float) -> float:
    import time  # ipyparallel's own views take nothing along that a function uses

    time.sleep(seconds)
    return seconds


def jobs(name: str, count: int) -> tuple[Callable[[Any], Any], Sequence[Any]]:
    """(function, input). Naps are 10 to 100 ms long, the same ones for all."""
    if name == "tiny":
        return tiny, range(count)
    draw = random.Random(1)
    return nap, [draw.uniform(0.01, 0.1) for _ in range(count)]


def stock(workers: int, file: str) -> Map:
    import ipyparallel

    client = ipyparallel.Client(file, timeout=120)
    client.wait_for_engines(workers, timeout=300, interactive=False)
    view = client.load_balanced_view()
    return lambda function, items: view.map_sync(function, items)


def ours(workers: int, file: str) -> Map:
    import ipyparallel

    from ipython_cluster import pmap

    client = ipyparallel.Client(file, timeout=120)
    client.wait_for_engines(workers, timeout=300, interactive=False)
    return lambda function, items: pmap(function, items, view=client)


def dask(workers: int, file: str) -> Map:
    from distributed import Client

    client = Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    # Results are pure: without this the second run would only look them up.
    return lambda function, items: client.gather(client.map(function, list(items), pure=False))


def joblib(workers: int, file: str) -> Map:
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=workers)
    return lambda function, items: pool(delayed(function)(item) for item in items)


def futures(workers: int, file: str) -> Map:
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(workers)
    return lambda function, items: list(pool.map(function, items))


WAYS: dict[str, Callable[[int, str], Map]] = {
    "LoadBalancedView.map": stock,
    "pmap": ours,
    "dask": dask,
    "joblib": joblib,
    "concurrent.futures": futures,
}


def main() -> None:
    way, workers, *file = sys.argv[1:]
    mapped = WAYS[way](int(workers), *(file or [""]))
    mapped(tiny, range(8 * int(workers)))  # every worker has spoken once
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        function, items = jobs(job["name"], job["count"])
        began = time.perf_counter()
        found = mapped(function, items)
        seconds = time.perf_counter() - began
        expected = [item + 1 for item in items] if job["name"] == "tiny" else list(items)
        assert list(found) == expected, f"{way} computed something else"
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
