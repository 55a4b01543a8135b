"""A container's role, from its environment: what `up` decides elsewhere, the platform has decided here.

Everything that a role writes lies in the state folder, which is the only place that must be writable, in the
layout of a cluster on one's own machine. So `ipython-builder status`, `password` and `console` work in there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipython_builder import cluster, prepare, processors, record, seeding, thin
from ipython_builder.environment import Environment
from ipython_builder.errors import BuilderError, RepositoryError, UsageError
from ipython_builder.interpreters import Interpreter
from ipython_builder.places import Places
from ipython_builder.record import Home, Record, write_private

TYPES = {"viewer": ("viewer",), "controller": ("controller",), "engine": ("pool", "engine")}
ALONE = "notebook"  # the label of a viewer that belongs to no cluster
GRACE_SECONDS = 25.0  # Kubernetes ends a pod after 30
# Where platforms put secrets, the first that is there; DESIGN: the cluster key.
KEY_FILES = ("ipython-cluster/key", "ipython-cluster/tls.key", "ipython-cluster-key")
SERVICE_CA = "service-ca"  # what templates call the key that OpenShift makes for a Service
PASSWORD_FILES = ("ipython-user/password", "ipython-user-password")


@dataclass(frozen=True)
class Contained:
    """What a container's environment asks for.

    Attributes:
        kind: viewer, controller or engine; a console or a command of one's own is a client of the cluster.
        label: of the cluster; None for a viewer that has none.
        key: what the cluster key is read from; None without one.
        notebooks: the folder where everything starts.
    """

    kind: str
    label: str | None
    user: str
    controller: str
    key: bytes | None
    password: str | None
    engines: int
    notebooks: Path
    grace: float


def read(environ: Mapping[str, str], places: Places, *, client: bool = False) -> Contained:
    """What the environment asks for; looks at files of secrets, changes nothing.

    Args:
        client: a command of one's own shall run, whatever the container's type.

    Raises:
        UsageError: a value that cannot be meant, or one that the role cannot do without is missing.
    """
    kind = environ.get("IPYTHON_CONTAINER_TYPE") or "viewer"
    if kind not in TYPES:
        import difflib

        near = difflib.get_close_matches(kind, TYPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(TYPES)}"
        raise UsageError(f"IPYTHON_CONTAINER_TYPE={kind}: there is no such type", hint)
    label = environ.get("IPYTHON_CLUSTER_LABEL") or None
    if label:
        cluster.check_label(label, "cluster label (IPYTHON_CLUSTER_LABEL)")
    user = environ.get("IPYTHON_USER_LABEL") or cluster.random_label()
    cluster.check_label(user, "user label (IPYTHON_USER_LABEL)")
    secret = key(environ, places)
    if kind != "viewer" and not client:
        if label is None:
            raise UsageError(
                f"this {kind} has no cluster label",
                "set IPYTHON_CLUSTER_LABEL, the same for all parts of a cluster",
            )
        if secret is None:
            raise _no_key(kind, environ, places)
    if secret is not None:
        cluster.read_key(secret)
    controller = environ.get("IPYTHON_CONTROLLER_HOST") or f"ipcontroller-{label}"
    if not re.fullmatch(r"[A-Za-z0-9.:_-]+", controller):
        raise UsageError(
            f"IPYTHON_CONTROLLER_HOST={controller!r} is no host name", "name the controller's host"
        )
    return Contained(
        kind=kind, label=label, user=user, controller=controller, key=secret,
        password=_password(environ, places), engines=_engines(environ.get("IPYTHON_ENGINES") or "1"),
        notebooks=Path(environ.get("IPYTHON_NOTEBOOK_DIR") or places.source),
        grace=_seconds(environ, "IPYTHON_GRACE_SECONDS", GRACE_SECONDS),
    )  # fmt: skip


def make(asked: Contained, state: Path, places: Places, *, client: bool = False) -> tuple[Home, Record]:
    """Write all that the role reads, below `state`; returns where it is, and what it is made of.

    Raises:
        BuilderError: `state`, or the folder of notebooks, cannot be written.
        RepositoryError: the image has no environment.
    """
    home = Home(state / "clusters" / (asked.label or ALONE))
    try:
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _keep(home, places)
        made = _record(asked, home, places, client=client)
        if asked.key is not None:
            write_private(home.key, cluster.read_key(asked.key).hex() + "\n")
        else:
            home.key.unlink(missing_ok=True)
        if "viewer" in made.roles:
            prepare.password_for(home, asked.password)
        record.save(home, made)
        prepare.write_files(made, home)
        _link(state / "ipython", home.ipython)
    except OSError as error:
        raise BuilderError(
            f"{error.filename or state} cannot be written: {error.strerror}",
            f"give the container a writable {state.parent}, for example --tmpfs {state.parent}",
        ) from error
    return home, made


def _record(asked: Contained, home: Home, places: Places, *, client: bool) -> Record:
    python = _interpreter(places)
    environment = Environment("image", places.app_root, python)
    thin.make(environment, home.thin)
    facts = _facts(places)
    module = facts.get("serves_itself")
    engines = prepare.kept_engines(home, asked.engines) if asked.kind == "engine" and not client else 0
    may_fork = bool(facts.get("fork", True))
    return Record(
        label=asked.label or ALONE,
        user=asked.user,
        source=str(facts.get("source") or "image"),
        ref=facts.get("ref"),
        context_dir=None,
        commit=facts.get("commit"),
        checkout=str(asked.notebooks),
        in_place=True,
        notebooks=str(_notebooks(asked, places)),
        environment="image",
        environment_path=str(places.app_root),
        python=python.version,
        viewer_environment=None if module else "image",
        viewer_python=str((home.thin if module else places.tool) / "bin" / "python"),
        viewer_module=str(module or "jupyterlab"),
        viewer_host="0.0.0.0",  # noqa: S104  a container's own network
        viewer_port=cluster.VIEWER_PORT,
        first_port=cluster.FIRST_PORT,
        engines=engines,
        engines_asked=asked.engines,
        preload=tuple(facts.get("preload", ())),
        preload_timeout=float(facts.get("preload_timeout", 30.0)),
        fork=may_fork and engines > 1,  # one engine alone has nothing to share
        fork_asked=may_fork,
        roles=() if client else TYPES[asked.kind],
        controller=asked.controller,
        bind="0.0.0.0",  # noqa: S104
        curve=True,
        grace=asked.grace,
    )


def greeting(made: Record, home: Home) -> list[str]:
    """What a person should read first in the container's log."""
    lines = []
    if "viewer" in made.roles:
        lines.append(f"notebook: port {made.viewer_port}, for example http://127.0.0.1:{made.viewer_port}/")
        lines.append("password: `ipython-builder password` in this container shows it")
        if not home.key.exists():
            lines.append("cluster:  none, since there is no cluster key here")
        else:
            lines.append(f"cluster:  {made.label}, controller at {made.controller}:{made.first_port}")
        if not os.access(made.notebooks, os.W_OK):
            lines.append(f"notebooks: {made.notebooks} cannot be written to; a volume there could")
    if "engine" in made.roles:
        count = f"{made.engines} engine{'s' if made.engines > 1 else ''}"
        lines.append(f"{count} of cluster {made.label}, controller at {made.controller}:{made.first_port}")
    if "controller" in made.roles:
        last = made.first_port + cluster.PORT_COUNT - 1
        lines.append(f"controller of cluster {made.label}: ports {made.first_port} to {last}")
    return lines


