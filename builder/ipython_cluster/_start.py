"""What every role does first, before anything of the repository can be in the way."""

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
