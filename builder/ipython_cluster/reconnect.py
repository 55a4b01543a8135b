"""What a client does when its connection broke, or its controller was killed: it asks, so that nothing hangs.

ØMQ connects again by itself; what was on its way is gone. Nobody is asked by the clock: each question goes
the way that the lost message went, so its answer comes after every answer that is still to come. What is not
answered by then is reported as failed.

Costs one more question when a client is made, and does nothing on a cluster that is not ours.
"""

import logging
import socket
import weakref
from functools import partial

import zmq
from ipyparallel import error, serialize
from zmq.eventloop.zmqstream import ZMQStream

from ipython_cluster.registration import hurry

KNOWN = "ipython_cluster_known"  # as in scheduler
ASK_SECONDS = 1.0  # between two questions; the first is asked as long after the new connection
ROUNDS = 4  # after which there is more time between them
REQUEST_SECONDS = 5.0  # for answers to what is no task
GONE_SECONDS = 30.0  # for the engines to come to the new controller
GONE = "the engine of task {!r} died before the task was sent to it"
LOST = "the connection broke, or the controller was restarted, while task {!r} or its result was on its way"

log = logging.getLogger("ipython_cluster")


def extend(module):
    """Give `module`, which is ipyparallel.client.client, clients that watch their connection."""
    strand_late_ones(module)
    stock = module.Client._connect

    def _connect(self, sshserver, ssh_kwargs, timeout):
        name = None
        where = self._config["registration"]
        if where.startswith("tcp:") and not self._ssh:
            # It was connected before anybody could say how; nothing has been sent yet.
            hurry(self._query_socket)
            self._query_socket.disconnect(where)
            self._query_socket.connect(where)
        try:
            name = None if self._connected else controller_of(self, timeout)
            if name:
                # A relay knows us again after a reconnection only by an address that we choose.
                context = self._context
                self._context = zmq.Context.shadow(context.underlying)
                self._context.setsockopt(zmq.IDENTITY, self.session.bsession)
                hurry(self._context)
        except TimeoutError:
            raise
        except Exception as problem:
            log.warning("this client cannot outlive its controller: %s", problem)
            name = None
        try:
            stock(self, sshserver, ssh_kwargs, timeout)
        finally:
            if name:
                self._context = context
        if name:
            self._io_loop.add_callback(Watch(self).start)

    if all(hasattr(module.Client, one) for one in ("_connect", "_handle_stranded_msgs", "_setup_streams")):
        module.Client._connect = _connect
    else:
        log.warning("this ipyparallel's client cannot outlive its controller")


def strand_late_ones(module):
    """Have a task fail whose engine dies between its choice and the sending: large arguments take a while.

    The stock client fails what it knows to be on an engine when that one goes, and does not know of this.
    """
    send = module.Client._send

    def _send(self, stream, *args, **options):
        future = send(self, stream, *args, **options)
        ident = options.get("ident")
        if ident and options.get("track_outstanding") and stream is self._mux_stream:
            uuid = (ident[-1] if isinstance(ident, list) else ident).decode()
            if uuid not in self._engines.values():
                self._io_loop.add_callback(strand, self, future, uuid)
        return future

    module.Client._send = _send


def strand(client, future, uuid):
    """Fail this task; in the thread that hears of engines, so after what it had to do for this one."""
    if not future.done():
        client.outstanding.add(future.msg_id)
        client._handle_apply_reply(lost_reply(client, future.msg_id, uuid, GONE))


def controller_of(client, timeout):
    """The name of the controller behind a new client's query socket; None when it is not one of ours."""
    client.session.send(client._query_socket, "connection_request")
    if not client._query_socket.poll(timeout * 1000):
        raise TimeoutError("Hub connection request timed out: " + trouble(client._config))
    _, msg = client.session.recv(client._query_socket, mode=0)
    return msg["content"].get("controller")


