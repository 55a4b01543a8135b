"""Leaving engines free: what waits is dropped, what runs ends after its item or is interrupted."""

import signal
import threading
import time
from typing import Any

from ipython_cluster import lending, sharing
from ipython_cluster.telling import deaf, occupied

CANCEL_SECONDS = 0.5  # for tasks to end by themselves before they are interrupted
INTERRUPT_SECONDS = 5.0


def stop(client, tasks):
    """Have engines do these no more.

    Args:
        tasks: a set of AsyncResults of a load-balanced view.
    """
    try:
        if not tasks or not client.ids:
            return  # nobody could be told; what waits is done by whoever comes
        client.abort(list(tasks), block=False)
        left = _left(tasks, CANCEL_SECONDS)
        if not left:
            return
        unwanted = {one for sent in left for one in sent.msg_ids}
        asked = _queues_in(client, INTERRUPT_SECONDS)
        busy = [number for number, what in asked.items() if _interrupt(client, number, what, unwanted)]
        if busy and _left(left, INTERRUPT_SECONDS):
            deaf(busy)
    finally:
        for sent in tasks:
            client.results.pop(sent.msg_ids[0], None)
            parcel = sharing.parcel(sent) if sent.done() else None
            if parcel is not None:
                parcel.drop()


def _interrupt(client, number, what, unwanted):
    """Interrupt the task that an engine does, if it is one of these; whether it is."""
    if not unwanted & set(what["tasks"]) or number not in client.ids:
        return False
    first = not what["queue"] and what["tasks"][0] in unwanted
    # An engine of ours looks whether it is. Another one would interrupt what somebody else has given it.
    if first or lending.is_ours(client._engines[number]):
        content = {"sig": int(signal.SIGINT), "only": sorted(unwanted)}
        client._send_control_request(number, "signal_request", content, block=False)
    return first


def _left(tasks, seconds):
    """Those that have not ended by then."""
    deadline = time.monotonic() + seconds
    while tasks and time.monotonic() < deadline:
        tasks = {sent for sent in tasks if not sent.done()}
        time.sleep(0.01)
    return tasks


def queues(client):
    """Engine -> what it has to do, as the controller knows it; no answer where that has just gone."""
    try:
        asked = client.queue_status(verbose=True)
    except Exception:
        return {}  # the client was closed, or an engine has just gone
    return {number: what for number, what in asked.items() if isinstance(number, int)}


def _queues_in(client, seconds):
    """The same, or nothing if the controller does not answer in time."""
    found: dict[int, Any] = {}
    asking = threading.Thread(target=lambda: found.update(queues(client)), daemon=True)
    asking.start()
    asking.join(seconds)
    return dict(found)


def say_who_is_busy(client, targets, ours):
    """Say which engines a map waits for, where all do what others gave them.

    Args:
        targets: the engines that were asked for, None for all.
        ours: the tasks of the map.
    """
    wanted = {number: what for number, what in queues(client).items() if not targets or number in targets}
    if wanted and all({*what["queue"], *what["tasks"]} - ours for what in wanted.values()):
        occupied(wanted)
