"""Every error that a user can meet, as one small tree.

    BuilderError              1   something failed that is nobody's typing error
    ├── UsageError            2   the command line cannot be meant
    ├── RepositoryError       3   what was fetched or read is at fault
    ├── Unavailable          69   an engine, registry, index or cluster is not there
    └── Transient            75   the same command may work when it is tried again

The number is the exit code. An error says what happened and where (``message``)
and what to do next (``hint``). Only ``cli`` turns one into text and an exit status.
"""

from __future__ import annotations


class BuilderError(Exception):
    """Something failed: `message` says what and where, `hint` what to do next.

    Args:
        message: one sentence, or a few lines where another program's own words matter.
        hint: the next step, as an imperative; None where the message already holds it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BuilderError):
    """The command line cannot be meant: refused before anything is fetched or started."""

    exit_code = 2


class RepositoryError(BuilderError):
    """What was fetched or read is at fault: no such path or ref, bad files, requirements not to be had."""

    exit_code = 3


class Unavailable(BuilderError):
    """Something outside this machine's user is not there: an index, a registry, an engine, a cluster."""

    exit_code = 69


class Transient(BuilderError):
    """Another process is in the way, or the network hiccuped: the same command may work later."""

    exit_code = 75
