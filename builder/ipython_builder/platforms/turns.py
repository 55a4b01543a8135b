"""One at a time: who changes a cluster holds its label's lock."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipython_builder.errors import Transient


@contextmanager
def turn(label: str, folder: Path, kept: Path, verbs: str) -> Iterator[None]:
    """Hold the lock of a label, which the kernel frees when its holder is killed.

    Args:
        folder: where locks are; it must be there.
        kept: what there is of a cluster; the lock's file goes when that is gone.
        verbs: what may be under way, for the error.

    Raises:
        Transient: somebody else holds it.
        OSError: nothing can be written there.
    """
    path = folder / f".{label}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Transient(f"another {verbs} of {label} is under way", "try again when it is done") from None
        try:
            yield
        finally:
            if not kept.exists():
                path.unlink(missing_ok=True)
