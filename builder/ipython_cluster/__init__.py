"""What of a cluster lives in the repository's own environment.

Standard library and ipyparallel (8 or newer) only, on any Python from 3.9: engines, the controller, the
kernel's start, the launchers through which ipyparallel's own tools see the cluster, and the old name
``IPython.parallel``. For notebooks: ``from ipython_cluster import pmap``.
"""

__version__ = "0.1.0"

_HELPERS = {
    "pmap": "mapping",
    "imap": "mapping",
    "MapError": "finding",
    "Results": "mapping",
    "picture": "drawing",
}
__all__ = [*_HELPERS]


def __getattr__(name):
    """The helpers for notebooks, imported when they are used."""
    if name in _HELPERS:
        from importlib import import_module

        return getattr(import_module("{}.{}".format(__name__, _HELPERS[name])), name)
    raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))


def __dir__():
    return sorted([*globals(), *_HELPERS])
