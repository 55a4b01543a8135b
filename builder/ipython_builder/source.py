"""Where the notebooks come from: a folder used in place, or a git URL cloned into one of ours.

    parse    what was typed -> Source: judged before anything is fetched, nothing touched
    fetch    Source -> Checkout: a tree on this machine that no symlink leads out of
    changes  what a person has made in a clone since, and would lose with it

The repository is data: nothing of it is run here, no hook, no filter, no command from its configuration.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

from ipython_builder import clone, tree
from ipython_builder.address import (
    Address,
    judge_context_dir,
    judge_ref,
    judge_scp,
    judge_text,
    judge_url,
    without_credentials,
)
from ipython_builder.errors import BuilderError, RepositoryError, UsageError
from ipython_builder.events import Reporter
from ipython_builder.settings import Settings

_OTHERS = frozenset({"venv", "env", "node_modules", "__pycache__"})


@dataclass(frozen=True)
class Source:
    """What was asked for, validated, nothing touched yet.

    Attributes:
        text: as given, without credentials: safe to show and to store; a bundle by its whole path.
        url: the git URL with its credentials; None for a folder that is used in place.
        folder: the folder that is used in place, absolute; None for a URL.
        ref: branch, tag or commit; None for what the repository's HEAD names.
        context_dir: the folder in the tree that holds notebooks and requirements; None for the whole.
    """

    text: str
    url: str | None = field(repr=False)
    folder: Path | None
    ref: str | None
    context_dir: str | None


@dataclass(frozen=True)
class Checkout:
    """A tree on this machine.

    Attributes:
        path: the root of the tree.
        root: `path`, or the context directory in it.
        source, ref: as asked for (`Source.text`, `Source.ref`).
        commit: full hash; None where the folder is not under git's control.
        epoch: seconds, when the commit was made; 0 without one.
        in_place: it is the user's own folder and not a clone of ours.
        warnings: what is missing in it, one line each.
    """

    path: Path
    root: Path
    source: str
    ref: str | None
    commit: str | None
    epoch: int
    in_place: bool
    warnings: tuple[str, ...]


def parse(text: str, *, ref: str | None = None, context_dir: str | None = None) -> Source:
    """Judge what was typed; looks whether a local path is there and reads nothing else.

    Args:
        text: a folder, a bundle file, or a git URL (https, http, ssh, git, file, or ``user@host:path``).
        ref: empty means none, as templates hand it over.
        context_dir: a folder below the repository's root; empty means none.

    Raises:
        UsageError: it could be read as an option or a command, or cannot be meant; nothing was fetched.
        RepositoryError: a local path that is not there, or has no refs.
    """
    shown = re.sub(r"://.*@", "://***@", text)  # until it is understood, anything could be a password
    judge_text("the source", text, shown)
    ref = judge_ref(ref) if ref else None
    context_dir = judge_context_dir(context_dir) if context_dir else None
    scheme, colon, rest = text.partition("://")
    if colon and scheme.lower() == "file":
        path = Path(unquote(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest))
        return _local(text, path, ref, context_dir, cloned=True)
    if colon:
        url = judge_url(text, shown)
        return Source(without_credentials(url), url, None, ref, context_dir)
    path = Path(os.path.expanduser(text))
    if not os.path.lexists(path) and ":" in text.split("/")[0]:
        return Source(text, judge_scp(text), None, ref, context_dir)
    return _local(text, path, ref, context_dir, cloned=False)


def _local(text: str, path: Path, ref: str | None, context_dir: str | None, *, cloned: bool) -> Source:
    try:
        return _found(text, path, ref, context_dir, cloned=cloned)
    except OSError as error:
        raise RepositoryError(f"{text} cannot be read: {error.strerror}") from error


def _found(text: str, path: Path, ref: str | None, context_dir: str | None, *, cloned: bool) -> Source:
    if cloned and not path.is_absolute():
        raise UsageError(
            f"{text}: file:// names no other host and no relative path", "write file:///absolute/path"
        )
    path = path.absolute()
    if not path.exists():
        raise RepositoryError(f"{text} is not there", _nearest(text, path))
    path = path.resolve()
    if path.is_file():
        with path.open("rb") as file:
            if not re.match(rb"# v\d+ git bundle\n", file.read(32)):
                raise RepositoryError(
                    f"{text} is a file, and no git bundle", f"give its folder: {path.parent}"
                )
    elif not path.is_dir():
        raise RepositoryError(f"{text} is neither a folder nor a git bundle")
    elif not cloned and not _is_git(path) and ref:
        top = next((parent for parent in path.parents if _is_git(parent)), None)
        hint = f"give {top} with --context-dir {path.relative_to(top)}" if top else "leave --ref out"
        raise RepositoryError(f"{text} is not a git repository, so it has no ref {ref}", hint)
    elif not cloned and not ref and not _is_bare(path):
        return Source(text, None, path, None, context_dir)
    # By its whole path: the same words in another folder are another source.
    return Source(text if cloned else str(path), path.as_uri(), None, ref, context_dir)


def _is_bare(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def _is_git(path: Path) -> bool:
    return (path / ".git").exists() or _is_bare(path)


def _nearest(text: str, path: Path) -> str:
    """A hint for a path that is not there: what there is instead of its first missing part."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        near = get_close_matches(missing.name, os.listdir(missing.parent), 1, 0.6)
    except OSError:
        near = []
    if near:
        return f"did you mean {missing.parent / near[0]}?"
    if re.fullmatch(r"[\w-]+(\.[\w-]+)+(/[\w.-]+)+", text):
        return f"if it is on the network, write https://{text}"
    return f"{missing.parent} holds nothing of a similar name"


