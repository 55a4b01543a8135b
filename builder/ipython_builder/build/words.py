"""What engines say when they fail, as errors of ours: whose fault, their own words, the next step. Pure."""

from __future__ import annotations

import re

from ipython_builder.errors import BuilderError, RepositoryError, Transient, Unavailable, UsageError

_NO_IMAGE = re.compile(
    r"no such image|image not known|not found in local storage|locating image|unknown image", re.IGNORECASE
)
_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_DAEMON = re.compile(
    r"cannot connect to the docker daemon|is the docker daemon running|error during connect"
    r"|docker\.sock: (?:connect|permission denied)|connection refused.*docker\.sock",
    re.IGNORECASE,
)
_BUSY = re.compile(r"database is locked|resource temporarily unavailable", re.IGNORECASE)
_CODE = re.compile(r"(?:exit status|exit code:?|returned a non-zero code:) (\d+)")
_DENIED = re.compile(r"unauthorized|denied|authentication required|forbidden", re.IGNORECASE)
# What says only how far it is, and what is said again as the error at the end.
_NOISE = re.compile(
    r"STEP \d|--> |Copying |Writing |Storing |Trying to pull|time=|[0-9a-f]{12}: |sha256:|-+$"
)
_STEP = re.compile(r'((?:STEP |running |process )[\["/]\S* ?\S*)(?: .*(?=[\]"]: ))')
_PREFIX = re.compile(r"^#\d+ (?:\d+\.\d+ )?")
# What is said of a build from outside, after our own words.
_THEIRS = re.compile(r"error: (?:build error: |the build \S+ status is )")
_KINDS: dict[int, type[BuilderError]] = {2: UsageError, 3: RepositoryError, 69: Unavailable, 75: Transient}


def plain(line: str) -> str:
    """A line of an engine without BuildKit's numbers."""
    return _PREFIX.sub("", line)


def end(text: str, lines: int = 12) -> str:
    """The last lines of what was said, indented."""
    said = [_STEP.sub(r"\1 …", plain(line).rstrip()) for line in text.splitlines()]
    return "\n".join(f"  {line}" for line in [one for one in said if one and not _NOISE.match(one)][-lines:])


def no_such_image(text: str) -> bool:
    """Whether an engine works and only has no image of that name."""
    return bool(_NO_IMAGE.search(text))


def no_daemon(text: str) -> bool:
    """Whether the engine's daemon does not answer."""
    return bool(_DAEMON.search(text))


def advice(text: str) -> str:
    """What to do about an engine that does not work."""
    if re.search("permission denied", text, re.IGNORECASE):
        return "join the group docker, or use podman, which needs no rights"
    return "start it, or name another engine" if _DAEMON.search(text) else "mend what it names"


def failure(what: str, text: str) -> BuilderError:
    """Why a build failed; what our own steps said in the container is passed on as they said it."""
    if _SPACE.search(text):
        return BuilderError(f"{what}: the disk is full:\n{end(text, 4)}", "free some space, then try again")
    if _DAEMON.search(text):
        return Unavailable(f"{what}:\n{end(text, 4)}", advice(text))
    codes = _CODE.findall(text)
    kind = _KINDS.get(int(codes[-1]), BuilderError) if codes else BuilderError
    said = _ours(text)
    if said:
        return kind(*said)
    if not codes and _BUSY.search(text):
        return Transient(f"{what}:\n{end(text)}", "try again")
    return kind(f"{what}:\n{end(text)}", "mend what is named above")


def registry_failure(what: str, text: str) -> BuilderError:
    """Why a registry could not be used."""
    if _SPACE.search(text):
        return BuilderError(f"{what}: a disk is full:\n{end(text, 4)}", "free some space, here or there")
    if _DAEMON.search(text):
        return Unavailable(f"{what}:\n{end(text, 4)}", advice(text))
    hint = "log in first, with `podman login` or `docker login`" if _DENIED.search(text) else None
    return Unavailable(f"{what}:\n{end(text, 6)}", hint or "look at the registry's name and the network")


def _ours(text: str) -> tuple[str, str | None] | None:
    """(message, hint) of the last error that our own tool showed in a step."""
    lines = [plain(line).rstrip() for line in text.splitlines()]
    ours = (n for n, line in enumerate(lines) if line.startswith("error: ") and not _THEIRS.match(line))
    start = max(ours, default=None)
    if start is None:
        return None
    message = [lines[start].removeprefix("error: ")]
    for line in lines[start + 1 :]:
        if line.startswith(" next: "):
            return "\n".join(message), line.removeprefix(" next: ")
        if re.match(r"(?i)(error|subprocess|ERRO)|-{6}|executor failed|time=", line):
            break
        message.append(line)
    return "\n".join(message).rstrip(), None
