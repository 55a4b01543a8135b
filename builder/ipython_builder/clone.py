"""git, run so that it never waits for a person, runs nothing a repository brings, and shows no secret.

The clone itself is made by git through `commands.run` and not by GitPython's ``clone_from``: that puts
the URL with its credentials into git's argv, where every user of the machine can read it, and leaves
git's helpers running when it is interrupted. What is read from a clone afterwards is read with GitPython.

Two facts about git that the shape follows (both in git-config(1)):

- a credential helper that is set for one URL is asked for that host only, and an empty ``helper`` before
  it clears the list: the user's own helpers then neither answer for it nor store what we were given;
- configuration in ``GIT_CONFIG_COUNT`` reaches git's children, submodules included, and is in no argv.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ipython_builder import commands
from ipython_builder.address import PROTOCOLS, Address
from ipython_builder.errors import BuilderError, RepositoryError, Transient, Unavailable
from ipython_builder.settings import Settings

_FULL_HASH = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_SOME_HASH = re.compile(r"[0-9a-fA-F]{4,64}")
_USER, _PASSWORD = "IPYTHON_BUILDER_GIT_USERNAME", "IPYTHON_BUILDER_GIT_PASSWORD"
# A shell builtin prints them, so that they are in git's environment and in no command line.
_HELPER = (
    f"""!f() {{ test "$1" = get && printf 'username=%s\\npassword=%s\\n' "${_USER}" "${_PASSWORD}"; }}; f"""
)
# Of the caller's environment: what would point git at another repository (we may be called from a hook),
# or write traces, which hold headers, somewhere; and our own variables, a password and a key among them.
_NOT_INHERITED = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|PREFIX|NAMESPACE"
    r"|CONFIG|SHALLOW_FILE|GRAFT_FILE|TEMPLATE_DIR|TRACE.*|TRACE2.*|CURL_VERBOSE|REDACT_COOKIES)|LANGUAGE|IPYTHON_.*"
)
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",  # true would leave a daemon behind in the clone
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",  # they have a step of their own, which can name the one that fails
    "protocol.ext.allow": "never",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
    # A server that has stopped talking: git itself would wait for ever.
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "120",
}
# LFS content is had after the clone, so that a missing git-lfs or a used-up quota cannot fail it.
_NO_LFS = {"filter.lfs.smudge": "", "filter.lfs.process": "", "filter.lfs.required": "false"}


def environment(address: Address, settings: Settings, *, lfs: bool = False) -> dict[str, str]:
    """Ours, without what would mislead git or let it ask a question; with the credentials and settings."""
    env = {
        k: v for k, v in os.environ.items() if not _NOT_INHERITED.fullmatch(k) and not k.startswith("IPYTHON")
    }
    config = [*_CONFIG.items(), *(() if lfs else _NO_LFS.items())]
    if address.user is not None and address.password is not None:
        key = f"credential.{address.root}.helper"
        config += [(key, ""), (key, _HELPER)]
        env |= {_USER: address.user, _PASSWORD: address.password}
    elif address.user is not None:
        config.append((f"credential.{address.root}.username", address.user))
    first = int(env.get("GIT_CONFIG_COUNT") or 0)
    for number, (key, value) in enumerate(config, first):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    env |= {
        "GIT_CONFIG_COUNT": str(first + len(config)),
        # A remote repository's submodules must not reach into this machine; a local one's may be beside it.
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS if address.local else PROTOCOLS[:-1]),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "SSH_ASKPASS_REQUIRE": "never",
        "GCM_INTERACTIVE": "never",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "LC_ALL": "C.UTF-8",  # the words of git are read below
    }
    if not address.local and not {"GIT_SSH_COMMAND", "GIT_SSH"} & env.keys():
        own = commands.run(["git", "config", "--get", "core.sshCommand"], env=env, cwd=Path("/"))
        if not own.stdout.strip():
            env["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes -o ConnectTimeout=30"
    if settings.ca_bundle:
        env["GIT_SSL_CAINFO"] = str(settings.ca_bundle)
    return env


class Git:
    """git with one environment, for one address.

    Args:
        shown: how the address is named in errors: without credentials.
        progress: is handed git's own progress lines.
    """

    def __init__(
        self, address: Address, shown: str, settings: Settings, progress: Callable[[str], None]
    ) -> None:
        self.address = address
        self.shown = shown
        self.settings = settings
        self.env = environment(address, settings)
        self.progress = progress
        # A short word could be part of anything git says; git never repeats what a helper told it anyway.
        self.secrets = [word for word in (address.password,) if word and len(word) > 3]

    def __call__(self, *arguments: str, cwd: Path = Path("/")) -> commands.Result:
        """Run git; by default where no repository's configuration is near."""

        def show(line: str) -> None:
            if line.strip():
                self.progress(line.strip())

        return commands.run(["git", *arguments], env=self.env, cwd=cwd, on_line=show, secrets=self.secrets)

    def clone(self, ref: str | None, into: Path) -> None:
        """Clone the address at `ref` into `into`, which must be empty or not there; shallow where it can be.

        Raises:
            RepositoryError: not git, not there, not allowed, no such ref, nothing in it.
            Unavailable, Transient: the host does not answer, or stopped answering.
        """
        if ref in (None, "HEAD"):
            self._clone(into)
            if self("rev-parse", "--verify", "--quiet", "HEAD", cwd=into).returncode != 0:
                # A bundle or a bare repository whose HEAD names a branch that is not in it.
                self._clone(into, "--branch", self._best_branch())
        elif ref is not None:
            ref = ref.removeprefix("refs/heads/")
            if _FULL_HASH.fullmatch(ref) or ref.startswith("refs/"):
                self._fetch(ref, into)
                return
            result = self._clone(into, "--branch", ref, missing_ok=True)
            if re.search(r"Remote branch .* not found", result.stderr):
                self._checkout(ref, into)

    def _clone(
        self, into: Path, *options: str, depth: bool = True, missing_ok: bool = False
    ) -> commands.Result:
        empty(into)
        shallow = ["--depth=1"] if depth and not self.address.local else []
        # No template: nobody's hooks are in the clone.
        words = ["clone", "--progress", "--origin=origin", "--template=", *shallow, *options]
        result = self(*words, "--", self.address.location, str(into))
        if result.returncode != 0:
            if shallow and "does not support shallow" in result.stderr:
                return self._clone(into, *options, depth=False, missing_ok=missing_ok)
            if not (missing_ok and "Remote branch" in result.stderr):
                raise explain(result.stderr, self.shown)
        return result

    def _fetch(self, ref: str, into: Path) -> None:
        """Have one commit or one full ref name alone; not every server hands out a commit by its hash."""
        empty(into)
        into.mkdir(exist_ok=True)
        self._or_raise("init", "--quiet", "--template=", cwd=into)
        self._or_raise("remote", "add", "origin", self.address.location, cwd=into)
        depth = [] if self.address.local else ["--depth=1"]
        result = self("fetch", "--progress", *depth, "origin", ref, cwd=into)
        if depth and "does not support shallow" in result.stderr:
            result = self("fetch", "--progress", "origin", ref, cwd=into)
        if result.returncode == 0:
            self._or_raise("checkout", "--quiet", "--detach", "FETCH_HEAD", cwd=into)
            return
        problem = explain(result.stderr, self.shown)
        if isinstance(problem, Unavailable | Transient):
            raise problem
        self._checkout(ref, into)

    def _or_raise(self, *arguments: str, cwd: Path) -> None:
        result = self(*arguments, cwd=cwd)
        if result.returncode != 0:
            raise explain(result.stderr, self.shown)

    def _checkout(self, ref: str, into: Path) -> None:
        """The long way: have everything, and look for `ref` in it."""
        if _SOME_HASH.fullmatch(ref):
            self._clone(into, "--no-checkout", depth=False)
            if self("checkout", "--quiet", "--detach", f"{ref}^{{commit}}", "--", cwd=into).returncode == 0:
                return
        names = self.names()
        near = get_close_matches(ref, names, 5, 0.5) or get_close_matches(ref.split("/")[-1], names, 5, 0.5)
        hint = (
            f"near it: {', '.join(near)}" if near else f"there are: {', '.join(names[:10]) or 'none at all'}"
        )
        raise RepositoryError(f"{self.shown} has no branch, tag or commit {ref}", hint)

    def names(self) -> list[str]:
        """The address's branches and tags, branches first."""
        result = self("ls-remote", "--heads", "--tags", "--", self.address.location)
        if result.returncode != 0:
            raise explain(result.stderr, self.shown)
        refs = [line.partition("\t")[2] for line in result.stdout.splitlines()]
        return [re.sub(r"\Arefs/(heads|tags)/", "", ref) for ref in refs if not ref.endswith("^{}")]

    def _best_branch(self) -> str:
        names = self.names()
        for name in ("main", "master", *names[:1]):
            if name in names:
                return name
        raise RepositoryError(
            f"{self.shown} is empty: it has no branch", "push a first commit to it, or check the address"
        )

    def submodules(self, path: Path) -> None:
        """Have the submodules of a clone, shallow where their servers allow it.

        Raises:
            RepositoryError: one cannot be had; it is named.
            Unavailable, Transient: its host does not answer.
        """
        if not (path / ".gitmodules").is_file():
            return
        update = ["submodule", "update", "--init", "--recursive", "--progress"]
        result = self(*update, "--depth=1", cwd=path)
        if result.returncode != 0:  # a commit that is no branch's tip, or a server that knows no shallow
            result = self(*update, cwd=path)
        if result.returncode != 0:
            named = re.findall(r"submodule path '([^']*)'", result.stderr)
            name = named[-1].removeprefix(f"{path}/") if named else "(git does not say which)"
            raise explain(result.stderr, f"the submodule {name} of {self.shown}")

    def large_files(self, path: Path) -> None:
        """Have the content of LFS pointers, if git-lfs is there; the caller names what stays a pointer."""
        if shutil.which("git-lfs", path=self.env.get("PATH")):
            env = environment(self.address, self.settings, lfs=True)
            for words in (["install", "--local", "--skip-repo"], ["pull"]):
                commands.run(["git", "lfs", *words], env=env, cwd=path, secrets=self.secrets)


