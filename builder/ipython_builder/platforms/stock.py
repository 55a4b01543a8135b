"""What an engine has of a cluster, found by its label: containers, volumes, a network, secrets, an image."""

from __future__ import annotations

import json
from typing import Any

from ipython_builder.errors import BuilderError, Transient, Unavailable
from ipython_builder.events import Reporter
from ipython_builder.platforms import parts
from ipython_builder.platforms.containers import Client
from ipython_builder.platforms.elsewhere import Elsewhere
from ipython_builder.platforms.parts import Names

ANSWER_SECONDS = 30.0  # in which a supervisor says how it is, on a machine that is busy


class Stock:
    """Makes, finds and removes it in one engine."""

    def __init__(self, client: Client, reporter: Reporter) -> None:
        self.client = client
        self.reporter = reporter

    def found(self, label: str) -> dict[str, dict[str, Any]]:
        """Kind -> what the engine knows of its container."""
        there = self.client.inspect("container", *self.client.named("container", parts.mark(label)))
        found = {(one["Config"].get("Labels") or {}).get("ipython-role"): one for one in there}
        return {kind: found[kind] for kind in parts.KINDS if kind in found}

    def inside(self, name: str, *words: str) -> str | None:
        """What a command in a container prints; None where it does not run, or says nothing."""
        try:
            answer = self.client.run(
                "exec", name, *words, what=f"{name} cannot be asked", timeout=ANSWER_SECONDS, check=False
            )
        except Transient:
            return None
        return answer.stdout or None

    def address(self, network: str) -> parts.Address | None:
        """Where the controller shall be in its network, if names may fail there."""
        found = self.client.inspect("network", network) if self.client.kind.names_fail else []
        return parts.Address.last_of(found[0]) if found else None

    def changes(self, made: Elsewhere) -> bool:
        """Whether somebody's work is in the workspace; where nobody can tell, it is taken for that."""
        if not made.image:
            return False
        try:
            answer = self.client.run(
                *parts.changes(made.label, made.user, made.image), what="the workspace cannot be looked at"
            )
            return bool(json.loads(answer.stdout))
        except Unavailable:
            raise
        except (BuilderError, ValueError) as error:
            self.reporter.warning(str(error))
            return True

    def volume(self, made: Elsewhere, name: str) -> None:
        if not self.client.inspect("volume", name):
            argv = ("volume", "create", *parts.labels(made, "volume"), name)
            self.client.run(*argv, what=f"the volume {name} cannot be made")

    def volume_rm(self, name: str) -> None:
        self.client.remove("volume", "rm", name, what=f"the volume {name} cannot be removed")

    def has_secret(self, name: str) -> bool:
        return bool(self.client.inspect("secret" if self.client.kind.secrets else "volume", name))

    def secret(self, made: Elsewhere, secret: str, content: str) -> None:
        """Have the engine keep a secret, that it reads from us: no command line has it."""
        engine, names = self.client, Names(made.label, made.user)
        name = names.key if secret == "key" else names.password  # noqa: S105
        what = f"the secret {name} cannot be made"
        if engine.kind.secrets:
            engine.remove("secret", "rm", name, what=what)
            argv = ["secret", "create", *parts.labels(made, "secret"), name, "-"]
        else:
            self.volume(made, name)
            argv = parts.filling(names, secret, made.image)
        engine.run(*argv, what=what, stdin=content + "\n")

    def remove(self, label: str, *, keep: str | None) -> None:
        """Remove whatever has the label, but for the volume `keep`."""
        engine, mark = self.client, parts.mark(label)
        self.stop(label)
        for volume in engine.named("volume", mark):
            if volume != keep:
                self.volume_rm(volume)
        for network in engine.named("network", mark):
            engine.remove("network", "rm", network, what=f"the network {network} cannot be removed")
        if engine.kind.secrets:
            names = Names(label, "")
            for secret in (names.key, names.password):
                engine.remove("secret", "rm", secret, what=f"the secret {secret} cannot be removed")
        # Layers of dependencies stay, as a cache: the next `up` of the same repository takes a moment.
        name = parts.image(label)
        engine.remove("rmi", "--no-prune", name, what=f"the image {name} cannot be removed")

    def stop(self, label: str) -> None:
        """Stop and remove the containers; engines last, since who asks for their work is gone then."""
        engine, mark = self.client, parts.mark(label)
        names = engine.named("container", mark)
        for some in (
            [name for name in names if not name.startswith("ipengine-")],
            [name for name in names if name.startswith("ipengine-")],
        ):
            if some:
                engine.run("stop", "--time", "10", *some, what="containers cannot be stopped", check=False)
                engine.remove("rm", "--force", "--volumes", *some, what="containers cannot be removed")
