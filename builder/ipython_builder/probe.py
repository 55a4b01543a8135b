"""Whether the viewer answers: its own file says that it listens, and a request says that it works."""

from __future__ import annotations

import asyncio

from ipython_builder import ports
from ipython_builder.member import Member
from ipython_builder.record import Home, Record

POLL = 0.05


async def until_answering(member: Member, record: Record, home: Home) -> None:
    """Look until the viewer's port answers; that makes it ready."""
    pid = member.pid
    while member.pid == pid and member.state == "starting":
        # Its own file says that it listens; that something answers on its port alone would not be proof.
        said = home.runtime / f"jpserver-{pid}.json"
        if said.exists() and await answers(record.viewer_host, record.viewer_port):
            member.become("ready")
            return
        await asyncio.sleep(POLL)


async def answers(host: str, port: int) -> bool:
    """Whether a Jupyter server answers there."""
    host = ports.reached_at(host)
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(f"GET /api HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await asyncio.wait_for(reader.readline(), 5)
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
