"""What a role finds at its start: connection files, the viewer's configuration, the kernel's specification.

All of them are derived from the record, the key and the password, so they are written anew at every start,
before any process exists.
"""

from __future__ import annotations

import functools
import json
import secrets
from pathlib import Path
from typing import Any

from ipython_builder import cluster
from ipython_builder.record import Home, Record, write_private

KERNEL = "python3"
CLUSTER_FILE = "cluster-.json"  # where ipyparallel looks for the cluster that has no name
POOL_FILE = "pool.json"  # as ipython_cluster.pool reads it
PROVISIONER = "ipython-cluster-pool"  # as ipython_cluster registers it with jupyter_client
LAUNCHER = "ipython-cluster"  # as ipython_cluster registers it with ipyparallel


def link(record: Record, home: Home) -> cluster.Link:
    """What links this cluster's roles; reads the key."""
    key = cluster.read_key(home.key.read_bytes())
    return cluster.Link(
        record.label, key, record.controller, record.first_port, bind=record.bind, curve=record.curve
    )


def secrets_for(home: Home, password: str | None) -> None:
    """See that there are a key and a password; what is there already stays unless `password` is given."""
    if not home.key.exists():
        write_private(home.key, cluster.new_key() + "\n")
    password_for(home, password)


def password_for(home: Home, password: str | None) -> None:
    """See that there is a password; a random one that is there already stays unless `password` is given."""
    if password is not None or not home.password.exists():
        write_private(home.password, (password or secrets.token_urlsafe(18)) + "\n")


def keep_engines(record: Record, home: Home) -> None:
    """Note how many engines there shall be, for a new life of this container."""
    write_private(home.scaled, json.dumps([record.engines_asked, record.engines]) + "\n")


def kept_engines(home: Home, asked: int) -> int:
    """How many engines there shall be where `asked` are: what was noted, if that was asked for then too."""
    try:
        before, count = json.loads(home.scaled.read_text())
    except (OSError, ValueError, TypeError):
        return asked
    return count if before == asked and isinstance(count, int) else asked


def write_files(record: Record, home: Home) -> None:
    """Write everything that the roles read; without a key (a viewer alone) nothing of a cluster."""
    home.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_connection(record, home)
    if "pool" in record.roles:
        write_pool(record, home)
    if "viewer" in record.roles:
        write_viewer(record, home)


def write_connection(record: Record, home: Home) -> None:
    """Write what links the roles, where there is a key."""
    if home.key.exists():
        for name, text in cluster.connection_files(link(record, home)).items():
            write_private(home.security / name, text)
        write_private(home.security / CLUSTER_FILE, json.dumps(cluster_file(record, home)) + "\n")


def write_for(role: str, record: Record, home: Home) -> None:
    """Write what this role reads, for its next start: somebody may have removed it since the last one."""
    write_connection(record, home)
    if role == "viewer":
        write_viewer(record, home)
    elif role == "pool":
        write_pool(record, home)


def write_viewer(record: Record, home: Home) -> None:
    """Write what the viewer reads at its start."""
    home.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = home.jupyter / "config"
    path = config / "jupyter_server_config.json"
    write_private(path, json.dumps(server_config(record, home, before=path), indent=1))
    write_private(config / "labconfig" / "page_config.json", json.dumps(_PAGE))
    write_private(config / "labconfig" / "default_setting_overrides.json", json.dumps(_SETTINGS))
    write_private(
        home.jupyter / "data" / "kernels" / KERNEL / "kernel.json",
        json.dumps(kernel_spec(record, home), indent=1),
    )


def write_pool(record: Record, home: Home) -> None:
    """Write what the engine pool reads at its start."""
    preload, timeout, _ = record.pool()
    text = json.dumps({"preload": preload, "timeout": timeout})
    write_private(home.path / POOL_FILE, text + "\n")


