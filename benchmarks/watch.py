"""Say when a page answers and when engines are registered: `watch.py URL CONNECTION_FILE ENGINES`.

Without a page, URL is "-".
Run with the Python of the environment that the engines are in. It prints "watching" when it has imported what
it needs, and then one JSON object with the moments, on the clock that all processes of a machine share. Both
sides of `start.py` and of `engines.py` are watched by it. It is no benchmark itself.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import ipyparallel as ipp

POLL = 0.01


def answering(url: str) -> None:
    """Wait for HTTP 200, redirects followed."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with opener.open(url, timeout=60) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(POLL)


def whole(file: str) -> bool:
    """Whether a JSON file is there and written to its end: the stock controller writes it in place."""
    try:
        with open(file) as text:
            json.load(text)
    except (OSError, ValueError):
        return False
    return True


def registered(file: str, count: int) -> None:
    """Wait for the connection file, for the controller, and for its engines."""
    while not whole(file):
        time.sleep(POLL)
    client = ipp.Client(file, timeout=120)
    while len(client.ids) < count:
        time.sleep(POLL)


def main() -> None:
    url, file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    moments: dict[str, float] = {}

    def watch(name: str, wait: Callable[..., None], *arguments: object) -> None:
        wait(*arguments)
        moments[name] = time.monotonic()

    print("watching", flush=True)
    threads = [threading.Thread(target=watch, args=("engines", registered, file, count))]
    if url != "-":
        threads.append(threading.Thread(target=watch, args=("page", answering, url)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(moments), flush=True)


if __name__ == "__main__":
    main()
