"""What a task scheduler had when it was killed, for its successor: a file that is appended to, and rewritten.

A process that is killed loses no written byte, so nothing is synced. The journal of another boot of the
machine is nobody's. A full disk ends the journal, never the scheduler; it is begun anew when there is room.
"""

import json
import os
import struct
import time
from collections import OrderedDict

HEAD = struct.Struct("<II")  # bytes of a record's JSON, bytes of the frames that follow it
TASK_BYTES = 16 * 2**20  # a task with more is only known by name: it cannot be run again
LIVE_BYTES = 256 * 2**20  # the same for tasks that come when this much is waiting
SLACK_BYTES = 8 * 2**20  # of finished tasks that may lie in the file before it is rewritten
FINISHED = 2000  # finished tasks on which others may depend
AGAIN_SECONDS = 5.0  # between two attempts to begin anew
DELIMITER = b"<IDS|MSG>"
NAMED_FRAMES = 4  # after the delimiter: signature, header, parent, metadata; then content and buffers


def boot():
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


class Found:
    """A task that was not finished: its message, the engine that had it, and the tries that are left."""

    def __init__(self, frames, whole, retries):
        self.frames = frames
        self.whole = whole
        self.retries = retries
        self.engine = None


class Journal:
    """Written by one scheduler, read by the next. It knows what it would write also while it cannot.

    Attributes:
        path: of the file; without one there is no journal.
        finished: msg_id -> (whether it went well, engine or None), the last ones.
    """

    def __init__(self, path, log):
        self.path = path
        self.log = log
        self.file = None
        self.ended = None  # when the file could not be written
        self.tasks = {}  # msg_id -> [record, frames, engine]
        self.live = 0
        self.size = 0
        self.finished = OrderedDict()

    # -- the one before --------------------------------------------------------------------------------

    def read(self):
        """The tasks that were not finished, by id, in their order; and begin anew."""
        found: dict[str, Found] = {}
        if self.path is None:
            return found
        try:
            with open(self.path, "rb") as file:
                for record, data in self.records(file):
                    if not self.take(found, record, data):
                        break
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, struct.error) as problem:
            self.log.warning("journal: what was kept of unfinished tasks cannot be read: %s", problem)
        self.rewrite()
        return found

    @staticmethod
    def records(file):
        while True:
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                return
            length, data_length = HEAD.unpack(head)
            text, data = file.read(length), file.read(data_length)
            if len(text) < length or len(data) < data_length:
                return  # killed while it wrote this
            yield json.loads(text), data

    def take(self, found, record, data):
        kind, msg_id = record["kind"], record.get("id")
        engine = record["engine"].encode() if record.get("engine") else None
        if kind == "boot":
            return record["boot"] == boot()
        if kind == "task":
            frames = []
            for size in record["sizes"]:
                frames.append(data[:size])
                data = data[size:]
            found[msg_id] = Found(frames, record["whole"], record["retries"])
        elif kind == "assigned" and msg_id in found:
            found[msg_id].retries -= engine is not None and found[msg_id].engine is not None
            found[msg_id].engine = engine
        elif kind == "finished":
            found.pop(msg_id, None)
            self.finished[msg_id] = (record["good"], engine)
        return True

    # -- this one --------------------------------------------------------------------------------------

    def add(self, msg_id, frames, retries):
        """A task came in; `frames` are its message as it came, with the client's address."""
        if self.path is None or msg_id in self.tasks:
            return
        parts = [getattr(frame, "buffer", frame) for frame in frames]
        size = sum(map(len, parts))
        whole = size <= TASK_BYTES and self.live + size <= LIVE_BYTES
        if not whole:
            named = next((i for i, one in enumerate(parts) if one == DELIMITER), 0) + 1 + NAMED_FRAMES
            parts = parts[:named]
        sizes = [len(one) for one in parts]
        record = {"kind": "task", "id": msg_id, "retries": retries, "whole": whole, "sizes": sizes}
        self.tasks[msg_id] = [record, parts, None]
        self.live += sum(sizes)
        self.write(record, parts)

    def assign(self, msg_id, engine):
        if msg_id in self.tasks:
            self.tasks[msg_id][2] = engine
            self.write({"kind": "assigned", "id": msg_id, "engine": engine.decode() if engine else None})

    def finish(self, msg_id, good, engine):
        if self.path is None:
            return
        task = self.tasks.pop(msg_id, None)
        if task is not None:
            self.live -= sum(task[0]["sizes"])
        self.finished[msg_id] = (good, engine)
        if len(self.finished) > FINISHED:
            self.finished.popitem(last=False)
        self.write(
            {"kind": "finished", "id": msg_id, "good": good, "engine": engine.decode() if engine else None}
        )
        if self.size > SLACK_BYTES + 2 * self.live:
            self.rewrite()

    def rewrite(self):
        """A new file with what still counts."""
        if self.path is None:
            return
        self.close()
        new = self.path + ".new"
        try:
            self.file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as problem:
            self.end(problem)
            return
        self.size = 0
        self.write({"kind": "boot", "boot": boot()})
        for msg_id, (good, engine) in self.finished.items():
            self.write(
                {
                    "kind": "finished",
                    "id": msg_id,
                    "good": good,
                    "engine": engine.decode() if engine else None,
                }
            )
        for msg_id, (record, parts, engine) in self.tasks.items():
            self.write(record, parts)
            if engine:
                self.write({"kind": "assigned", "id": msg_id, "engine": engine.decode()})
        if self.file is not None:
            try:
                os.replace(new, self.path)
            except OSError as problem:
                self.end(problem)
        if self.file is not None and self.ended is not None:
            self.log.warning("journal: written again")
            self.ended = None

    def write(self, record, parts=()):
        """Append a record of what has been noted already."""
        if self.file is None:
            if self.ended is not None and time.monotonic() - self.ended > AGAIN_SECONDS:
                self.rewrite()
            return
        text = json.dumps(record).encode()
        data = b"".join([HEAD.pack(len(text), sum(map(len, parts))), text, *parts])
        try:
            while data:
                written = os.write(self.file, data)
                self.size += written
                data = data[written:]
        except OSError as problem:
            self.end(problem)

    def end(self, problem):
        """Without a journal: what a successor would read now would be wrong."""
        if self.ended is None:
            self.log.warning("journal: unfinished tasks would be lost if this controller died: %s", problem)
        self.ended = time.monotonic()
        self.size = 0
        self.close()
        for path in (self.path, self.path + ".new"):
            try:
                os.unlink(path)
            except OSError:
                pass

    def close(self):
        if self.file is not None:
            os.close(self.file)
            self.file = None