@functools.lru_cache(maxsize=1)  # a tenth of a second, on purpose; a start asks twice
def _hashed(password: str, before: Path | None) -> str:
    """The password's hash: the one of `before` where it is right, so that the file stays as it is."""
    from argon2 import PasswordHasher
    from argon2.exceptions import Argon2Error, InvalidHashError

    # The parameters jupyter_server itself uses; its check reads them from the hash.
    hasher = PasswordHasher(memory_cost=10240, time_cost=10, parallelism=8)
    try:
        there = json.loads(before.read_text()) if before else {}
        hashed = str(there["PasswordIdentityProvider"]["hashed_password"])
        hasher.verify(hashed.partition(":")[2], password)
    except (OSError, ValueError, KeyError, TypeError, Argon2Error, InvalidHashError):
        return "argon2:" + hasher.hash(password)
    return hashed


def server_config(record: Record, home: Home, before: Path | None = None) -> dict[str, Any]:
    """The viewer's configuration; of the password it holds only a hash, that of `before` if it is right."""
    hashed = _hashed(home.password.read_text().strip(), before)
    return {
        "ServerApp": {
            "ip": record.viewer_host,
            "port": record.viewer_port,
            "port_retries": 0,
            "open_browser": False,
            "root_dir": record.notebooks,
            "allow_root": True,
            "jpserver_extensions": {"ipython_cluster.provisioner": record.fork},
        },
        # What the extension manager would install would go into an environment that others share.
        "LabApp": {"extension_manager": "readonly"},
        "IdentityProvider": {"token": ""},
        "PasswordIdentityProvider": {"hashed_password": hashed, "allow_password_change": False, "token": ""},
        # The viewer's own Python is not a kernel: only the repository's is.
        "KernelSpecManager": {"ensure_native_kernel": False},
        "MultiKernelManager": {"default_kernel_name": KERNEL},
        # A cell that prints much is slow to show, but its output is not thrown away.
        "ZMQChannelsWebsocketConnection": {"limit_rate": False},
        # What the cluster panel starts are engines of this cluster, not of the viewer's own environment.
        "Cluster": {"controller_launcher_class": LAUNCHER, "engine_launcher_class": LAUNCHER},
    }


# No question about news, no question about updates: the version is ours.
_PAGE = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
# There is one kernel, the repository's: a notebook that names another one (``python2``) asks nobody.
_SETTINGS = {"@jupyterlab/notebook-extension:tracker": {"autoStartDefaultKernel": True}}


def kernel_spec(record: Record, home: Home) -> dict[str, Any]:
    """The one kernel: the repository's Python."""
    python = str(home.thin / "bin" / "python")
    return {
        "argv": [python, "-m", "ipython_cluster.kernel", "-f", "{connection_file}"],
        "display_name": f"Python {record.python} ({Path(record.notebooks).name})",
        "language": "python",
        "metadata": {"debugger": True} | _provisioner(record),
    }


def _provisioner(record: Record) -> dict[str, Any]:
    """That kernels are forked like engines, where these are."""
    preload, timeout, fork = record.pool()
    if not fork:
        return {}
    config = {"preload": preload, "timeout": timeout}
    return {"kernel_provisioner": {"provisioner_name": PROVISIONER, "config": config}}


def cluster_file(record: Record, home: Home) -> dict[str, Any]:
    """What ``ipp.Cluster.from_file()`` and JupyterLab's cluster panel read: our launchers and their needs."""
    state = {"state": "running", "profile_dir": str(home.ipython / "profile_default"), "cluster_id": ""}
    return {
        "cluster": {
            "class": "ipyparallel.cluster.cluster.Cluster",
            "cluster_id": "",
            "profile_dir": state["profile_dir"],
        },
        "controller": {"class": LAUNCHER, "state": state},
        "engines": {
            "class": LAUNCHER,
            "sets": {"engines": state | {"n": record.engines, "engine_set_id": "engines"}},
        },
    }
