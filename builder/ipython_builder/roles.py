"""The roles of a cluster in one table: how each is started, and when it counts as ready.

The supervisor knows nothing of notebooks or engines; it reads this table. A new role is a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipython_builder.record import Home, Record

# Of the caller's environment these would lead a role astray (another environment's paths, another server's
# settings) or are secrets of the cluster that no role needs there.
_DROPPED_PREFIXES = ("PYTHON", "JUPYTER", "IPP_", "IPYTHON", "VIRTUAL_ENV", "CONDA_")


@dataclass(frozen=True)
class Role:
    """One row.

    Attributes:
        argv: the command for a member (an engine: by the id that it asks for, if any); no secret in it, since
            every user of a machine can read it.
        ready: ``channel``: the role says so itself; ``http``: its port answers.
        grace: seconds between SIGTERM and SIGKILL.
    """

    name: str
    argv: Callable[[Record, Home, int | None], list[str]]
    ready: Literal["channel", "http"]
    grace: float


def _viewer(record: Record, home: Home, member: int | None) -> list[str]:
    return [record.viewer_python, "-m", "ipython_cluster.viewer", record.viewer_module]


def _controller(record: Record, home: Home, member: int | None) -> list[str]:
    return [str(home.thin / "bin" / "python"), "-m", "ipython_cluster.controller"]


def _pool(record: Record, home: Home, member: int | None) -> list[str]:
    return [str(home.thin / "bin" / "python"), "-m", "ipython_cluster.pool"]


def _engine(record: Record, home: Home, member: int | None) -> list[str]:
    wish = [] if member is None else [str(member)]
    return [str(home.thin / "bin" / "python"), "-m", "ipython_cluster.engine", *wish]


ROLES = {
    "controller": Role("controller", _controller, "channel", grace=2.0),
    "viewer": Role("viewer", _viewer, "http", grace=10.0),
    "pool": Role("pool", _pool, "channel", grace=1.0),
    "engine": Role("engine", _engine, "channel", grace=5.0),
}


def environ(record: Record, home: Home, caller: Mapping[str, str]) -> dict[str, str]:
    """The environment of every role, and of a console: the caller's own, with the cluster's paths first.

    The same for all, so that ``ipp.Client()``, ``%pip`` and ``!python`` mean the same thing
    wherever they are typed.
    """
    result = {name: value for name, value in caller.items() if not name.startswith(_DROPPED_PREFIXES)}
    below = Path(record.environment_path)
    bins = [str(home.thin / "bin"), str(below / "bin")]
    result["PATH"] = ":".join([*bins, caller.get("PATH", "/usr/local/bin:/usr/bin:/bin")])
    result |= {
        "VIRTUAL_ENV": str(home.thin),
        "IPYTHONDIR": str(home.ipython),
        "IPYTHON_CLUSTER_LABEL": record.label,
        "IPYTHON_USER_LABEL": record.user,
        "IPYTHON_NOTEBOOK_DIR": record.notebooks,
        "IPYTHON_NODE_SOCKET": str(home.socket),
        # Also the mark by which `down` finds whatever a notebook or a terminal started.
        "IPYTHON_CLUSTER_HOME": str(home.path),
        "JUPYTER_CONFIG_DIR": str(home.jupyter / "config"),
        "JUPYTER_DATA_DIR": str(home.jupyter / "data"),
        "JUPYTER_RUNTIME_DIR": str(home.runtime),
        # Our kernel first, then what the repository's packages bring: lab extensions, widgets, other kernels.
        "JUPYTER_PATH": ":".join(str(p) for p in (home.jupyter / "data", home.thin / "share/jupyter",
                                                    below / "share/jupyter")),
        # Installing is what the thin environment is for; a user-wide site would leak between clusters.
        "PYTHONNOUSERSITE": "1",
    }  # fmt: skip
    if record.viewer_environment is None:
        # The repository's own JupyterLab looks below its prefix, and that is the thin environment.
        result["JUPYTERLAB_DIR"] = str(below / "share/jupyter/lab")
        result["JUPYTER_CONFIG_PATH"] = f"{home.thin / 'etc/jupyter'}:{below / 'etc/jupyter'}"
    if record.contained:
        result["HOME"] = str(home.kept)  # the image's own may not be writable
    return result
