"""Where one life of the node is: its folder, its addresses and the names that the machine sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NUMBERS = range(213, 229)  # one a node, so that several checkouts can have one; 10.88 and up are podman's
NODE = "node"


@dataclass(frozen=True)
class Place:
    """A life of the node.

    Attributes:
        number: tells nodes of a machine apart.
        runtime: its folder, which goes with it.
        programs: the folder of the programs of Kubernetes.
    """

    number: int
    runtime: Path
    programs: Path

    @property
    def name(self) -> str:
        """Of the link and of the control groups, all that the machine sees of a node."""
        return f"ipb-kube{self.number}"

    @property
    def network(self) -> str:
        """Everything of the node is in it; the machine has a route to it."""
        return f"10.{self.number}.0.0/16"

    @property
    def host(self) -> str:
        """The machine, as the node and its pods see it."""
        return f"10.{self.number}.0.1"

    @property
    def address(self) -> str:
        """The node. Whatever it serves is at this address."""
        return f"10.{self.number}.0.2"

    @property
    def pods(self) -> str:
        return f"10.{self.number}.1.0/24"

    @property
    def services(self) -> str:
        return f"10.{self.number}.16.0/20"

    @property
    def service(self) -> str:
        """The address of the service `kubernetes`: the first one."""
        return f"10.{self.number}.16.1"

    @property
    def logs(self) -> Path:
        return self.runtime / "logs"

    @property
    def socket(self) -> Path:
        """Of containerd."""
        return self.runtime / "containerd.sock"

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.runtime / "keys" / "admin.conf"

    @property
    def volumes(self) -> Path:
        return self.runtime / "volumes"

    @property
    def registries(self) -> Path:
        """What the node knows of registries: a folder each, by its address."""
        return self.runtime / "registries"

    @property
    def ready(self) -> Path:
        """A file that is there when the node is."""
        return self.runtime / "ready"
