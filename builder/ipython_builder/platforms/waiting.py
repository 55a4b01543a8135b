"""Waiting for the pods of a cluster: how far they are, and when waiting is of no use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ipython_builder.errors import BuilderError
from ipython_builder.events import Phase
from ipython_builder.platforms import objects, pods
from ipython_builder.platforms.elsewhere import Elsewhere
from ipython_builder.platforms.kubectl import Kubectl
from ipython_builder.platforms.parts import KINDS
from ipython_builder.platforms.pods import Found, Trouble

START_SECONDS = 300.0  # an image may have to be pulled; an engine more may take another second
LOOK = 0.5

Result = TypeVar("Result")


class Watch:
    """The pods of one cluster while they come and go."""

    def __init__(self, made: Elsewhere, kube: Kubectl, look: Callable[[], Found], phase: Phase) -> None:
        """`look` says what is there now."""
        self.made = made
        self.kube = kube
        self.look = look
        self.phase = phase
        self._said = ""

    def until(self, done: Callable[[Found], Result | None]) -> Result:
        """Wait until `done` has a result of what is there.

        Raises:
            BuilderError: a part does not come up.
        """
        deadline = time.monotonic() + START_SECONDS + self.made.engines
        while True:
            found = self.look()
            if (result := done(found)) is not None:
                return result
            self._tell(found, late=time.monotonic() > deadline)
            time.sleep(LOOK)

    def _tell(self, found: Found, *, late: bool) -> None:
        """Say how far it is, and give up where waiting is of no use."""
        user = self.made.user
        troubles = pods.troubles(found, user)
        for one in troubles:
            if one.hopeless or late:
                raise self._failure(one)
        far = []
        for kind in KINDS:
            ready = sum(map(pods.ready, found.of_kind(kind, user)))
            far.append(f"{kind} {ready}/{pods.wants(found, kind, user)}")
        why = [f"{one.kind}: {one.what}" for one in troubles[:1]]
        if why and why[0] != self._said:
            self.phase.reporter.log(why[0])
            self._said = why[0]
        self.phase.progress(", ".join(far + why))
        if late:
            raise BuilderError(
                f"the cluster did not start in {START_SECONDS:.0f} s: {', '.join(far)} are ready",
                f"look at `{self.kube.program} describe pods --selector={objects.mark(self.made.label)}`",
            )

    def _failure(self, trouble: Trouble) -> BuilderError:
        words = ""
        if trouble.pod:
            log: list[str] = []
            for before in ((), ("--previous",)):
                argv = ("logs", trouble.pod, "--tail=8", *before)
                answer = self.kube.run(*argv, what="its log cannot be read", check=False)
                log = answer.stdout.splitlines() if not answer.returncode else []
                if log:
                    break
            words = "".join(f"\n  {line}" for line in log[-8:])
        return BuilderError(
            f"the cluster did not start: {trouble.kind}: {trouble.what}{words}", "mend what it names"
        )
