"""What an engine does for `pmap`: some items, one after another. It is sent to engines as text.

So it needs nothing but Python there, whichever cluster it is.
"""

import contextlib
import io
import pickle
import time
import traceback
from typing import Any

SAID = 2**20  # characters of what a task prints that are kept
KEPT = 2  # functions that an engine remembers; none from shared memory, which would not be freed
_functions: dict[bytes, Any] = {}  # digest -> function


def run(digest, packed, items, keep_going):
    """Do what one task asks for.

    Args:
        digest: of the function, which an engine may remember.
        packed: the pickled function, or, where it came through shared memory, itself; None where it is
            supposed to be remembered.
        items: a pickled list of tuples of arguments, or the list itself.
        keep_going: whether an error ends this task.

    Returns:
        None where the function would be needed; else seconds of all items together, outcomes, pickled or as a
        parcel of shared memory, how many there are (fewer than items where one failed, or the task was
        cancelled), and what was printed, to stdout and to stderr. An outcome is `(True, result)`, `(False,
        exception, traceback as text)`, or `(None, why it cannot be sent, traceback as text)`.
    """
    if digest in _functions:
        function = _functions[digest]
    elif packed is None:
        return None
    else:
        function = pickle.loads(packed) if isinstance(packed, bytes) else packed
        if hasattr(function, "get_object"):  # ipyparallel's own way, where there is no cloudpickle
            function = function.get_object(vars(__import__("__main__")))
        if isinstance(packed, bytes):
            while len(_functions) >= KEPT:
                _functions.pop(next(iter(_functions)))
            _functions[digest] = function
    cancelled = _cancelled()
    outcomes: list[Any] = []
    out, err = Said(), Said()
    begun = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for arguments in pickle.loads(items) if isinstance(items, bytes) else items:
            if cancelled():
                break
            try:
                outcomes.append((True, function(*arguments)))
            except Exception as error:  # not KeyboardInterrupt: that is how a task is cancelled
                outcomes.append((False, error, _told(error)))
                if not keep_going:
                    break
    seconds = time.perf_counter() - begun
    try:
        data = _shared(outcomes) or dumps(outcomes)
        # Some exceptions can be pickled, and then not be made again.
        if any(not outcome[0] for outcome in outcomes):
            pickle.loads(dumps([outcome for outcome in outcomes if not outcome[0]]))
    except Exception:
        data = dumps(list(map(_sendable, outcomes)))
    return seconds, data, len(outcomes), (out.getvalue(), err.getvalue())


class Said(io.StringIO):
    """What is printed, up to a size."""

    def write(self, text):
        room = SAID - self.tell()
        if room > 0:
            super().write(
                text if len(text) <= room else text[:room] + "\n[what else was printed is left out]\n"
            )
        return len(text)


def dumps(value, callback=None, again=None):
    """The value pickled, with the classes of a notebook that are in it, where cloudpickle can be had.

    Args:
        callback: for its buffers, as in `pickle`.
        again: called before buffers are told once more.
    """
    data, failed = None, None
    try:
        data = pickle.dumps(value, 5, buffer_callback=callback)
        if b"__main__" not in data:
            return data
    except Exception as error:
        failed = error
    try:
        import cloudpickle
    except ImportError:
        if failed is not None:
            raise failed from None
        return data
    if again is not None:
        again()
    return cloudpickle.dumps(value, 5, buffer_callback=callback)


def _shared(outcomes):
    """The outcomes by way of shared memory, if they are large and the client is on this machine."""
    try:
        from ipython_cluster import sharing
    except ImportError:
        return None
    found = sharing.result(outcomes, dumps)
    return None if found is outcomes else sharing.Parcel(found)


def _told(error):
    """The traceback below `run`."""
    if isinstance(error, ValueError) and "read-only" in str(error) and hasattr(error, "add_note"):
        error.add_note("arrays of 1 MiB and more arrive read-only\n next: change a copy: a = a.copy()")
    inner = error.__traceback__.tb_next
    return "".join(traceback.format_exception(type(error), error, inner))


def _sendable(outcome):
    try:
        pickle.loads(dumps(outcome))
        return outcome
    except Exception as error:
        if outcome[0]:
            why = "its result, of type {}, cannot be sent: {}".format(type(outcome[1]).__qualname__, error)
            return None, why, ""
        return None, "{}: {}".format(type(outcome[1]).__qualname__, outcome[1]), outcome[2]


def _cancelled():
    """A function that says whether this task is cancelled: its engine is told so on another channel."""
    try:
        from IPython import get_ipython

        kernel = get_ipython().kernel
        parent = kernel.get_parent("shell") if hasattr(kernel, "get_parent") else kernel._parent_header
        mine = parent["header"]["msg_id"]
        aborted = kernel.aborted
    except Exception:
        return lambda: False
    return lambda: mine in aborted
