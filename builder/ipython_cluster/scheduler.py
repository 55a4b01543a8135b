"""The schedulers: no task is forgotten, whoever dies.

The load-balancing one keeps a journal, so that its successor knows what it had; it asks an engine before it
gives it something; and it hears from the hub who died and who is to leave.
"""

import json
import os

import zmq
from ipyparallel import error, util
from ipyparallel.controller import broadcast_scheduler, task_scheduler

from ipython_cluster.database import Recent
from ipython_cluster.hub import failure
from ipython_cluster.journal import DELIMITER, NAMED_FRAMES, Journal

KNOWN = (
    b"ipython_cluster_known"  # a client's question which of these tasks we know; its answer ends in _reply
)
FINISHED = 20_000  # ids of finished tasks on which others may still depend
ASK_SECONDS = 1.0  # between two questions to an engine that has not answered
LATE_SECONDS = 0.2  # for the results of a dead engine that are on their way
STOCK_SECONDS = 5.0  # for those of one that fell silent
GONE_SECONDS = 30.0  # for the engines of a dead controller to come to its successor

DIED = "Engine {engine!r} died while running task {task!r}"
RESTARTED = (
    "the connection broke, or the controller was restarted, while task {task!r} or its result was on its way"
)


def hand_over(*streams):
    """An address that comes again is the same engine or client over a new connection; ours may look whole."""
    for stream in streams:
        stream.socket.router_handover = True


class BroadcastScheduler(broadcast_scheduler.BroadcastScheduler):
    """Relays one task to many engines."""

    def start(self):
        hand_over(self.client_stream, *([self.engine_stream] if self.is_leaf else self.outgoing_streams))
        super().start()

    def coalescing_reply(self, raw_msg, msg, original_msg_id, outgoing_id, idents):
        # The one before us may have had replies of other engines; the client asks, and hears that it is lost.
        if original_msg_id in self.accumulated_replies:
            super().coalescing_reply(raw_msg, msg, original_msg_id, outgoing_id, idents)