def trouble(config):
    """Why the controller at a client's ``config["registration"]``, an URL, does not answer, in words."""
    where = config["registration"].rpartition("://")[2]
    host, _, port = where.rpartition(":")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return "there is no controller at {}: the name is not known".format(where)
    try:
        socket.create_connection((host, port), ASK_SECONDS).close()
    except OSError:
        return "there is no controller at {}: nothing listens".format(where)
    return "the controller at {} does not answer: is it another cluster's, with another key?".format(where)


class Watch:
    """Looks after one client's connection, in the client's own thread of input and output."""

    def __init__(self, client):
        self.client = weakref.ref(client)
        self.round = 0  # how many connections have broken; what an earlier round still wants to do is over
        self.asked = {}  # msg_id of a question -> (its way: stream and engine, what its answer decides)
        self.seen = set()  # engines that the controller knows
        self.broken = set()  # of these, who has come to it again

    def start(self):
        client = self.client()
        if client is None or client._closed:
            return
        self.loop = client._io_loop
        # libzmq tells of each connection; nobody has to look.
        events = client._query_socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.monitor = ZMQStream(events, self.loop)
        self.monitor.on_recv(self.connected)
        self.seen.update(client._engines.values())
        client._registration_callbacks.append(self.noted)
        handlers = client._queue_handlers
        handlers[KNOWN + "_reply"] = handlers["kernel_info_reply"] = self.answered
        for kind in ("apply_reply", "execute_reply"):
            handlers[kind] = partial(self.reply, handlers[kind])

    def connected(self, frames):
        """There is a new connection to a hub, the same or another one: ask whom it knows."""
        client = self.client()
        if client is None or client._closed:
            return
        future = client._send(client._query_stream, "connection_request")
        future.add_done_callback(self.hub_answers)

    def reply(self, stock, msg):
        """To a question of ours, or to a task; one that was reported as lost is outstanding no more."""
        client = self.client()
        if client is None or self.answered(msg):
            return
        metadata = msg["metadata"]
        msg_id = metadata.get("is_coalescing") and metadata.get("original_msg_id")
        if (msg_id or msg["parent_header"].get("msg_id")) in client.outstanding:
            stock(msg)

    def noted(self, event):
        uuid = event.get("uuid")
        if event.get("event") != "register":
            self.seen.discard(uuid)
        elif uuid in self.seen:
            if not self.broken:
                self.later(ASK_SECONDS, self.ask_broken)
            self.broken.add(uuid)
        else:
            self.seen.add(uuid)

    def ask_broken(self, client):
        """The line of some engines to the controller was broken, and what was on its way is lost."""
        broken, self.broken = self.broken, set()
        before = {one for uuid in broken for one in client._outstanding_dict[uuid]} & client.outstanding
        if before:
            self.ask(client, 0, before, set())

    def later(self, seconds, do, *arguments):
        """Call `do(client, *arguments)`, unless the client is closed or its controller has died again."""
        number = self.round

        def call():
            client = self.client()
            if client is not None and not client._closed and number == self.round:
                do(client, *arguments)

        self.loop.call_later(seconds, call)

    def hub_answers(self, future):
        client = self.client()
        content = future.result()["content"]
        if client is None or client._closed or not content.get("controller"):
            return
        self.round += 1
        self.asked = {}
        self.broken = set()
        self.seen = set(content["engines"].values())
        client._update_engines(content["engines"])
        requests = dict(client._futures)
        self.later(REQUEST_SECONDS, self.fail_requests, requests)
        self.later(GONE_SECONDS, self.drop_engines)
        # What another thread was about to send now is sent when we ask.
        self.later(ASK_SECONDS, self.ask, 0, set(client.outstanding), set())

    def ask(self, client, times, before, ended):
        """Ask for what was outstanding a while ago, and again for what has come since: engines connect again
        one after the other. `ended` are tasks whose result was there the last time, and their output was not.
        """
        waiting = before & client.outstanding
        here = set(client._engines.values())
        direct = set()
        for uuid, msg_ids in list(client._outstanding_dict.items()):
            mine = msg_ids & waiting
            direct |= mine
            if mine and uuid not in here:
                self.fail(client, mine, uuid)
            elif mine:
                self.ask_engine(client, uuid, mine)
        tasks = waiting - direct
        if tasks:
            self.send(client, client._task_stream, KNOWN, None, tasks, content={"msg_ids": sorted(tasks)})
        # The output of what ran while nobody listened will not come.
        silent = {one for one in before if one in client._futures and client._futures[one].done()}
        for msg_id in silent & ended:
            output = client._output_futures.get(msg_id)
            if output is not None and not output.done():
                output.set_result(None)
        if times < ROUNDS or waiting or silent - ended:
            now = before & (client.outstanding | silent) if times >= ROUNDS else before | client.outstanding
            wait = ASK_SECONDS * min(2 ** max(0, times - ROUNDS), 60)
            self.later(wait, self.ask, times + 1, now, silent)

    def ask_engine(self, client, uuid, msg_ids):
        """One question on the way of direct tasks, one on that of broadcasts."""
        direct = {one for one in msg_ids if not one.endswith("_" + uuid)}
        shared = {one for one in direct if sum(one in more for more in client._outstanding_dict.values()) > 1}
        broadcast = msg_ids - direct | shared
        direct -= shared
        if direct:
            self.send(client, client._mux_stream, "kernel_info_request", uuid, direct, ident=uuid.encode())
        if broadcast:
            metadata = {
                "targets": [(uuid, client._engines[uuid])],
                "is_broadcast": True,
                "is_coalescing": False,
            }
            self.send(
                client, client._broadcast_stream, "apply_request", uuid, broadcast,
                metadata=metadata, buffers=serialize.pack_apply_message(int, (), {}),
            )  # fmt: skip

    def send(self, client, stream, msg_type, uuid, msg_ids, content=None, metadata=None, **options):
        msg = client.session.msg(msg_type, content or {}, metadata=metadata)
        self.asked[msg["header"]["msg_id"]] = ((stream, uuid), set(msg_ids))
        client.session.send(stream, msg, **options)

    def answered(self, msg):
        """An answer to a question; whether it was one."""
        client = self.client()
        parent = msg["parent_header"].get("msg_id", "")
        if parent not in self.asked:
            parent = msg["metadata"].get("original_msg_id") or parent
        if client is None or parent not in self.asked:
            return False
        way, msg_ids = self.asked[parent]
        uuid = way[1]
        # What went the same way before it and has no answer yet, was lost.
        for question in list(self.asked):
            if self.asked[question][0] == way:
                del self.asked[question]
            if question == parent:
                break
        if uuid is None:
            msg_ids &= set(msg["content"].get("unknown", ()))
        # Several engines answer for one reply: the last of them decides.
        for (_, other), others in self.asked.values():
            if uuid is not None and other not in (None, uuid):
                msg_ids -= others
        self.fail(client, msg_ids & client.outstanding, uuid)
        return True

    @staticmethod
    def fail(client, msg_ids, uuid):
        for msg_id in msg_ids:
            client._handle_apply_reply(lost_reply(client, msg_id, uuid))

    @staticmethod
    def fail_requests(client, requests):
        """What hub or engines were asked, other than tasks, is answered at once or never."""
        for msg_id, future in requests.items():
            if not future.done() and not hasattr(future, "output") and msg_id in client._futures:
                future.set_result(client.session.msg("hub_error", failure(msg_id)))

    def drop_engines(self, client):
        """Engines that the controller does not know by now are gone."""
        for eid in client.ids:
            uuid = client._engines[eid]
            if uuid not in self.seen:
                client._unregister_engine({"content": {"id": eid, "uuid": uuid}})


def lost_reply(client, msg_id, uuid, why=LOST):
    """An answer that nobody has sent: this task, of that engine if it was one's, is lost."""
    msg = client.session.msg("apply_reply", failure(msg_id, why))
    msg["parent_header"]["msg_id"] = msg_id
    if uuid is not None:
        msg["metadata"]["engine"] = uuid
    return msg


def failure(msg_id, why=LOST):
    try:
        raise error.EngineError(why.format(msg_id))
    except error.EngineError:
        return error.wrap_exception()
