"""podman and docker as clusters use them: one command line, and a table of what differs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ipython_builder import commands
from ipython_builder.build import choice, words
from ipython_builder.commands import Result
from ipython_builder.errors import BuilderError, Unavailable

GRACE_SECONDS = 10.0  # in which an engine that is interrupted may put away what it has begun
_PORT = re.compile(r"address already in use|port is already allocated|ports are not available", re.IGNORECASE)
_GONE = re.compile(r"no such|not found|no container|does not exist", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """What differs from engine to engine.

    Attributes:
        secrets: whether it keeps secrets itself; else they are files of a volume.
        tmpfs: what must be writable beside volumes. podman puts an empty /run over a read-only one.
        names_fail: whether names in a network may go unanswered for a minute after a container has gone.
            The kernel gives the bridge another hardware address then, unless one was set: netavark does so
            since 1.9 (containers/netavark#833), docker always did.
    """

    name: str
    secrets: bool
    tmpfs: tuple[str, ...]
    names_fail: bool


KINDS = {
    "podman": Kind("podman", True, ("/tmp", "/run/secrets"), True),  # noqa: S108  in a container
    "docker": Kind("docker", False, ("/tmp",), False),  # noqa: S108
}


class PortInUse(BuilderError):
    """Somebody else listens on the port that was to be published."""


class Client:
    """The command line of one engine."""

    def __init__(self, kind: Kind, program: str) -> None:
        self.kind = kind
        self.program = program

    def run(
        self,
        *argv: str,
        what: str,
        stdin: str | None = None,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> Result:
        """Run the engine; `what` cannot be done if it fails, for the error.

        Raises:
            Unavailable: its daemon is down, or says no.
            PortInUse: as it says.
            BuilderError: `check`, and it failed.
        """
        answer = commands.run(
            [self.program, *argv], stdin=stdin, on_line=on_line, timeout=timeout, grace=GRACE_SECONDS
        )
        if answer.returncode and words.no_daemon(answer.stderr):
            raise Unavailable(
                f"{what}: {self.kind.name} does not answer:\n{words.end(answer.stderr, 4)}",
                words.advice(answer.stderr),
            )
        if answer.returncode and check:
            if _PORT.search(answer.stderr):
                raise PortInUse(f"{what}: the port is in use", "name another with --port, or none")
            raise words.failure(what, answer.stderr)
        return answer

    def inspect(self, kind: str, *names: str) -> list[dict[str, Any]]:
        """What there is of these containers, volumes, networks."""
        if not names:
            return []
        answer = self.run(kind, "inspect", *names, what=f"{self.kind.name} cannot be asked", check=False)
        try:
            found: list[dict[str, Any]] = json.loads(answer.stdout or "[]")
        except ValueError:
            found = []
        return found

    def named(self, kind: str, mark: str) -> list[str]:
        """The names of containers, volumes or networks that have this label."""
        what = f"{self.kind.name} cannot be asked"
        label = ("--filter", f"label={mark}")
        if kind == "container":
            said = self.run("ps", "--all", *label, "--format", "{{.Names}}", what=what)
        else:
            said = self.run(kind, "ls", *label, "--format", "{{.Name}}", what=what)
        return said.stdout.split()

    def remove(self, *argv: str, what: str) -> None:
        """Run a command that removes something; what is gone already is no error."""
        answer = self.run(*argv, what=what, check=False)
        gone = _GONE.search(answer.stderr) or words.no_such_image(answer.stderr)
        if answer.returncode and not gone:
            raise words.failure(what, answer.stderr)


def client(name: str) -> Client:
    """The engine of this name.

    Raises:
        Unavailable: it is not on PATH, or can do nothing for us.
    """
    found = choice.docker() if name == "docker" else choice.podman()
    if found is None:
        raise Unavailable(
            f"{name} is not on PATH", f"install it (`apt-get install {_PACKAGES[name]}`), or mend PATH"
        )
    return Client(KINDS[name], found.program)


_PACKAGES = {"podman": "podman", "docker": "docker.io"}
