"""From a git repository of notebooks to a running notebook with a parallel cluster behind it."""

from ipython_builder._version import __version__

__all__ = ["__version__"]
