"""What a supervisor without a controller says to the one elsewhere, over its registration port.

Signed and encrypted with what the cluster's key gives, as everything between hosts. The controller's side is
`ipython_cluster.hub`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from ipython_builder import cluster

ANSWER_SECONDS = 2.0


class Herald:
    """One line to the controller that `link` leads to. ØMQ connects it, again and again if need be."""

    def __init__(self, link: cluster.Link) -> None:
        import zmq
        import zmq.asyncio
        from jupyter_client.session import Session

        self.link = link
        self.context = zmq.asyncio.Context()
        self.line = self.context.socket(zmq.DEALER)
        self.line.linger = 500  # milliseconds: the last word of a node that stops
        # As `ipython_cluster.registration.hurry`: one packet that got lost is not waited for.
        self.line.connect_timeout, self.line.handshake_ivl = 3000, 10_000
        if link.curve:
            self.line.curve_serverkey = cluster.curve_keys(link)[0].encode()
            self.line.curve_publickey, self.line.curve_secretkey = zmq.curve_keypair()
        self.session = Session(key=cluster.session_key(link).encode(), check_pid=False)
        self.line.connect(f"tcp://{link.host}:{link.first_port}")
        self.turn = asyncio.Lock()

    async def tell(self, what: str, **content: Any) -> None:
        """Say something; ØMQ keeps it until there is somebody who hears."""
        await self.line.send_multipart(self.session.serialize(self.session.msg(what, content)))

    async def ask(self, what: str, **content: Any) -> dict[str, Any] | None:
        """Ask something; None where nobody answers in time, or not in words that this key signed."""
        async with self.turn:
            while await self.line.poll(0):
                await self.line.recv_multipart()  # an answer that came too late
            await self.tell(what, **content)
            if not await self.line.poll(int(ANSWER_SECONDS * 1000)):
                return None
            try:
                _, parts = self.session.feed_identities(await self.line.recv_multipart())
                answer: dict[str, Any] = self.session.deserialize(parts)["content"]
            except (ValueError, KeyError):
                return None
            return answer

    async def trouble(self) -> str:
        """Why nobody answers, in words."""
        where = f"{self.link.host}:{self.link.first_port}"
        loop = asyncio.get_running_loop()
        try:
            await loop.getaddrinfo(self.link.host, self.link.first_port, type=socket.SOCK_STREAM)
        except OSError:
            return f"there is no controller at {where}: the name is not known (yet)"
        try:
            opening = asyncio.open_connection(self.link.host, self.link.first_port)
            _, writer = await asyncio.wait_for(opening, ANSWER_SECONDS)
            writer.close()
        except (OSError, TimeoutError):
            return f"there is no controller at {where}: nothing listens (yet)"
        return f"the controller at {where} does not answer to this cluster key: is it another cluster's?"

    def close(self) -> None:
        self.context.destroy(linger=500)