# -- parts ------------------------------------------------------------------------------------------


def key(environ: Mapping[str, str], places: Places) -> bytes | None:
    """The content of the cluster key, in the order that documents promise; None where there is none (yet).

    Raises:
        UsageError: it is there and cannot be read.
    """
    named = environ.get("IPYTHON_CLUSTER_KEY_FILE")
    secrets = places.root / "run/secrets"
    files = KEY_FILES[:1] if _own_secret(environ) else KEY_FILES
    for path in [Path(named)] if named else [secrets / name for name in files]:
        try:
            if (content := path.read_bytes()).strip() or named:
                return content  # an empty file is a place for one
        except FileNotFoundError:
            if named:
                raise UsageError(
                    f"IPYTHON_CLUSTER_KEY_FILE={named}: there is no such file", "mount the key there"
                ) from None
        except OSError as error:
            raise UsageError(
                f"the cluster key {path} cannot be read: {error.strerror}",
                "mount it with group 0 and mode 0440: containers run as any user of group 0",
            ) from error
    text = environ.get("IPYTHON_CLUSTER_KEY")
    return text.encode() if text else None


def _own_secret(environ: Mapping[str, str]) -> str | None:
    """The Secret that somebody has named in a template, if it is not the platform's own."""
    named = environ.get("IPYTHON_CLUSTER_SECRET") or SERVICE_CA
    return None if named == SERVICE_CA else named


