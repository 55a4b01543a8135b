"""The cluster key of a running role: kept where it was lost, looked at again where a platform may change it.

A viewer that gets a key, its first or another one, finds the cluster from then on, and nothing restarts. A
controller with another key would lose its engines, so it ends, to be started anew, when none of them has a
task. Engines follow when their controller no longer answers to the key that they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ipython_builder import cluster, prepare
from ipython_builder.abroad import Abroad, say
from ipython_builder.errors import BuilderError
from ipython_builder.leaving import Leaving
from ipython_builder.record import Home, Record, write_private

LOOK = 2.0

Source = Callable[[], bytes | None]


class Keyring:
    """The key in `home`, and the one at its `source`: where a container finds it, or None elsewhere."""

    def __init__(self, home: Home, source: Source | None) -> None:
        self.home = home
        self.source = source
        self.key = home.key.read_text() if home.key.exists() else None

    def restore(self) -> None:
        """Write the key again if somebody has removed it: without it no other file could be made."""
        if self.key is not None and self.home.path.is_dir() and not self.home.key.exists():
            try:
                write_private(self.home.key, self.key)
            except OSError:
                return

    def other(self) -> str | None:
        """The key at the source, if that is another one than ours.

        Raises:
            BuilderError: it cannot be read, or is none.
        """
        content = self.source() if self.source else None
        if content is None:
            return None  # what was there may be on its way back
        text = cluster.read_key(content).hex() + "\n"
        return None if text == self.key else text

    def take(self, text: str, made: Record) -> None:
        """Have this key from now on, and the connection files with it."""
        write_private(self.home.key, text)
        self.key = text
        prepare.write_connection(made, self.home)


async def follow(
    ring: Keyring, made: Record, leaving: Leaving, abroad: Abroad | None, stop: Callable[[], None]
) -> None:
    """Look again and again; returns after `stop`, which lets this role begin anew with another key."""
    said = ""
    while True:
        await asyncio.sleep(LOOK)
        try:
            text = ring.other()
            if text is None:
                continue
            if made.roles == ("viewer",):
                ring.take(text, made)
                say(f"the cluster key has come: cluster {made.label}, controller at {made.controller}")
                continue
        except (BuilderError, OSError) as error:
            if str(error) != said:
                said = str(error)
                say(said)
            continue
        if abroad is None:
            if leaving.busy():
                continue
        elif await abroad.herald.ask("connection_request") is not None:
            continue
        say("the cluster key has changed: beginning anew")
        stop()
        return