def fetch(source: Source, destination: Path, settings: Settings, reporter: Reporter) -> Checkout:
    """Clone into `destination`, or take the user's folder where it is.

    A destination that is not there is made under another name beside its place and renamed when it is
    whole: no half-made clone ever has its name. One that is there must be empty. On any error, Ctrl-C
    included, what was made is removed.

    Raises:
        RepositoryError: not git, no such ref or folder, credentials needed, a link that leads out.
        Unavailable, Transient: the host does not answer, or stopped answering.
        BuilderError: the destination cannot be written.
    """
    if source.url is None:
        assert source.folder is not None
        with reporter.phase("source", f"read {source.text}"):
            return _checkout(source, source.folder, in_place=True)
    destination = destination.absolute()
    made = not destination.exists()
    work = half_made(destination) if made else destination
    with reporter.phase("source", f"fetch {source.text}") as phase:
        try:
            if made:
                shutil.rmtree(work, ignore_errors=True)  # a killed fetch's
                work.mkdir(parents=True)
            elif not destination.is_dir() or any(destination.iterdir()):
                raise BuilderError(f"{destination} is there already, and not empty", "name another place")
        except OSError as error:
            raise BuilderError(f"cannot write to {destination}: {error.strerror}") from error
        try:
            git = clone.Git(Address.of(source.url), source.text, settings, phase.progress)
            git.clone(source.ref, work)
            git.submodules(work)
            if any(kind == "pointer" for kind, _ in tree.faults(work, _is_git_folder)):
                git.large_files(work)
            checkout = _checkout(source, work, in_place=False)
            if made:
                work.rename(destination)
        except BaseException as error:
            clone.empty(work)
            if made:
                shutil.rmtree(work, ignore_errors=True)
            if isinstance(error, OSError):
                raise BuilderError(f"cannot write to {destination}: {error.strerror}") from error
            raise
        phase.done(f"{source.text} at {source.ref or 'HEAD'} ({(checkout.commit or '')[:12]})")
        root = destination / (source.context_dir or "")
        return replace(checkout, path=destination, root=root)


def half_made(destination: Path) -> Path:
    """Where a clone is as long as it is being made; a `fetch` that is killed leaves it there."""
    return destination.with_name(f".{destination.name}.partial")