def _no_key(kind: str, environ: Mapping[str, str], places: Places) -> UsageError:
    if named := _own_secret(environ):
        return UsageError(
            f"IPYTHON_CLUSTER_SECRET={named}: there is no such Secret here, or it has no entry `key`",
            f"openssl rand -hex 32 | kubectl create secret generic {named} --from-file=key=/dev/stdin",
        )
    where = f"mount one at {places.root}run/secrets/ipython-cluster/key, or set IPYTHON_CLUSTER_KEY_FILE"
    return UsageError(f"this {kind} has no cluster key", f"{where}; {cluster.MAKE_A_KEY}")


def _password(environ: Mapping[str, str], places: Places) -> str | None:
    named = environ.get("IPYTHON_USER_PASSWORD_FILE")
    secrets = places.root / "run/secrets"
    for path in [Path(named)] if named else [secrets / name for name in PASSWORD_FILES]:
        try:
            text = path.read_text().partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, FileNotFoundError) and not named:
                continue
            raise UsageError(f"the password file {path} cannot be read: {error}") from error
        if text:
            return text
    return environ.get("IPYTHON_USER_PASSWORD") or None


def _engines(text: str) -> int:
    if text == "auto":
        return processors.count()
    if re.fullmatch(r"\d{1,6}", text) and 0 < int(text) <= cluster.MAX_ENGINES:
        return int(text)
    raise UsageError(
        f"IPYTHON_ENGINES={text}: not a number of engines", f"1 to {cluster.MAX_ENGINES:,}, or auto"
    )


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or ""
    if text and not re.fullmatch(r"\d{1,5}(\.\d+)?", text):
        raise UsageError(f"{name}={text}: not a number of seconds")
    return float(text or default)


def _interpreter(places: Places) -> Interpreter:
    """The Python of the image's environment, as its own file says; nothing is started for it."""
    python = places.app_root / "bin" / "python"
    try:
        text = (places.app_root / "pyvenv.cfg").read_text()
        version = re.search(r"^version(?:_info)? *= *(\d+\.\d+\.\d+)", text, re.MULTILINE)
        if version:
            return Interpreter(Path(os.path.realpath(python)), version[1])
    except OSError:
        pass
    raise RepositoryError(
        f"{places.app_root} holds no environment",
        "build the image FROM ipython-builder",
    )


def _facts(places: Places) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(places.facts.read_text())
    except (OSError, ValueError):
        return {}  # an image of somebody's own: nothing is imported beforehand
    return facts


def _keep(home: Home, places: Places) -> None:
    """Have what shall outlive the container in the image's state folder, if that can be written to."""
    if os.access(places.state, os.W_OK):
        _link(home.kept, places.state)
    elif not home.kept.is_dir():
        home.kept.unlink(missing_ok=True)
        home.kept.mkdir(mode=0o700)


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _notebooks(asked: Contained, places: Places) -> Path:
    """The notebooks' folder; a viewer's gets those of the image, but for what somebody has changed."""
    folder = asked.notebooks
    if folder == places.source:
        return folder
    if not folder.is_dir() and asked.kind != "viewer":
        return places.source  # the workspace is the viewer's; the image has the same modules and files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if asked.kind == "viewer":
            seeding.seed(folder, places.source)
    except OSError as error:
        raise BuilderError(
            f"IPYTHON_NOTEBOOK_DIR={folder}: {error.filename or folder} cannot be written: {error.strerror}",
            f"mount a volume at {folder} that group 0 may write to, or unset IPYTHON_NOTEBOOK_DIR",
        ) from error
    return folder
