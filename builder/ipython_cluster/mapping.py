"""A map over a cluster's engines that finds out by itself how many items to send at once.

``pmap`` returns a list, ``imap`` gives results as they are asked for. Both work on every ipyparallel cluster.
"""

import functools
import itertools
import operator
import os
import pickle
import queue
import threading
import time
import weakref
from collections import deque
from typing import Any

from ipython_cluster import lending, sending, sharing, stopping, work
from ipython_cluster.finding import ENGINE_SECONDS, MapError, balanced
from ipython_cluster.telling import RemoteTraceback, bar, repeat

TASK_SECONDS = 0.1  # what a task shall take: long beside a message (4 ms), short beside a person's patience
MESSAGE_SECONDS = 0.005  # what a task costs beside its items: smaller ones only add to it
GROWTH = 8  # the next task has at most so many times the items: the first ones may have been the short ones
ENOUGH = 32  # items that say how long such items take
MOST = 10_000  # items of a task: an input without end shall not be read without end
AHEAD = 2  # tasks on their way for each engine: it shall not wait for the next one
OTHERS_SECONDS = 10.0  # for engines to be done with what others gave them
SMALL = 64 * 1024  # bytes of a function that goes with every task


class Task:
    """Some items on an engine.

    Attributes:
        first, count: which items of the input.
        engine: its number, when it is done.
        submitted, started, completed: seconds since the epoch; None until then.
    """

    __slots__ = ("completed", "count", "engine", "first", "started", "submitted")

    def __init__(self, first, count):
        self.first = first
        self.count = count
        self.engine = self.submitted = self.started = self.completed = None

    def __repr__(self):
        return "Task(items {}–{}, engine {})".format(self.first, self.first + self.count - 1, self.engine)


class Results(list[object]):
    """The results, in the order of the input.

    Attributes:
        tasks: who did what and when, a list of `Task`.
    """

    def __init__(self, found, tasks):
        super().__init__(found)
        self.tasks = tasks


def pmap(function, *iterables, view=None, retries=2, return_exceptions=False, progress=None):
    """``list(map(function, *iterables))`` on the engines of a cluster.

    Args:
        view: a Client, or one of its views; without one the cluster is the one that ``ipyparallel.Client()``
            finds.
        retries: how often an item is computed again because the engine that had it died, or its answer got
            lost with a controller or a connection. It is for no other reason; 0 for never.
        return_exceptions: put exceptions among the results instead of raising the first one.
        progress: whether there is a progress bar; None for where somebody would see it.

    Returns:
        `Results`, a list.

    Raises:
        MapError: there is no cluster, no engine, or an item that takes every engine with it.
        TypeError: the function, or an item, cannot be sent.
        Exception: what the function raised, with the engine's traceback as its cause.
    """
    __tracebackhide__ = True  # who reads a traceback looks for code of their own
    _endless(iterables)
    run = Run(function, iterables, view, retries, return_exceptions, progress, ordered=True)
    found = list(run.results())
    return Results(found, run.tasks)


def imap(function, *iterables, view=None, ordered=True, retries=2, return_exceptions=False, progress=None):
    """``map(function, *iterables)`` on the engines of a cluster: an iterator.

    The input is read as far as engines are busy with it, so it may be without end. What is on its way is
    cancelled when the iterator is closed.

    Args:
        ordered: False for results as they come, as pairs ``(number of the item, result)``.

    Otherwise as `pmap`.
    """
    return Run(function, iterables, view, retries, return_exceptions, progress, ordered=ordered).results()


