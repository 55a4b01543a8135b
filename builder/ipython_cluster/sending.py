"""How a function gets to engines that know nothing of us: with what it uses, and with what runs it there."""

import pickle
import types
from pathlib import Path

from ipython_cluster import sharing, work

WORK = Path(work.__file__).read_text(encoding="utf-8")


def runner():
    """The function that engines are sent. It belongs to no module that they would have to have."""
    space = {"__name__": "__main__"}
    exec(_BOOTSTRAP.format(WORK), space)
    return space["ipython_cluster_work"]


_BOOTSTRAP = """
def ipython_cluster_work(*arguments, text={0!r}):
    import sys
    module = sys.modules.get("_ipython_cluster_work")
    if module is None or module.__doc__ != text:
        import types
        module = types.ModuleType("_ipython_cluster_work", text)
        exec(text, module.__dict__)
        module.__doc__ = text
        sys.modules["_ipython_cluster_work"] = module
    return module.run(*arguments)
"""


def packed(function, shares):
    """(the function as it is sent, what it has in shared memory).

    By cloudpickle, where that is, which takes along what the function uses.
    """
    try:
        try:
            import cloudpickle
        except ImportError:
            from ipyparallel.serialize import can

            return pickle.dumps(can(function), 5), ()

        def dumps(value, callback=None, again=None):
            return cloudpickle.dumps(value, 5, buffer_callback=callback)

        return sharing.lend(function, dumps, here=shares)
    except Exception as error:
        unsent = ", ".join(_unsendable_names(function))
        advice = "\n next: make {} inside of the function".format(unsent) if unsent else ""
        raise TypeError("{!r} cannot be sent to engines: {}{}".format(function, error, advice)) from error


def _unsendable_names(function):
    """The variables that a function uses and that keep it here."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return
    names = getattr(function, "__globals__", {})
    used = [(name, names[name]) for name in code.co_names if name in names]
    used += zip(code.co_freevars, [cell.cell_contents for cell in function.__closure__ or ()])
    for name, value in used:
        try:
            work.dumps(value)
        except Exception:
            yield name
