"""Connection information: derived, never copied. (label, key, host, first port) -> ports, keys, files.

Pure: nothing here touches a disk or a socket. Every role on every platform computes the same answer, so a
viewer, a controller and an engine that share a label and a key find each other without a file being moved.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from ipython_builder.errors import UsageError

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
LABEL_RULE = "1 to 40 of a-z, 0-9 and -, with a letter or digit at both ends"
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
KEY_BYTES = 32
MAKE_A_KEY = "make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
PORT_COUNT = 15
FIRST_PORT = 10000
VIEWER_PORT = 8080
MAX_ENGINES = 10_000  # one more is a typing error, not a wish

# The order is the promise: port = first + position. Two names appear on both sides of the controller.
ENGINE_CHANNELS = (
    "registration",
    "control",
    "mux",
    "task",
    "iopub",
    "hb_ping",
    "hb_pong",
    "broadcast",
    "broadcast",
)
CLIENT_CHANNELS = ("control", "mux", "task", "iopub", "notification", "broadcast")

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def check_label(label: str, what: str = "label") -> str:
    """`label` itself when it may stand in host names and Kubernetes labels.

    Raises:
        UsageError: it may not; the message holds the rule.
    """
    if not LABEL.fullmatch(label):
        raise UsageError(f"{label!r} is not allowed as a {what}", f"use {LABEL_RULE}")
    return label


def random_label() -> str:
    """Five random lower-case characters, the first a letter."""
    return secrets.choice(ALPHABET[:26]) + "".join(secrets.choice(ALPHABET) for _ in range(4))


def new_key() -> str:
    """A fresh cluster key: 32 random bytes as 64 hex digits."""
    return secrets.token_hex(KEY_BYTES)


def read_key(content: bytes) -> bytes:
    """The 32 bytes of a cluster key from what a secret's file holds.

    64 hex digits are the key itself; anything else of at least 32 bytes (a TLS key, say) is hashed to one.

    Raises:
        UsageError: fewer than 32 bytes, which is no secret.
    """
    text = content.strip()
    if re.fullmatch(rb"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text.decode())
    if len(text) < KEY_BYTES:
        raise UsageError(
            f"the cluster key has {len(text)} bytes; it needs at least {KEY_BYTES}",
            MAKE_A_KEY,
        )
    return _derive(text, b"cluster-key")


@dataclass(frozen=True)
class Link:
    """What links the roles of one cluster.

    Attributes:
        label: the cluster label.
        key: 32 secret bytes; never shown by repr.
        host: the name or address at which engines and clients reach the controller.
        first_port: the first of `PORT_COUNT` consecutive ports.
        bind: the address the controller listens on.
        curve: whether traffic is encrypted (CurveZMQ); on between hosts, off on loopback.
    """

    label: str
    key: bytes = field(repr=False)
    host: str = "127.0.0.1"
    first_port: int = FIRST_PORT
    bind: str = "127.0.0.1"
    curve: bool = False

    @property
    def ports(self) -> range:
        return range(self.first_port, self.first_port + PORT_COUNT)


def engine_info(link: Link) -> dict[str, Any]:
    """What ipyparallel's ``ipcontroller-engine.json`` holds for this cluster."""
    names: dict[str, Any] = {"broadcast": []}
    for port, channel in zip(link.ports, ENGINE_CHANNELS, strict=False):
        if channel == "broadcast":
            names[channel].append(port)
        else:
            names[channel] = port
    return _common(link, link.host) | names


def client_info(link: Link) -> dict[str, Any]:
    """What ipyparallel's ``ipcontroller-client.json`` holds for this cluster."""
    first = link.first_port + len(ENGINE_CHANNELS)
    names = {channel: first + i for i, channel in enumerate(CLIENT_CHANNELS)}
    # Clients ask the hub where engines register: one socket, so one port in both files.
    return _common(link, link.host) | names | {"registration": link.first_port, "task_scheme": "leastload"}


def controller_info(link: Link) -> dict[str, Any]:
    """What our controller reads at its start: both files as it binds them, and its own secret key."""
    bound = {"interface": f"tcp://{link.bind}"}
    return {
        "engine": engine_info(link) | bound,
        "client": client_info(link) | bound,
        "curve_secretkey": curve_keys(link)[1] if link.curve else None,
    }


def connection_files(link: Link) -> dict[str, str]:
    """File name -> JSON text, for a profile's ``security`` folder; each must be written 0600."""
    contents = {
        "ipcontroller-engine.json": engine_info(link),
        "ipcontroller-client.json": client_info(link),
        "controller.json": controller_info(link),
    }
    return {name: json.dumps(content, indent=1) + "\n" for name, content in contents.items()}


def session_key(link: Link) -> str:
    """The HMAC key that signs every message."""
    return _derive(link.key, f"session:{link.label}".encode()).hex()


def curve_keys(link: Link) -> tuple[str, str]:
    """The controller's CURVE (public, secret) keys in Z85, as libzmq wants them.

    Source: zmq.curve_public(3) derives the one from the other.
    """
    import zmq

    secret = z85(_derive(link.key, f"curve:{link.label}".encode()))
    return zmq.curve_public(secret.encode()).decode(), secret


def z85(data: bytes) -> str:
    """Z85 text of `data`, whose length is a multiple of 4. Source: ZeroMQ RFC 32."""
    text = []
    for start in range(0, len(data), 4):
        value = int.from_bytes(data[start : start + 4], "big")
        text.append("".join(_Z85[value // 85**power % 85] for power in (4, 3, 2, 1, 0)))
    return "".join(text)


def _common(link: Link, host: str) -> dict[str, Any]:
    return {
        "ssh": "",
        "interface": f"tcp://{host}",
        "location": host,
        "key": session_key(link),
        "curve_serverkey": curve_keys(link)[0] if link.curve else None,
        "pack": "json",
        "unpack": "json",
        "signature_scheme": "hmac-sha256",
    }


def _derive(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt, 32 bytes: one extract, one expand."""
    extracted = hmac.new(b"\0" * 32, secret, hashlib.sha256).digest()
    return hmac.new(extracted, b"ipython-cluster " + info + b"\x01", hashlib.sha256).digest()
