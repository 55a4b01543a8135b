"""One way to bring an array to workers and back, in a process: `python carrier.py WAY WORKERS [FILE]`.

It makes its workers and says "ready". Then each line on stdin, which is a number of bytes, is answered with
two times as JSON: until all workers have an array of that size, and until one of them has given it back. What
has arrived is looked at, outside of what is timed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy

Bring, Fetch = Callable[[Any], Any], Callable[[Any], Any]


def views(workers: int, file: str, kind: str) -> tuple[Bring, Fetch]:
    """ipyparallel's: ours and the stock ones differ in the environment and the cluster only."""
    import ipyparallel

    client = ipyparallel.Client(file, timeout=120)
    client.wait_for_engines(workers, timeout=300, interactive=False)
    view = client.broadcast_view() if kind == "broadcast" else client[:]

    def bring(array: Any) -> None:
        view.push({"carried": array}, block=True)

    return bring, lambda _: client[0].pull("carried", block=True)


def dask(workers: int) -> tuple[Bring, Fetch]:
    from distributed import Client, wait

    client = Client(n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=0)

    def bring(array: Any) -> Any:
        future = client.scatter(array, broadcast=True, hash=False)
        wait(future)
        return future

    return bring, lambda future: client.gather(future)


def main() -> None:
    way, workers, *file = sys.argv[1:]
    kind = "broadcast" if way == "BroadcastView" else "direct"
    bring, fetch = dask(int(workers)) if way == "dask" else views(int(workers), file[0], kind)
    fetch(bring(numpy.ones(1000)))
    print("ready", flush=True)
    for number, line in enumerate(sys.stdin):
        array = numpy.full(int(line) // 8, float(number))
        began = time.perf_counter()
        there = bring(array)
        arrived = time.perf_counter()
        back = fetch(there)
        ended = time.perf_counter()
        assert numpy.array_equal(back, array), f"{way} brought something else"
        del there, back
        print(json.dumps([arrived - began, ended - arrived]), flush=True)


if __name__ == "__main__":
    main()
