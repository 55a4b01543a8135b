"""Large arrays between a client and engines of the same machine: one memory that all of them see.

How is in `lending`; here is what of a message goes that way. An engine's identity tells where it is. To all
others, and where shared memory is not to be had, arrays travel as ipyparallel sends them.
"""

import logging
import pickle
import threading
from contextlib import contextmanager

from ipyparallel import error
from ipyparallel.serialize import canning

from ipython_cluster.lending import all_here, borrow, hand_over, lender, place

LEAST = 2**20  # bytes of a buffer that is worth it
ADDRESS = "ipython_cluster_lender"  # in the metadata of a request: who takes large results

log = logging.getLogger("ipython_cluster")


class Shared(canning.CannedObject):
    """A pickled value with its large buffers in shared memory; ipyparallel makes it whole on arrival."""

    def __init__(self, data, address, tokens):
        self.data = data
        self.address = address
        self.tokens = tokens
        self.buffers = []

    def fetch(self):
        """Its buffers."""
        return [borrow(self.address, token) for token in self.tokens]

    def get_object(self, g=None):
        return pickle.loads(self.data, buffers=self.fetch())


class Parcel:
    """A `Shared` value that its receiver opens; what ipyparallel opens lives until a cycle is collected."""

    def __init__(self, shared):
        self.shared = shared
        self.buffers = None
        self.problem = None

    def hold(self):
        """Have its memory, however late it is opened: the lender does not keep it for ever."""
        try:
            self.buffers = self.shared.fetch()
        except (LookupError, OSError) as problem:
            self.problem = problem

    def open(self):
        """The value, once.

        Raises:
            LookupError, OSError: its memory could not be had.
        """
        if self.problem is not None:
            raise self.problem
        buffers = self.shared.fetch() if self.buffers is None else self.buffers
        self.drop()
        return pickle.loads(self.shared.data, buffers=buffers)

    def drop(self):
        """Have its memory no more."""
        self.buffers = None


def parcel(sent):
    """What of a task that has ended came through shared memory, or None; by its AsyncResult."""
    answer = None if sent.exception() else sent.result()
    return answer[1] if isinstance(answer, tuple) and isinstance(answer[1], Parcel) else None


def plainly(value, callback=None, again=None):
    """The value pickled.

    Args:
        callback: for its buffers, as in `pickle`.
        again: called before buffers are told once more, by those who try twice.
    """
    return pickle.dumps(value, 5, buffer_callback=callback)


def apart(value, dumps=plainly):
    """(pickled value, its large buffers)."""
    buffers: list[memoryview] = []

    def callback(buffer):
        raw = buffer.raw()
        if raw.nbytes < LEAST:
            return True  # it stays among the rest
        buffers.append(raw)
        return False

    return dumps(value, callback, buffers.clear), buffers


def lend(value, dumps=plainly, *, here=True):
    """(value as it is sent to engines, tokens to take back).

    It is sent as `Shared`, or, where nothing of it is large, memory is not to be had, or not all engines are
    `here`, pickled.
    """
    if not here:
        return dumps(value), ()
    data, buffers = apart(value, dumps)
    if not buffers:
        return data, ()
    tokens: list[bytes] = []
    try:
        own = lender()
        for buffer in buffers:
            tokens.append(own.lend(buffer))
    except OSError as problem:
        log.warning("shared memory cannot be had: %s", problem)
        take_back(tokens)
        return dumps(value), ()
    return Shared(data, own.address, tokens), tokens


def take_back(tokens):
    """Lend these no more."""
    if tokens:
        lender().take_back(tokens)


def result(value, dumps=plainly):
    """`value`, or a `Shared` one in its place for the client that has asked for it; on an engine."""
    address = _asked_by()
    if not address:
        return value
    try:
        data, buffers = apart(value, dumps)
        if not buffers:
            return value
        return Shared(data, address, [hand_over(address, buffer) for buffer in buffers])
    except OSError:
        return value  # it is on another machine


def _asked_by():
    """The lender of the client whose request this engine does now."""
    try:
        from IPython import get_ipython

        kernel = get_ipython().kernel
        parent = kernel.get_parent("shell") if hasattr(kernel, "get_parent") else kernel._parent_header
        return parent["metadata"].get(ADDRESS)
    except Exception:
        return None


# -- ipyparallel's views ---------------------------------------------------------------------------------

_sending = threading.local()  # tokens of the request that this thread is making


def can_array(array):
    """Instead of ipyparallel's own for numpy's arrays."""
    tokens = getattr(_sending, "tokens", None)
    if array.nbytes >= LEAST and not array.dtype.hasobject:
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            array = array.copy()
        if tokens is not None:
            shared, lent = lend(array)
            if lent:
                tokens.extend(lent)
                return shared
        elif isinstance(shared := result(array), Shared):
            return shared
    try:
        return canning.CannedArray(array)
    except ValueError:  # of dates: ipyparallel sends what buffers can hold
        return Shared(pickle.dumps(array, 5), "", [])


def install():
    """Have arrays canned here."""
    for key in list(canning.can_map):
        if key == "numpy.ndarray" or getattr(key, "__name__", "") == "ndarray":
            canning.can_map[key] = can_array


@contextmanager
def collecting(wanted):
    """The tokens of what is sent meanwhile, if that may be shared."""
    before = getattr(_sending, "tokens", None)
    tokens: list[bytes] = []
    _sending.tokens = tokens if wanted else None
    try:
        yield tokens
    finally:
        _sending.tokens = before


def extend(module):
    """Give `module`, which is ipyparallel.client.client, views that share large arrays."""
    if not place():
        return
    install()
    send = module.Client.send_apply_request

    def send_apply_request(self, *args, metadata=None, **kwargs):
        try:
            metadata = dict(metadata or {}, **{ADDRESS: lender().address})
        except OSError as problem:
            log.debug("no shared memory: %s", problem)
        return send(self, *args, metadata=metadata, **kwargs)

    module.Client.send_apply_request = send_apply_request
    take = module.Client._handle_apply_reply

    def _handle_apply_reply(self, msg):
        try:
            take(self, msg)
        except Exception as problem:  # nobody else would hear of it, and who waits would wait for ever
            _unopened(self, msg, problem)

    module.Client._handle_apply_reply = _handle_apply_reply
    from ipyparallel.client import view

    for name in ("DirectView", "LoadBalancedView", "BroadcastView"):
        kind = getattr(view, name, None)
        if kind is not None and "_really_apply" in vars(kind):
            kind._really_apply = _sharing(kind._really_apply)


def _unopened(client, msg, problem):
    """Have a result that cannot be had, for want of memory or descriptors, raise that to who asks for it."""
    msg_id = msg["parent_header"]["msg_id"]
    if client._should_use_metadata_msg_id(msg):
        msg_id = msg["metadata"]["original_msg_id"]
    try:
        raise problem
    except Exception:
        found = client.results[msg_id] = client._unwrap_exception(error.wrap_exception())
    for futures, result in ((client._output_futures, None), (client._futures, found)):
        future = futures.get(msg_id)
        if future is not None and not future.done():
            future.set_result(result)


def _sharing(stock):
    def _really_apply(self, *args, **kwargs):
        with collecting(all_here(self.client._engines.values())) as tokens:
            try:
                sent = stock(self, *args, **kwargs)
            except BaseException:
                take_back(tokens)
                raise
        if tokens and hasattr(sent, "add_done_callback"):
            sent.add_done_callback(lambda _: take_back(tokens))
        else:
            take_back(tokens)
        return sent

    return _really_apply
