"""Names of images, judged as text: ``[host[:port]/]path[:tag]``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ipython_builder.errors import UsageError

# The grammar of the distribution project (reference/regexp.go).
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>[\w][\w.-]{{0,127}}))?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/v[0-9]+)?")
_KEY = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9./_-]{0,126}[a-zA-Z0-9])?")


@dataclass(frozen=True)
class Reference:
    """An image's name.

    Attributes:
        host: the registry, with its port; None where the name does not say one.
        path, tag: the tag is "latest" where there is none.
        digest: with its ``@``; empty for none.
    """

    host: str | None
    path: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        host = f"{self.host}/" if self.host else ""
        return f"{host}{self.path}{self.digest or f':{self.tag}'}"

    @property
    def title(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def remote(self) -> bool:
        """Whether it names a registry; podman calls its own store localhost."""
        return self.host not in (None, "localhost")

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine, where it may speak plain http."""
        name = re.sub(r":[0-9]+\Z", "", self.host or "").strip("[]")
        if name == "localhost":
            return ":" in (self.host or "")  # without a port it is what podman calls its own store
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def parse(text: str, what: str = "the image's name") -> Reference:
    """Read a name; `what` it is, for errors.

    Raises:
        UsageError: it is none.
    """
    match = _IMAGE.fullmatch(text)
    if match is None or len(text) > 255:
        low = text.lower()
        near = low if low != text and _IMAGE.fullmatch(low) else None
        hint = f"write {near or 'it as in myimage or registry.example.org/me/notebooks:v1'}"
        raise UsageError(f"{what}, {text[:80]!r}, is no name of an image", hint)
    host, path = match["host"], match["path"]
    if host and not (re.search(r"[.:\[]", host) or host == "localhost"):
        if re.search("[A-Z]", host):
            raise UsageError(f"{what}, {text!r}, has capitals in its path", f"write {text.lower()}")
        host, path = None, f"{host}/{path}"  # me/notebooks: two parts of a path, as engines read it
    return Reference(host, path, match["tag"] or "latest", match["digest"] or "")


def target(text: str) -> Reference:
    """The name of an image that is to be made.

    Raises:
        UsageError: it is none, or a digest is in it.
    """
    found = parse(text)
    if found.digest:
        raise UsageError(f"{text}: an image cannot be made under a digest", "give it a tag")
    return found


def platform(text: str) -> str:
    """A platform, such as ``linux/arm64``.

    Raises:
        UsageError: it is none.
    """
    if not _PLATFORM.fullmatch(text):
        hint = (
            "build one platform at a time" if "," in text else "write it as in linux/amd64 or linux/arm64/v8"
        )
        raise UsageError(f"{text!r} is no platform", hint)
    return text


def labels(words: tuple[str, ...]) -> dict[str, str]:
    """``K=V`` words as labels.

    Raises:
        UsageError: one is none.
    """
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not _KEY.fullmatch(key) or not value.isprintable():
            raise UsageError(f"{word[:80]!r} is no label", "write it as in team=physics")
        found[key] = value
    return found
