"""The parts of a cluster in containers: their names and command lines. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipython_builder import cluster, seeding
from ipython_builder.places import Places
from ipython_builder.platforms.containers import Kind
from ipython_builder.platforms.elsewhere import Elsewhere

STOP_SECONDS = 30  # an engine may finish its task
# What a container may do: what OpenShift's restricted-v2 lets it do.
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
KINDS = ("controller", "viewer", "engine")
_AT = Places()


@dataclass(frozen=True)
class Names:
    """What a cluster's things are called."""

    label: str
    user: str

    @property
    def controller(self) -> str:
        return f"ipcontroller-{self.label}"

    @property
    def viewer(self) -> str:
        return f"nbviewer-{self.user}-{self.label}"

    @property
    def engine(self) -> str:
        """One container with all engines: they share what notebooks import, and any number of them can leave
        or come without a word to the others. Its own `scale` does that."""
        return f"ipengine-{self.label}"

    @property
    def network(self) -> str:
        return f"ipython-{self.label}"

    @property
    def workspace(self) -> str:
        return f"ipython-{self.label}-workspace"

    @property
    def key(self) -> str:
        return f"ipython-{self.label}-key"

    @property
    def password(self) -> str:
        return f"ipython-{self.label}-password"

    def state(self, kind: str) -> str:
        """The volume of what outlives a container of this kind."""
        return f"ipython-{self.label}-{kind}"

    def of(self, kind: str) -> str:
        return {"controller": self.controller, "viewer": self.viewer, "engine": self.engine}[kind]


@dataclass(frozen=True)
class Address:
    """Where the controller is, whenever it is started, in a network whose names may fail.

    With another hardware address, what others remember of the IP address would be wrong for half a minute.
    """

    ip: str
    mac: str

    @classmethod
    def last_of(cls, network: Mapping[str, Any]) -> Address | None:
        """The last address of a network as podman describes it; it gives others away from the first on."""
        for one in network.get("subnets") or []:
            subnet = ipaddress.ip_network(one["subnet"])
            if isinstance(subnet, ipaddress.IPv4Network) and subnet.num_addresses >= 8:
                ip = subnet.broadcast_address - 1
                return cls(str(ip), "02:69:" + ip.packed.hex(":"))  # 02: nobody's hardware
        return None


def mark(label: str) -> str:
    """The label on everything that belongs to a cluster."""
    return f"ipython-cluster={label}"


def image(label: str) -> str:
    return f"localhost/ipython-builder/{label}:latest"


def labels(made: Elsewhere, role: str) -> list[str]:
    """Options that say what a thing is, and of what."""
    said = {
        "ipython-cluster": made.label,
        "ipython-user": made.user,
        "ipython-role": role,
        "ipython-source": made.source,
        "ipython-commit": made.commit,
        "ipython-image": made.image,
    }
    return [word for name, value in said.items() if value for word in ("--label", f"{name}={value}")]


def container(
    made: Elsewhere, kind: str, engine: Kind, secrets: Sequence[str], address: Address | None = None
) -> list[str]:
    """The command line that starts a part.

    Args:
        kind: controller, viewer or engine.
        secrets: which of "key" and "password" there are.
        address: the controller's, if it has a fixed one.
    """
    names = Names(made.label, made.user)
    argv = ["run", "--detach", "--name", names.of(kind), "--network", names.network, *labels(made, kind)]
    argv += [*CONFINED, "--restart=unless-stopped", f"--stop-timeout={STOP_SECONDS}", "--shm-size=1g"]
    argv += [word for folder in engine.tmpfs for word in ("--tmpfs", folder)]
    if address and kind == "controller":
        argv += ["--ip", address.ip, "--mac-address", address.mac]
    elif address:
        argv += ["--add-host", f"{names.controller}:{address.ip}"]
    said = {
        "IPYTHON_CONTAINER_TYPE": kind,
        "IPYTHON_CLUSTER_LABEL": made.label,
        "IPYTHON_USER_LABEL": made.user,
    }
    if kind == "engine":
        said["IPYTHON_ENGINES"] = str(made.engines)
    argv += [word for name, value in said.items() for word in ("--env", f"{name}={value}")]
    for secret in secrets if kind == "viewer" else [one for one in secrets if one == "key"]:
        argv += mount(names, secret, engine)
    if kind != "controller":
        # Engines see the files that notebooks see, as they do in a cluster of processes.
        argv += ["--volume", f"{names.workspace}:{_AT.source}"]
        argv += ["--volume", f"{names.state(kind)}:{_AT.state}"]
    if kind == "viewer":
        host = f"[{made.host}]" if ":" in made.host else made.host
        argv += ["--publish", f"{host}:{made.port}:{cluster.VIEWER_PORT}"]
    return [*argv, made.image]


def mount(names: Names, secret: str, engine: Kind) -> list[str]:
    """Options that show a secret to any user of group 0, and to nobody else."""
    thing = names.key if secret == "key" else names.password  # noqa: S105
    if engine.secrets:
        file = "ipython-cluster-key" if secret == "key" else "ipython-user-password"  # noqa: S105
        return ["--secret", f"{thing},target=/run/secrets/{file},uid=0,gid=0,mode=0440"]
    return ["--volume", f"{thing}:{folder(secret)}:ro"]


def folder(secret: str) -> str:
    """Where the volume of a secret is mounted; its file has the secret's name."""
    return f"/run/secrets/{'ipython-cluster' if secret == 'key' else 'ipython-user'}"  # noqa: S105


def filling(names: Names, secret: str, image: str) -> list[str]:
    """The command line that writes what it reads into the volume of a secret."""
    thing = names.key if secret == "key" else names.password  # noqa: S105
    path = f"{folder(secret)}/{secret}"
    argv = ["run", "--rm", "--interactive", "--user=0:0", "--network=none", "--entrypoint=/bin/sh"]
    argv += ["--label", mark(names.label), "--cap-drop=ALL", "--volume", f"{thing}:{folder(secret)}"]
    return [*argv, image, "-c", f"rm -f {path}; umask 0337; cat > {path}"]


# Prints what of the workspace is not as the image has it; what programs make by themselves does not count.
_CHANGES = """
import filecmp, json, os
found = []
for folder, below, files in os.walk("/workspace"):
    below[:] = [one for one in below if one not in (".ipynb_checkpoints", "__pycache__")]
    for name in files:
        path = os.path.join(folder, name)
        relative = os.path.relpath(path, "/workspace")
        if relative == "NOTE":
            continue
        there = os.path.join("SOURCE", relative)
        if os.path.islink(path) or os.path.islink(there):
            same = os.path.islink(path) and os.path.islink(there) and os.readlink(path) == os.readlink(there)
        else:
            same = os.path.isfile(there) and filecmp.cmp(path, there, shallow=False)
        if not same:
            found.append(relative)
print(json.dumps(sorted(found)))
"""


def changes(label: str, user: str, image: str) -> list[str]:
    """The command line that prints, as JSON, which files of the workspace somebody has made or changed."""
    program = _CHANGES.replace("SOURCE", str(_AT.source)).replace("NOTE", seeding.NOTE)
    argv = ["run", "--rm", "--network=none", "--entrypoint=/usr/bin/python3", "--label", mark(label)]
    argv += ["--cap-drop=ALL", "--volume", f"{Names(label, user).workspace}:/workspace:ro"]
    return [*argv, image, "-I", "-c", program]