def _is_git_folder(name: str) -> bool:
    return name == ".git"


def _is_other(name: str) -> bool:
    """Environments and caches in a user's folder: full of links that lead out on purpose."""
    return name.startswith(".") or name in _OTHERS


def _checkout(source: Source, path: Path, *, in_place: bool) -> Checkout:
    """Look a tree over, and describe it.

    Raises:
        RepositoryError: a symbolic link leads out of it, or it has no such context directory.
    """
    if not os.access(path, os.R_OK | os.X_OK):
        raise RepositoryError(f"{source.text} cannot be read by this user")
    pointers = []
    for kind, found in tree.faults(path, _is_other if in_place else _is_git_folder):
        name = found.relative_to(path).as_posix()
        if kind == "link":
            message = f"{source.text}: the symbolic link {name} leads out of it, to {os.readlink(found)}"
            raise RepositoryError(message, "put a copy of its target there, or remove the link")
        pointers.append(name)
    root = path / (source.context_dir or "")
    if not root.is_dir():
        near = get_close_matches(source.context_dir or "", folders := _folders(path), 3, 0.5) or folders[:10]
        hint = f"there are: {', '.join(near)}" if near else "there is no folder in it at all"
        raise RepositoryError(f"{source.text} has no folder {source.context_dir}", hint)
    warnings = tree.absent_submodules(path)
    if pointers:
        more = f" and {len(pointers) - 10} more" if len(pointers) > 10 else ""
        warnings.append(f"content that Git LFS keeps is missing: {', '.join(sorted(pointers)[:10])}{more}")
    commit, epoch = tree.head(path) or (None, 0)
    return Checkout(path, root, source.text, source.ref, commit, epoch, in_place, tuple(warnings))


def _folders(path: Path) -> list[str]:
    """Folders of a tree, two levels deep, as `--context-dir` would name them."""
    found = [folder for pattern in ("*", "*/*") for folder in path.glob(pattern) if folder.is_dir()]
    names = (folder.relative_to(path) for folder in found)
    return sorted(str(name) for name in names if not any(_is_other(part) for part in name.parts))


def changes(path: Path, commit: str) -> list[str]:
    """What would be lost with a clone of ours that was made at `commit`: paths, sorted.

    Files changed, removed or new, those that git ignores too (a notebook's results often are), and files in
    commits and stashes that are in no branch of the remote. Checkpoints and bytecode do not count.

    Raises:
        RepositoryError: it is no longer a repository that holds that commit, so nobody can tell.
    """
    import git  # GitPython; 0.2 s that only this question pays

    try:
        with git.Repo(path) as repo:
            # Said outright, because the caller's environment may point git elsewhere.
            repo.git.update_environment(
                GIT_DIR=str(repo.git_dir),
                GIT_WORK_TREE=str(path),
                GIT_INDEX_FILE=str(Path(repo.git_dir, "index")),
            )
            still = ["core.hooksPath=/dev/null", "core.fsmonitor=false"]
            if not shutil.which(
                "git-lfs"
            ):  # set up here once and gone again: pointers are compared as they are
                still += ["filter.lfs.required=false", "filter.lfs.process=", "filter.lfs.clean="]
            repo.git.set_persistent_git_options(c=still)
            status = repo.git.status("-z", "--no-renames", "--untracked-files=all", "--ignored=matching")
            known = ["--not", commit, "--remotes"]
            own = repo.git.log(
                "-z", "-m", "--format=", "--name-only", "HEAD", "--branches", "--glob=refs/stash*", *known
            )
    except (git.GitError, OSError, ValueError) as error:
        words = str(getattr(error, "stderr", "")).strip() or type(error).__name__
        raise RepositoryError(f"{path}: cannot tell what was changed in it: {words}") from error
    names = {entry[3:] for entry in status.split("\0")} | set(own.split("\0"))
    passing = {".ipynb_checkpoints", "__pycache__"}
    return sorted(name for name in names if name and not passing & set(name.split("/")))
