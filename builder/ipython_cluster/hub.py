"""The hub, so that it can run for months: what it remembers has an end, and it is told who died.

ipyparallel's hub with a few methods replaced; ``controller`` puts it in its place.
"""

import errno
import logging
import os
import time

from ipyparallel import error
from ipyparallel.controller import hub

from ipython_cluster.database import DROPPED, Recent, Tally

FINISHED = 20_000  # ids of finished tasks that are told from unknown ones
REMIND_SECONDS = 0.5  # between two calls for a beat while an engine waits to be registered
TASKS = ("apply_request", "execute_request")


def failure(why):
    """The content of a reply that says: failed. `why` is an exception."""
    try:
        raise why
    except type(why):
        return error.wrap_exception()


class Hub(hub.Hub):
    """Knows engines, clients and tasks.

    Attributes:
        hurry: the writing end of the heart monitor's pipe.
        order: ``order(**message)`` says something to the task scheduler.
        asks: whether that one asks every new engine if it answers.
        changed: whether there is something new for the supervisor.
    """

    hurry = -1
    asks = False
    order = staticmethod(lambda **message: None)
    name = ""  # another one with each start; a client that is told none speaks with a stranger

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Three lines for each task would be the only thing in the log, and most of the hub's work.
        self.log = logging.getLogger("ipython_cluster.hub")
        self.log.parent = kwargs["log"]
        self.log.setLevel(logging.WARNING)
        self.all_completed = Recent(FINISHED)
        self.changed = True
        self.reminded = 0.0
        self.lost = Recent(FINISHED)
        self.running = {}  # msg_id -> engine id, of load-balanced tasks
        self.silent = set()  # engines that have not yet answered the task scheduler
        self.monitor_handlers[b"answers"] = self.engine_answers
        # What a supervisor on another host says, as one here does over the controller's channel.
        self.query_handlers["lost_request"] = self.lost_request
        self.query_handlers["leaving_request"] = self.leaving_request
        self.query_handlers["busy_request"] = self.busy_request

    # -- engines ---------------------------------------------------------------------------------------

    def register_engine(self, reg, msg):
        uuid = str(msg["content"].get("uuid"))
        eid = self.by_ident.get(uuid.encode())
        if eid is not None:
            # An engine whose line was broken for a moment asks again, to be sure.
            content = failure(KeyError("uuid {!r} in use".format(uuid)))
            self.session.send(self.query, "registration_reply", content=content, ident=reg)
            # Who has sent it something asks whether it came.
            self.session.send(self.notifier, "registration_notification", {"id": eid, "uuid": uuid})
            return None
        waiting = self.incoming_registrations.get(uuid.encode())
        if waiting is not None:
            # It does not know whether its first word was heard: the answer is the same as to that one.
            content = {
                "id": waiting.id,
                "status": "ok",
                "hb_period": self.heartmonitor_period,
                "connection_info": self.engine_info,
            }
            self.session.send(self.query, "registration_reply", content=content, ident=reg)
            self.call_hearts([uuid.encode()])
            return waiting.id
        result = super().register_engine(reg, msg)
        self.call_hearts([uuid.encode()])
        return result

    def call_hearts(self, uuids):
        """Have the monitor beat soon, and look anew at these."""
        self.reminded = time.monotonic()
        try:
            # At once or not at all: a pipe takes 4,096 bytes whole, and what is left is said again soon.
            for start in range(0, len(uuids), 50):
                os.write(self.hurry, b"\n".join(uuids[start : start + 50]) + b"\n")
        except OSError as problem:
            if problem.errno not in (errno.EAGAIN, errno.EBADF):
                raise

    def remind(self):
        """Called now and then: nobody who waits to be registered is forgotten."""
        if self.incoming_registrations and time.monotonic() - self.reminded > REMIND_SECONDS:
            self.call_hearts(list(self.incoming_registrations))

    def finish_registration(self, heart):
        super().finish_registration(heart)
        eid = self.by_ident.get(heart)
        if eid is not None:
            self.completed[eid] = Tally()
            if self.asks:
                self.silent.add(heart)
            self.changed = True

    def unregister_engine(self, ident, msg):
        eid = msg["content"].get("id")
        engine = self.engines.get(eid)
        if engine is not None:
            # A successor may have the id, and tasks of its own, before ipyparallel would look after these.
            stranded, self.queues[eid] = self.queues[eid], []
            self.silent.discard(engine.ident)
            self.changed = True
        super().unregister_engine(ident, msg)
        if engine is not None:
            self.fail(stranded, eid, engine.uuid)

    def fail(self, stranded, eid, uuid):
        """Tasks sent to an engine that is gone: nobody will answer them."""
        successor, self.queues[eid] = self.queues[eid], stranded
        self.pending.update(stranded)  # what is missing there would end the work half-way
        super()._handle_stranded_msgs(eid, uuid)
        self.queues[eid] = successor

    def _handle_stranded_msgs(self, eid, uuid):
        """Done when the engine was unregistered."""

    def lose(self, uuid):
        """The supervisor saw this engine die: no need to wait for thirty seconds without a heartbeat."""
        self.lost.add(uuid)
        self.order(lost=uuid)
        waiting = self.incoming_registrations.pop(uuid.encode(), None)
        if waiting is not None and waiting.stallback is not None:
            self.loop.remove_timeout(waiting.stallback)
        eid = self.by_ident.get(uuid.encode())
        if eid is not None:
            self.unregister_engine(None, {"content": {"id": eid}})

    def lost_request(self, client_id, msg):
        """A supervisor elsewhere saw these engines die."""
        for uuid in msg["content"]["engines"]:
            self.lose(str(uuid))
        self.session.send(self.query, "lost_reply", {"status": "ok"}, parent=msg, ident=client_id)

    def leaving_request(self, client_id, msg):
        """These engines shall get no more tasks; the answer says which of them still have one."""
        uuids = [str(uuid) for uuid in msg["content"]["engines"]]
        for start in range(0, len(uuids), 50):
            self.order(leaving=uuids[start : start + 50])
        eids = [self.by_ident.get(uuid.encode()) for uuid in uuids]
        busy = [eid for eid in eids if eid is not None and self.is_busy(eid)]
        content = {"status": "ok", "busy": busy}
        self.session.send(self.query, "leaving_reply", content, parent=msg, ident=client_id)

    def busy_request(self, client_id, msg):
        """A supervisor elsewhere wants to know which engines have a task."""
        content = {"status": "ok", "busy": [eid for eid in self.engines if self.is_busy(eid)]}
        self.session.send(self.query, "busy_reply", content, parent=msg, ident=client_id)

    def is_busy(self, eid):
        """Whether an engine has a task, or has not yet said that it has none."""
        return bool(self.queues[eid] or self.tasks[eid] or self.engines[eid].ident in self.silent)

    def _save_engine_state(self):
        """Engines register again by themselves; a file, written a thousand times, could only fill a disk."""

    # -- clients ---------------------------------------------------------------------------------------

    def connection_request(self, client_id, msg):
        engines = {str(eid): engine.uuid for eid, engine in self.engines.items()}
        content = {"status": "ok", "engines": engines, "controller": self.name}
        self.session.send(self.query, "connection_reply", content, parent=msg, ident=client_id)

    def get_results(self, client_id, msg):
        # Forgotten is unknown; ipyparallel would trip over it.
        for msg_id in msg["content"]["msg_ids"]:
            if msg_id in self.all_completed and msg_id not in self.db._records:
                self.all_completed.discard(msg_id)
        super().get_results(client_id, msg)

    def _extract_record(self, rec):
        if rec.get(DROPPED):
            why = "the controller keeps the last {} MB of data, and this task's result was dropped".format(
                self.db.size_limit >> 20
            )
            rec = dict(rec, result_content=failure(KeyError(why)), result_buffers=[])
        return super()._extract_record(rec)

    def resubmit_task(self, client_id, msg):
        records = self.db._records
        if any(records.get(one, {}).get(DROPPED) for one in msg["content"]["msg_ids"]):
            content = failure(KeyError("the controller no longer has the arguments of these tasks"))
            self.session.send(self.query, "resubmit_reply", content=content, ident=client_id, parent=msg)
            return
        super().resubmit_task(client_id, msg)

    # -- tasks -----------------------------------------------------------------------------------------

    def dispatch_monitor_traffic(self, msg):
        if msg[0] == b"iopub" and len(msg) > 3 and b'"iopub_welcome"' in msg[3]:
            return  # what a socket of a newer ipykernel says of itself, without an address
        self.changed = True
        super().dispatch_monitor_traffic(msg)

    def save_queue_request(self, idents, msg):
        # What widgets say to an engine gets no answer: as a task it would be pending for ever.
        if self.session.unpack(msg[1])["msg_type"] in TASKS:
            super().save_queue_request(idents, msg)

    def save_queue_result(self, idents, msg):
        msg_id = self.session.unpack(msg[2]).get("msg_id")
        # Not the answer to a task, or to one of a hub before us: there is nothing to note it in.
        if msg_id in self.pending or msg_id in self.all_completed:
            super().save_queue_result(idents, msg)

    def save_task_destination(self, idents, msg):
        content = self.session.deserialize(msg, content=True)["content"]
        msg_id, uuid = content["msg_id"], content["engine_id"]
        self.unassigned.discard(msg_id)
        self.leave(msg_id)  # it may have been elsewhere, and is tried again
        eid = self.by_ident.get(uuid.encode())
        if eid is not None:
            self.running[msg_id] = eid
            self.tasks[eid].append(msg_id)
            self.db.update_record(msg_id, {"engine_uuid": uuid})

    def leave(self, msg_id):
        eid = self.running.pop(msg_id, None)
        if eid is not None and msg_id in self.tasks.get(eid, ()):
            self.tasks[eid].remove(msg_id)

    def save_task_result(self, idents, msg):
        super().save_task_result(idents, msg)
        self.leave(self.session.unpack(msg[2]).get("msg_id"))

    def engine_answers(self, idents, msg):
        """The task scheduler says that an engine which it had asked has done all that it had to do."""
        self.silent.discard(idents[0])

    # -- what the supervisor wants to know -------------------------------------------------------------

    def facts(self):
        """Who is registered, who has something to do, how many tasks there are."""
        engines, busy = {}, []
        for eid, engine in self.engines.items():
            engines[str(eid)] = engine.uuid
            if self.is_busy(eid):
                busy.append(eid)
        running = sum(1 for eid in self.engines if self.queues[eid] or self.tasks[eid])
        tasks = {
            "queued": max(0, len(self.pending) - running),
            "running": running,
            "done": self.db.done,
            "failed": self.db.failed,
        }
        return {"engines": engines, "busy": sorted(busy), "tasks": tasks}