class TaskScheduler(task_scheduler.TaskScheduler):
    """Gives tasks to engines.

    `orders` is the reading end of a pipe with one JSON object a line from the hub; `journal_file` is where
    the successor finds what was not finished.
    """

    orders = -1
    journal_file = None

    def start(self):
        for name in ("all_completed", "all_failed", "all_done", "all_ids"):
            setattr(self, name, Recent(FINISHED))
        self.leaving = set()
        self.asked = {}  # engine -> ids of the questions that it has not answered
        self.lost = Recent(FINISHED)
        self.heard = b""
        self.journal = Journal(self.journal_file, self.log)
        self.found = self.journal.read()  # what the scheduler before us had
        for msg_id, (good, engine) in self.journal.finished.items():
            self.note_finished(msg_id, good, engine)
        self.inherited = bool(self.destinations)
        self.held: dict[
            bytes, list[list[zmq.Frame]]
        ] = {}  # client that we have not heard yet -> results for it
        for msg_id, found in self.found.items():
            self.all_ids.add(msg_id)
            self.journal.add(msg_id, found.frames, found.retries)
            self.journal.assign(msg_id, found.engine)
            self.held[found.frames[0]] = []
        hand_over(self.client_stream, self.engine_stream)
        super().start()
        if self.found:
            self.log.warning("%i tasks of the controller before are not finished", len(self.found))
            self.loop.call_later(GONE_SECONDS, self.give_up)
        if self.orders >= 0:
            os.set_blocking(self.orders, False)
            self.loop.add_handler(self.orders, self.hear, self.loop.READ)

    # -- what the hub says -----------------------------------------------------------------------------

    def hear(self, fd, events):
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.loop.remove_handler(fd)
            return
        *lines, self.heard = (self.heard + data).split(b"\n")
        for line in lines:
            self.obey(json.loads(line))

    @util.log_errors
    def obey(self, order):
        if "lost" in order:
            uid = order["lost"].encode()
            self.lost.add(uid)
            if uid in self.targets:
                self._unregister_engine(uid)
            else:
                self.strand(uid, DIED)
        self.leaving.update(uuid.encode() for uuid in order.get("leaving", ()))
        if order.get("staying"):
            self.leaving.difference_update(uuid.encode() for uuid in order["staying"])
            self.update_graph(None)

    # -- engines ---------------------------------------------------------------------------------------

    def _register_engine(self, uid):
        if uid in self.lost:
            return  # too late
        if uid in self.targets:
            # Its line was broken for a moment, and what was on its way is lost.
            if uid not in self.asked:
                self.asked[uid] = set()
                self.ask(uid)
            return
        self.take_up(uid)
        for msg_id, engine in self.destinations.items() if self.inherited else ():
            if engine == uid:
                (self.completed if msg_id in self.all_completed else self.failed)[uid].add(msg_id)
        self.targets.insert(0, uid)
        self.loads.insert(0, len(self.pending[uid]))
        self.asked[uid] = set()
        self.ask(uid)
        if self.found:
            self.loop.add_callback(self.run_found)  # not from here: a submission may have called us

    def ask(self, uid):
        """Ask an engine for what every kernel answers, until it does.

        It answers in its turn: what it had before and has not answered by then, it never got, or its answer
        was lost with our predecessor. Until then it gets nothing: it may be busy, or not be connected yet,
        and ØMQ drops what is sent to nobody.
        """
        if uid not in self.asked:
            return
        msg = self.session.msg("kernel_info_request", {})
        self.asked[uid].add(msg["header"]["msg_id"])
        self.session.send(self.engine_stream, msg, ident=[uid, self.ident])
        # It may be busy for hours: it shall not find a thousand questions then.
        wait = min(ASK_SECONDS * 2 ** max(0, len(self.asked[uid]) - 4), 60)
        self.loop.call_later(wait, lambda: self.ask(uid))

    def answered(self, uid, msg_id):
        if msg_id in self.asked.get(uid, ()):
            del self.asked[uid]
            self.mon_stream.send_multipart([b"answers", uid, DELIMITER])
            self.strand(uid, RESTARTED)
            self.update_graph(None)

    def available_engines(self):
        available = super().available_engines()
        if not self.asked and not self.leaving:
            return available
        targets = self.targets
        return [
            one for one in available if targets[one] not in self.asked and targets[one] not in self.leaving
        ]

    def submit_task(self, job, indices=None):
        if indices is None:
            indices = self.available_engines()
        super().submit_task(job, indices)
        self.journal.assign(job.msg_id, self.targets[-1])  # who got a task goes to the end of the line

    def _unregister_engine(self, uid):
        if uid not in self.targets:
            return  # told twice
        self.engine_stream.flush()
        index = self.targets.index(uid)
        del self.targets[index], self.loads[index]
        self.asked.pop(uid, None)
        self.leaving.discard(uid)
        # One whose supervisor says that it is dead sends nothing any more, but what is on its way.
        wait = LATE_SECONDS if uid in self.lost else STOCK_SECONDS
        self.loop.call_later(wait, lambda: self.bury(uid))

    @util.log_errors
    def bury(self, uid):
        if uid in self.targets:
            return  # it was thrown out for its silence, and has come back
        self.engine_stream.flush()
        self.strand(uid, DIED)
        self.update_graph(None)  # tasks that only this one was allowed to run

    def strand(self, uid, why):
        """Nobody will answer the tasks that this engine had: answer for it. Some have tries left."""
        self.take_up(uid)
        for job in list(self.pending[uid].values()):
            content = failure(error.EngineError(why.format(engine=uid.decode(), task=job.msg_id)))
            metadata = {"status": "error", "engine": uid.decode(), "date": util.utcnow()}
            msg = self.session.msg("apply_reply", content, parent=job.header, metadata=metadata)
            idents = [uid, job.idents[0]]
            self.dispatch_result([zmq.Frame(one) for one in self.session.serialize(msg, ident=idents)])
        if uid not in self.targets:
            for table in (self.pending, self.completed, self.failed):
                table.pop(uid, None)

    # -- tasks -----------------------------------------------------------------------------------------

    def dispatch_submission(self, raw_msg):
        if self.held:
            self.let_go(raw_msg[0].bytes)
        if len(raw_msg) > 3 and KNOWN in raw_msg[3].bytes:
            self.say_what_is_known(raw_msg)
        else:
            super().dispatch_submission(raw_msg)

    @util.log_errors
    def say_what_is_known(self, raw_msg):
        """A client that outlived a controller asks for its tasks. What it hears comes after every result that
        is on its way, and its question came after every task."""
        idents, msg = self.session.feed_identities(raw_msg, copy=False)
        msg = self.session.deserialize(msg, copy=False)
        unknown = [
            one for one in msg["content"]["msg_ids"] if one not in self.retries and one not in self.found
        ]
        self.session.send(
            self.client_stream, KNOWN.decode() + "_reply", {"unknown": unknown}, parent=msg, ident=idents
        )

    def let_go(self, client):
        """A client of our predecessor is there: what came for it before would have been dropped."""
        for message in self.held.pop(client, ()):
            self.client_stream.send_multipart(message, copy=False)

    def maybe_run(self, job):
        self.journal.add(job.msg_id, job.raw_msg, self.retries.get(job.msg_id, 0))
        return super().maybe_run(job)

    def save_unmet(self, job):
        self.journal.add(job.msg_id, job.raw_msg, self.retries.get(job.msg_id, 0))
        super().save_unmet(job)

    @util.log_errors
    def dispatch_result(self, raw_msg):
        try:
            idents, msg = self.session.feed_identities(raw_msg, copy=False)
            msg = self.session.deserialize(msg, content=False, copy=False)
            engine, client = idents[:2]
            parent = msg["parent_header"]
            msg_id = parent["msg_id"]
        except Exception:
            self.log.error("task::Invalid result: %r", raw_msg, exc_info=True)
            return
        if msg["header"]["msg_type"] == "kernel_info_reply":
            self.answered(engine, msg_id)
            return
        job = self.pending.get(engine, {}).get(msg_id)
        metadata = msg["metadata"]
        good = metadata.get("status") == "ok"
        if job is None:
            if msg_id in self.retries or msg_id in self.all_done:
                return  # somebody else runs it by now, or it was given up
            # Our predecessor had it.
            self.found.pop(msg_id, None)
            raw_msg[:2] = [client, engine]
            self.send_to_client(raw_msg)
            self.finished(msg_id, good, engine)
            self.mon_stream.send_multipart([b"outtask", *raw_msg], copy=False)
            self.update_graph(msg_id, good)
            return
        if engine in self.targets:
            self.finish_job(self.targets.index(engine))
        if not metadata.get("dependencies_met", True):
            self.run_again(job, engine)
        elif not good and self.retries[msg_id] > 0:
            self.retries[msg_id] -= 1
            self.run_again(job, engine, failed=True)
        else:
            del self.retries[msg_id]
            self.finished(msg_id, good, engine)
            self.handle_result(idents, parent, raw_msg, good)
            self.mon_stream.send_multipart([b"outtask", *raw_msg], copy=False)

    def handle_result(self, idents, parent, raw_msg, success=True):
        engine, client = idents[:2]
        msg_id = parent["msg_id"]
        raw_msg[:2] = [client, engine]  # the other way round
        self.send_to_client(raw_msg)
        del self.pending[engine][msg_id]
        (self.completed if success else self.failed)[engine].add(msg_id)
        self.update_graph(msg_id, success)

    def send_to_client(self, message):
        waiting = self.held.get(message[0])
        if waiting is None:
            self.client_stream.send_multipart(message, copy=False)
        else:
            waiting.append(message)

    def run_again(self, job, engine, failed=False):
        self.journal.assign(job.msg_id, None)
        if failed:
            self.sign_again(job)
        others = job.targets.intersection(self.targets) if job.targets else set(self.targets)
        if failed and others <= job.blacklist | {engine}:
            # Every engine has had its try, as the only one has at once: ipyparallel would wait for another.
            del self.pending[engine][job.msg_id]
            job.blacklist.clear()
            if not self.maybe_run(job) and job.msg_id not in self.all_failed:
                self.save_unmet(job)
        else:
            self.handle_unmet_dependency([engine], {"msg_id": job.msg_id})

    def sign_again(self, job):
        """The same signature twice is refused by an engine as a replay: make the message another one."""
        at = next(i for i, frame in enumerate(job.raw_msg) if frame.bytes == DELIMITER)
        header, parent, metadata, content = (frame.bytes for frame in job.raw_msg[at + 2 : at + 6])
        again = self.session.unpack(metadata)
        again["tries"] = again.get("tries", 1) + 1
        metadata = self.session.pack(again)
        signature = self.session.sign([header, parent, metadata, content])
        job.raw_msg = list(job.raw_msg)
        job.raw_msg[at + 1] = zmq.Frame(signature)
        job.raw_msg[at + 4] = zmq.Frame(metadata)

    def fail_unreachable(self, msg_id, why=error.ImpossibleDependency):
        self.retries.pop(msg_id, None)
        self.journal.finish(msg_id, False, None)
        super().fail_unreachable(msg_id, why)

    def finished(self, msg_id, good, engine):
        self.note_finished(msg_id, good, engine)
        self.journal.finish(msg_id, good, engine)

    def note_finished(self, msg_id, good, engine):
        """What others may depend on."""
        (self.all_completed if good else self.all_failed).add(msg_id)
        self.all_done.add(msg_id)
        self.all_ids.add(msg_id)
        if engine is not None:
            self.destinations[msg_id] = engine
            if len(self.destinations) > 2 * FINISHED:
                oldest = next(iter(self.destinations))
                there = self.destinations.pop(oldest)
                for table in (self.completed, self.failed):
                    table.get(there, set()).discard(oldest)

    # -- what the controller before us had -------------------------------------------------------------

    def job_of(self, msg_id, found):
        frames = [zmq.Frame(one) for one in found.frames]
        idents, parts = self.session.feed_identities(frames, copy=False)
        header, metadata = (self.session.unpack(parts[one].bytes) for one in (1, 3))
        self.retries[msg_id] = max(0, found.retries) if found.whole else 0
        return task_scheduler.Job(
            msg_id=msg_id,
            raw_msg=frames,
            idents=idents,
            msg={"header": header, "metadata": metadata},
            header=header,
            metadata=metadata,
            targets={one.encode("utf8", "replace") for one in metadata.get("targets") or ()},
            after=task_scheduler.MET,
            follow=task_scheduler.Dependency(metadata.get("follow") or []),
            timeout=None,
        )

    def take_up(self, uid):
        """The tasks that an engine got from our predecessor are ours."""
        pending = self.pending.setdefault(uid, {})
        for table in (self.completed, self.failed):
            table.setdefault(uid, set())
        for msg_id in [one for one, found in self.found.items() if found.engine == uid]:
            job = pending[msg_id] = self.job_of(msg_id, self.found.pop(msg_id))
            self.tell_hub(job)
            self.session.send(
                self.mon_stream,
                "task_destination",
                content={"msg_id": msg_id, "engine_id": uid.decode()},
                ident=[b"tracktask", self.ident],
            )

    def tell_hub(self, job):
        if len(job.raw_msg) > 2 + NAMED_FRAMES:
            self.mon_stream.send_multipart([b"intask", *job.raw_msg], copy=False)

    def run_found(self):
        """What had waited at our predecessor goes on waiting here."""
        for msg_id in [one for one, found in self.found.items() if found.engine is None]:
            found = self.found.pop(msg_id)
            if found.whole:
                self.dispatch_submission([zmq.Frame(one) for one in found.frames])
            else:
                self.give_back(msg_id, found, RESTARTED)

    def give_up(self):
        """Engines that have not come by now will not."""
        for uid in {found.engine for found in self.found.values()} - {None}:
            self.strand(uid, DIED)
        self.held.clear()  # nor clients

    def give_back(self, msg_id, found, why):
        """Report a task as failed that no engine had."""
        job = self.job_of(msg_id, found)
        del self.retries[msg_id]
        content = failure(error.EngineError(why.format(task=msg_id)))
        msg = self.session.msg("apply_reply", content, parent=job.header, metadata={"status": "error"})
        self.send_to_client(self.session.serialize(msg, ident=job.idents))
        self.finished(msg_id, False, None)
        self.update_graph(msg_id, False)
