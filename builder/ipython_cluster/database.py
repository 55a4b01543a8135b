"""The hub's memory of tasks, with an end: headers of the last thousands, data of the last megabytes.

ipyparallel's own keeps up to a gigabyte of arguments and results, and counts neither output nor code.
"""

import operator
from collections import deque
from copy import deepcopy

from ipyparallel.controller.dictdb import CompositeFilter, DictDB, filters
from traitlets import Integer

RECORDS = 4096  # tasks that another client can ask for by id; ten kilobytes each at most times
DATA_BYTES = 48 * 2**20  # of their arguments, results and output, all together
TEXT_CHARS = 2**20  # of one task's stdout or stderr, the last ones
HEAVY = ("buffers", "result_buffers", "stdout", "stderr", "execute_input", "execute_result", "error")
filters["$gt"] = operator.gt  # ipyparallel's own means $lt
DROPPED = "dropped"  # the key of a record whose data had to go


def weight(record):
    """About how many bytes of data a record holds."""
    total = sum(len(one) for key in ("buffers", "result_buffers") for one in record.get(key) or ())
    total += sum(len(record.get(key) or "") for key in ("stdout", "stderr"))
    for key in HEAVY[4:]:
        if record.get(key):
            total += len(str(record[key]))
    return total


class Recent(set):  # type: ignore[type-arg]
    """A set that forgets what was added longest ago."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.order: deque[object] = deque()

    def add(self, item):
        if item not in self:
            super().add(item)
            self.order.append(item)
            while len(self.order) > self.limit:
                self.discard(self.order.popleft())


class Tally(list):  # type: ignore[type-arg]
    """A list that keeps its last entries and counts all: what a queue's status says is a number."""

    KEPT = 1000

    def __init__(self):
        super().__init__()
        self.total = 0

    def append(self, item):
        self.total += 1
        super().append(item)
        if super().__len__() > 2 * self.KEPT:
            del self[: self.KEPT]

    def __len__(self):
        return self.total


class Database(DictDB):
    """DictDB with limits that hold.

    What is too much loses its data first, oldest first, and is forgotten later: a task's header, state and
    metadata are there for `record_limit` tasks.

    Attributes:
        done, failed: how many results came in, good and bad.
    """

    size_limit = Integer(DATA_BYTES, config=True)
    record_limit = Integer(RECORDS, config=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._culled_ids: frozenset[str] = frozenset()  # the class's own grows for ever
        self.weights = {}  # msg_id -> bytes, oldest first, only of those that hold any
        self.bytes = 0
        self.done = 0
        self.failed = 0

    # -- limits ----------------------------------------------------------------------------------------

    def weigh(self, msg_id):
        before = self.weights.pop(msg_id, 0)
        now = weight(self._records[msg_id])
        self.bytes += now - before
        if now:
            self.weights[msg_id] = now

    def shrink(self):
        while self.bytes > self.size_limit and self.weights:
            oldest = next(iter(self.weights))
            self.bytes -= self.weights.pop(oldest)
            record = self._records[oldest]
            for key in HEAVY:
                record[key] = "" if key.startswith("std") else None
            record[DROPPED] = True
        while len(self._records) > self.record_limit:
            self.drop_record(next(iter(self._records)))

    # -- what the hub calls ----------------------------------------------------------------------------

    def add_record(self, msg_id, rec):
        if msg_id in self._records:
            raise KeyError("Already have msg_id {!r}".format(msg_id))
        self._check_dates(rec)
        self._records[msg_id] = rec
        self.weigh(msg_id)
        self.shrink()

    def get_record(self, msg_id):
        """A copy of the record, which shares its values: the hub only reads them, once for each output."""
        return dict(self._records[msg_id])

    def update_record(self, msg_id, rec):
        content = rec.get("result_content")
        if content is not None:
            if content.get("status") == "ok":
                self.done += 1
            else:
                self.failed += 1
        record = self._records.get(msg_id)
        if record is None:
            return  # forgotten while it was running; the client gets its result all the same
        self._check_dates(rec)
        for key in ("stdout", "stderr"):
            if len(rec.get(key) or "") > TEXT_CHARS:
                rec[key] = rec[key][-TEXT_CHARS:]
        record.update(rec)
        self.weigh(msg_id)
        self.shrink()

    def drop_record(self, msg_id):
        self.bytes -= self.weights.pop(msg_id, 0)
        del self._records[msg_id]

    def drop_matching_records(self, check):
        for record in self._match(check):
            self.drop_record(record["msg_id"])

    def _match(self, check):
        wanted = check.get("msg_id") if len(check) == 1 else None
        if isinstance(wanted, dict) and list(wanted) == ["$in"]:
            # What clients ask for most: no need to look at every record.
            return [deepcopy(self._records[one]) for one in wanted["$in"] if one in self._records]
        # ipyparallel's own compares all that shall be equal with the last value it was given.
        tests = {
            key: CompositeFilter(one if isinstance(one, dict) else {"$eq": one}) for key, one in check.items()
        }
        return [deepcopy(one) for one in self._records.values() if self._match_one(one, tests)]

    def get_history(self):
        """All known ids in the order in which they came: the clock may have been set in between."""
        return [one for one, record in self._records.items() if record["submitted"] is not None]