class Run:
    """One map. The thread that wants results does all of it; ipyparallel's own thread brings answers."""

    def __init__(self, function, iterables, view, retries, return_exceptions, progress, ordered):
        if not callable(function):
            raise TypeError("{!r} is no function".format(function))
        if not iterables:
            raise TypeError("there is nothing to map over")
        self.total = min(
            map(_length, iterables), default=None, key=lambda n: float("inf") if n is None else n
        )
        self.input = zip(*iterables)
        self.client, self.view = balanced(view)
        self.targets = self.view.targets  # None for all engines
        self.function = function
        self._pack(shares=lending.all_here(self.client._engines.values()))
        self.retries = retries
        self.return_exceptions = return_exceptions
        self.ordered = ordered
        self.progress = progress
        self.name = getattr(function, "__name__", type(function).__name__)
        self.task = sending.runner()
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.waiting = {}  # AsyncResult -> (Task, its items)
        self.again: deque[tuple[Task, list[Any]]] = deque()  # what nobody has done, (task, its items)
        self.tries = {}  # number of an item -> how often it was lost
        self.read = 0  # items of the input
        self.ended = False  # whether there is no more input
        self.done = 0  # items
        self.each = None  # seconds an item takes
        self.size = 1  # items of the next task
        self.tasks = []
        self.over = False  # whether nobody wants a result any more
        self.lonely = None  # since when there is no engine
        self.lent_before: list[bytes] = []  # with what was sent before an engine came that is elsewhere
        self.patient_until = None  # then it is said whom the first task waits for

    def _pack(self, shares):
        """Have the function as it is sent; by way of shared memory, if all engines are here."""
        self.shares = shares
        self.packed, self.lent = sending.packed(self.function, shares)
        if self.lent:
            weakref.finalize(self, sharing.take_back, self.lent)  # also of one that was never asked for
        self.small = not isinstance(self.packed, bytes) or len(self.packed) <= SMALL
        # Another one for each map: what a module has of the same name may be another function by now.
        self.digest = os.urandom(32)

    # -- the main line ---------------------------------------------------------------------------------

    def results(self):
        """Submit and collect until all is done."""
        __tracebackhide__ = True
        early, wanted = {}, 0  # results that are there before their turn
        self.patient_until = time.monotonic() + OTHERS_SECONDS
        self.shown = bar(self.progress, self.total, self.name)
        try:
            self._submit()
            while self.waiting or self.again or not self.ended:
                for number, result in self._collect():
                    self.shown.update(1)
                    if not self.ordered:
                        yield number, result
                        continue
                    early[number] = result
                    while wanted in early:
                        yield early.pop(wanted)
                        wanted += 1
                self._submit()
        finally:
            self.shown.close()
            self._cancel()
            sharing.take_back([*self.lent, *self.lent_before])

    def _collect(self):
        """What one task has brought: (number of the item, result)."""
        __tracebackhide__ = True
        while True:
            try:
                done = self.answers.get(timeout=1.0)
            except queue.Empty:
                self._look_for_engines()
                self._look_for_others()
                self._submit()
                self.shown.refresh()  # that nothing is done yet is worth showing too
                continue
            if done in self.waiting:
                break
        task, items = self.waiting.pop(done)
        try:
            answer = done.get(0)
        except Exception as error:
            self._lost(task, items, error)
            return
        if answer is None:
            self._send(task, items, whole=True)
            return
        seconds, data, count, said = answer
        repeat(*said)
        outcomes = pickle.loads(data) if isinstance(data, bytes) else data.open()
        told = done.metadata
        task.engine = told["engine_id"]
        task.submitted, task.started, task.completed = (
            told[name] and told[name].timestamp() for name in ("submitted", "started", "completed")
        )
        self.tasks.append(task)
        self._learn(seconds, count)
        for number, outcome in enumerate(outcomes, task.first):
            yield number, self._judge(number, outcome)
        if count < len(items):
            raise self._aborted(task.first + count, task.first + len(items) - 1)

    def _judge(self, number, outcome):
        __tracebackhide__ = True
        if outcome[0]:
            return outcome[1]
        unsent = outcome[0] is None
        error = TypeError("item {}: {}".format(number, outcome[1])) if unsent else outcome[1]
        if outcome[2]:
            error.__cause__ = RemoteTraceback("item {}:\n{}".format(number, outcome[2]), self.function)
        if not self.return_exceptions:
            raise error
        return error

    # -- how much to send ------------------------------------------------------------------------------

    def _learn(self, seconds, count):
        """How many items are a task: as many as take `TASK_SECONDS`, but not all at once."""
        if not count:
            return
        self.done += count
        took = max(seconds / count, 1e-7)
        # The last ones say more; items are seldom alike.
        self.each = took if self.each is None else (self.each + took) / 2
        self.size = max(1, min(int(TASK_SECONDS / self.each), max(count, self.size // 2) * GROWTH, MOST))

    def _submit(self):
        """Have every engine busy, and the next task waiting for it."""
        engines = self._engines()
        # At first one item each, to see how long it takes.
        most = max(len(engines), 1) * (1 if self.each is None else AHEAD)
        while len(self.waiting) < most and self._reachable():
            if self.again:
                self._send(*self.again.popleft())
                continue
            items = [] if self.ended else list(itertools.islice(self.input, self._next_size(most)))
            if not items:
                self.ended = True
                return
            task = Task(self.read, len(items))
            self.read += len(items)
            self._send(task, items)

    def _engines(self):
        """The numbers of those that are there, of those that were asked for."""
        ids = self.client.ids
        return ids if self.targets is None else [number for number in self.targets if number in ids]

    def _reachable(self):
        """Whether something can be sent: the scheduler waits for engines, but not for certain ones."""
        if self.targets is None:
            return True
        self.view.targets = self._engines()
        return bool(self.view.targets)

    def _next_size(self, most):
        """Towards the end tasks get smaller, so that all engines end together."""
        if self.total is None or self.each is None:
            return self.size
        fair = -(-(self.total - self.read) // most)
        if self.done >= ENOUGH:  # until then they may seem smaller than they are
            fair = max(fair, int(MESSAGE_SECONDS / self.each))
        return max(1, min(self.size, fair))

    def _send(self, task, items, whole=False):
        if self.shares and not lending.all_here(self.client._engines.values()):
            self._share_no_more()  # an engine has come that is elsewhere
        try:
            data, lent = sharing.lend(items, work.dumps, here=self.shares)
        except Exception:
            raise self._unsendable(task, items) from None
        packed = self.packed if whole or self.small else None
        try:
            sent = self.view.apply_async(self.task, self.digest, packed, data, self.return_exceptions)
        except (KeyError, IndexError):
            if self.targets is None:
                raise
            sharing.take_back(lent)  # one of the engines has just gone
            self.again.append((task, items))
            return
        if self.client.history[-1:] == sent.msg_ids:
            self.client.history.pop()  # it would keep a word of each for ever
        self.waiting[sent] = task, items
        if lent:
            sent.add_done_callback(lambda _: sharing.take_back(lent))
        sent.add_done_callback(self._arrived)

    def _arrived(self, sent):
        """In ipyparallel's thread: have what is in shared memory before somebody asks for it, and say so."""
        parcel = sharing.parcel(sent)
        if parcel is not None:
            parcel.hold()
            if self.over:
                parcel.drop()
        self.answers.put(sent)

    def _share_no_more(self):
        """Send everything the ordinary way from now on; who still waits for what was lent gets it."""
        self.lent_before += self.lent
        self._pack(shares=False)

    @staticmethod
    def _unsendable(task, items):
        for number, item in enumerate(items, task.first):
            try:
                work.dumps(item)
            except Exception as error:
                return TypeError("item {} cannot be sent to an engine: {}".format(number, error))
        return TypeError("items cannot be sent to an engine")

    @staticmethod
    def _aborted(first, last):
        return MapError("items {} to {} were cancelled from elsewhere".format(first, last))

    # -- engines that die, and who gives up ------------------------------------------------------------

    def _lost(self, task, items, error):
        """An engine died with this task, or it could not begin."""
        kind = getattr(error, "ename", type(error).__name__)
        if kind == "TaskAborted":
            raise self._aborted(task.first, task.first + len(items) - 1) from error
        if kind == "Gone" and self.shares:  # it waited, and began on an engine that is elsewhere
            self._share_no_more()
        if kind in ("Gone", "ImpossibleDependency"):  # or it waited for certain engines, which are gone
            self.again.append((task, items))
            return
        if kind != "EngineError":
            raise error
        for number, item in enumerate(items, task.first):
            self.tries[number] = tries = self.tries.get(number, 0) + 1
            if not self.retries:
                raise MapError(
                    "{} on an engine that died, or whose answer was lost\n next: allow to compute again what "
                    "it had: retries=2".format(
                        "item {} was".format(number)
                        if len(items) == 1
                        else "items {} to {} were".format(number, number + len(items) - 1)
                    )
                ) from error
            if len(items) == 1 and tries > self.retries:
                raise MapError(
                    "item {} was on an engine that died, {} times: {}\n next: run it alone, in a process of "
                    "its own, to see why; retries={} is what was allowed".format(
                        number, tries, _short(item), self.retries
                    )
                ) from error
            # One by one: which of them it was is seen then.
            self.again.append((Task(number, 1), [item]))

    def _look_for_engines(self):
        """Give up where no engine has been there for long."""
        now = time.monotonic()
        if self._engines():
            self.lonely = None
        elif self.lonely is None:
            self.lonely = now
        elif now - self.lonely > ENGINE_SECONDS:
            raise MapError(
                "the engines are gone, and none has come for {:.0f} s\n next: look at `ipython-builder "
                "status`, or start engines".format(ENGINE_SECONDS)
            )

    def _look_for_others(self):
        """Say once which engines are at something else, where none has done anything of this map."""
        if self.tasks or not self.patient_until or time.monotonic() < self.patient_until:
            return
        self.patient_until = None
        ours = {one for sent in self.waiting for one in sent.msg_ids}
        say = functools.partial(stopping.say_who_is_busy, self.client, self.targets, ours)
        threading.Thread(target=say, daemon=True).start()  # for a controller may not answer

    def _cancel(self):
        """Leave engines free."""
        self.over = True
        left, self.waiting = self.waiting, {}
        stop = functools.partial(stopping.stop, self.client, set(left))
        if threading.current_thread() is self.client._io_thread:  # which has collected us, and has to answer
            threading.Thread(target=stop, daemon=True).start()
        else:
            stop()


# -- small things ----------------------------------------------------------------------------------------


def _length(iterable):
    """How many items there are; None where nobody knows."""
    try:
        return len(iterable)
    except TypeError:
        found = operator.length_hint(iterable, -1)
        return found if found >= 0 else None


def _endless(iterables):
    endless = (itertools.count, itertools.cycle)
    if iterables and all(
        isinstance(one, endless) or (isinstance(one, itertools.repeat) and _length(one) is None)
        for one in iterables
    ):
        raise ValueError("the input never ends, and a list would not either\n next: use imap")


def _short(item):
    text = repr(item[0] if len(item) == 1 else item)
    return text if len(text) < 80 else text[:77] + "..."
