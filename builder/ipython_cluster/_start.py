"""What every role does first, before anything of the repository can be in the way."""

import io
import os
import sys


def without_working_folder():
    """Take the working folder off ``sys.path``: a ``queue.py`` beside the notebooks shadows nothing."""
    here = os.getcwd()
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]


def with_notebooks():
    """Put the notebooks' folder first on ``sys.path``: ``import helpers`` then works in every role alike."""
    folder = os.environ.get("IPYTHON_NOTEBOOK_DIR") or os.getcwd()
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    return folder


class Log(io.FileIO):
    """What finds no room is left out: a flush that fails would end who wanted to say something."""

    def write(self, data):
        try:
            return super().write(data)
        except OSError:
            return len(data)


def say_what_fits():
    """Have a full disk under the log end nothing."""
    for name in ("stdout", "stderr"):
        lines = io.BufferedWriter(Log(getattr(sys, name).fileno(), "wb", closefd=False))
        setattr(sys, name, io.TextIOWrapper(lines, "utf-8", "backslashreplace", line_buffering=True))
