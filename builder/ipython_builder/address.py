"""What may be handed to git: URLs, refs and folder names, judged as text before anything is fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ipython_builder.errors import UsageError

PROTOCOLS = ("https", "http", "ssh", "git", "file")
_HOST = r"(?!-)(?:\[[0-9A-Fa-f:.%]+\]|[^\s/:@\[\]?#'\"\\<>%]+)"
_URL = re.compile(
    rf"(?P<root>(?P<scheme>[a-z]+)://)(?:(?P<userinfo>(?!-)[^/\s\\]*)@)?"
    rf"(?P<host>{_HOST}(?::\d{{1,5}})?)(?P<path>/(?!-).*)?"
)
_SCP = re.compile(rf"(?:(?!-)[^\s/:@]+@)?{_HOST}:(?!-)(?P<path>\S.*)")
_REF = re.compile(r"(?!-)[^\x00-\x20\x7f~^:?*\[\\]+")


@dataclass(frozen=True)
class Address:
    """A git URL taken apart: where it points, and who asks.

    Attributes:
        url: without credentials for http(s): what git is given and what stays in the clone's configuration.
        root: its scheme and host: what the credentials are for.
        user, password: decoded; None where the URL has none.
    """

    url: str
    root: str = ""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        """Take apart what `judge_url` or `judge_scp` has let through."""
        match = _URL.fullmatch(url)
        if not match or match["scheme"] not in ("http", "https") or not match["userinfo"]:
            return cls(url)
        user, colon, password = match["userinfo"].partition(":")
        root = match["root"] + match["host"]
        return cls(root + (match["path"] or ""), root, unquote(user), unquote(password) if colon else None)

    @property
    def local(self) -> bool:
        return self.url.startswith("file://")

    @property
    def location(self) -> str:
        """What git is given: the URL, or a bundle's path, since git takes no file:// for one."""
        path = Path(unquote(self.url.removeprefix("file://")))
        return str(path) if self.local and path.is_file() else self.url


def judge_text(
    what: str, text: str, shown: str, hint: str = "for a folder of that name, write ./ before it"
) -> None:
    """Refuse what could be read as an option, or cannot be shown.

    Raises:
        UsageError: also the functions below raise it, and nothing else.
    """
    if not text:
        raise UsageError(f"{what} is empty", "give a folder or a git URL")
    if text.startswith("-"):
        raise UsageError(f"{what} begins with '-': {shown}", hint)
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise UsageError(f"{what} has characters in it that cannot be seen or are no text: {shown!a}")
    # git's own rule for what is a remote helper, in transport.c; helpers run commands.
    if re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9+.-]*)?::.*", text):
        raise UsageError(
            f"{what} names a git remote helper, which runs commands: {shown}", "give a plain URL"
        )


def judge_url(url: str, shown: str) -> str:
    """A URL of a scheme other than file, with its scheme in lower case."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in PROTOCOLS:
        near = get_close_matches(scheme.removeprefix("git+"), PROTOCOLS, 1, 0.5)
        hint = f"write {near[0]}://…" if near else f"known are {', '.join(PROTOCOLS)}"
        raise UsageError(f"{shown}: git does not know {scheme}://", hint)
    match = _URL.fullmatch(f"{scheme}://{rest}")
    if not match:
        hint = "a '/', '@' or space in a user name or password is written as %2F, %40, %20"
        raise UsageError(f"{shown} is not a URL that git can be given", hint)
    user, _, password = (match["userinfo"] or "").partition(":")
    if any(ord(c) < 32 or ord(c) == 127 for c in unquote(user) + unquote(password)):
        raise UsageError(f"{shown}: the user name or password has control characters in it")
    if scheme in ("ssh", "git") and (password or (scheme == "git" and user)):
        raise UsageError(f"{shown}: {scheme}:// takes no password from a URL", "use an ssh key, or https")
    if scheme.startswith("http") and re.search("[?#]", match["path"] or ""):
        raise UsageError(
            f"{re.split('[?#]', shown)[0]}: a git URL has no '?' or '#'",
            "give the address that `git clone` takes; --ref and --context-dir name the rest",
        )
    return match[0]


def judge_scp(text: str) -> str:
    """``user@host:path``, as ssh's scp takes it."""
    match = _SCP.fullmatch(text)
    if not match or re.match(r"[^/]*@[^/]*:", match["path"]):
        # Not shown: what stands before a second "@" is somebody's password.
        raise UsageError(
            "the source is neither a folder nor user@host:path", "ssh takes no password from a URL"
        )
    return text


def without_credentials(url: str) -> str:
    """The URL to show; an ssh user's name is no secret, an http one may be a token."""
    return re.sub(r"\A(https?://)[^/]*@", r"\1***@", url)


def judge_ref(ref: str) -> str:
    """git-check-ref-format's rules; a commit's hash passes them too."""
    judge_text("the ref", ref, ref, "give a branch, a tag or a commit's hash")
    parts = ref.split("/")
    bad = any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts)
    if bad or not _REF.fullmatch(ref) or ".." in ref or "@{" in ref or ref == "@":
        raise UsageError(f"{ref!r} cannot be a git ref", "give a branch, a tag or a commit's hash")
    return ref


def judge_context_dir(name: str) -> str | None:
    """A folder below the root, normalised; None for the root itself."""
    judge_text("the context directory", name, name)
    path = PurePosixPath(name)
    if path.is_absolute() or {"..", ".git"} & set(path.parts) or "\\" in name:
        raise UsageError(f"the context directory {name!r} is not a folder below the repository's root")
    return None if path == PurePosixPath(".") else str(path)