def empty(folder: Path) -> None:
    """Remove what is in a folder; the folder itself stays, if it is there."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


_CREDENTIALS = "give git a credential helper or an ssh key for that host, or put a token into the URL"


@dataclass(frozen=True)
class _Saying:
    """What git, curl or ssh say, and what it means: kind of error, message, next step."""

    words: str
    kind: type[BuilderError]
    message: str
    hint: str


_SAYINGS = (  # the first that matches counts
    _Saying(
        "No space left|Disk quota exceeded", BuilderError, "no space left to clone {}", "free some space"
    ),
    _Saying(
        "SSL certificate|certificate verif|server certificate|CAfile|local issuer",
        Unavailable,
        "the certificate of {} is not trusted",
        "name your authority's certificates with --ca-bundle",
    ),
    _Saying(
        "Could not resolve (host|proxy)|unable to look up|Name or service not known|name resolution",
        Unavailable,
        "the host of {} is not known",
        "check the spelling, the network and the proxy",
    ),
    _Saying(
        "(Failed|unable) to connect|Couldn't connect|Connection (refused|reset)|timed out|No route to host"
        "|unreachable|too slow|Proxy CONNECT|returned error: 5[0-9]{2}|Empty reply",
        Unavailable,
        "{} does not answer",
        "check the address, the network and the proxy, or try again later",
    ),
    _Saying(
        "Host key verification failed",
        RepositoryError,
        "the ssh key of the host of {} is not known here",
        "connect to it once with ssh, and accept its key",
    ),
    _Saying(
        "Authentication failed|could not read (Username|Password)|prompts disabled|Permission denied \\("
        "|returned error: 40[13]",
        RepositoryError,
        "{} is not there, or needs credentials that git has not",
        _CREDENTIALS,
    ),
    _Saying(
        "is this a git repository|invalid (server response|content)|bad line length|protocol error",
        RepositoryError,
        "{} answers, but is not a git repository",
        "give the address that `git clone` takes",
    ),
    _Saying(
        "not found|repository .* does not exist|does not appear to be a git repository|No such file",
        RepositoryError,
        "{} is not a git repository that can be read",
        f"check the address; if it is private, {_CREDENTIALS}",
    ),
    _Saying(
        "early EOF|RPC failed|unexpected disconnect|hung up unexpectedly|index-pack failed",
        Transient,
        "the connection to {} broke off",
        "try again",
    ),
)


def explain(words: str, shown: str) -> BuilderError:
    """The error that git's own words (redacted stderr) stand for."""
    lines = words.splitlines()
    for saying in _SAYINGS:
        for line in lines:
            if re.search(saying.words, line, re.IGNORECASE):
                return saying.kind(f"{saying.message.format(shown)} (git: {line.strip()})", saying.hint)
    said = [line for line in lines if re.match("(fatal|error|remote|warning): ", line)] or lines
    return RepositoryError(f"git could not fetch {shown}:\n" + "\n".join(said[-5:]), "see git's words")
