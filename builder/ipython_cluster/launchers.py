"""How ``ipp.Cluster.from_file()`` and JupyterLab's panel see a cluster that a supervisor runs.

They start and stop nothing themselves; they ask the supervisor, which starts, heals and stops engines
the same way whoever asked. Registered under the name ``ipython-cluster``.
"""

import json
import os

from ipyparallel.cluster.launcher import (
    BaseLauncher,
    EngineLauncher,
    NotRunning,
)
from ipyparallel.cluster.launcher import (
    ControllerLauncher as _Controller,
)
from traitlets import Integer, Unicode

from ipython_cluster.channel import ADDRESS, connect


def ask(do, **arguments):
    """One request to the supervisor of the cluster we are in, one answer.

    Raises NotRunning where there is none.
    """
    path = os.environ.get(ADDRESS, "")
    if not path:
        raise NotRunning("IPYTHON_NODE_SOCKET is not set: not in a cluster of ipython-builder")
    try:
        with connect(path) as line:
            line.settimeout(60)
            line.sendall(json.dumps(dict(arguments, do=do)).encode() + b"\n")
            with line.makefile("rb") as reader:
                answer = json.loads(reader.readline())
    except (OSError, ValueError) as error:
        raise NotRunning("the cluster's supervisor does not answer: {}".format(error)) from error
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


class _Asked(BaseLauncher):
    """What both have in common: the state is the supervisor's, and there is one controller."""

    @property
    def connection_files(self):
        security = os.path.join(self.profile_dir, "security")
        return {
            kind: os.path.join(security, "ipcontroller-{}.json".format(kind)) for kind in ("client", "engine")
        }

    def find_args(self):
        return ["ipython-cluster"]

    @classmethod
    def from_dict(cls, d, **kwargs):
        launcher = super().from_dict(d, **kwargs)
        ask("status")
        return launcher

    async def join(self, timeout=None):
        return None

    def signal(self, sig):
        raise NotImplementedError("engines are signalled through a client: rc.send_signal(sig, targets)")


class ControllerLauncher(_Asked, _Controller):
    """The controller runs as long as the cluster does."""

    async def start(self):
        ask("status")
        return self.notify_start({"supervised": True})

    async def stop(self):
        self.log.warning("the controller belongs to the cluster: `ipython-builder down` stops it")
        if not self.cluster_id and self.parent is not None:
            # ipyparallel would remove the file by which the cluster is found, and offer to start another one
            # in the viewer's own environment: the cluster goes on, so the file stays.
            self.parent.cluster_file = ""
        return self.notify_stop({"exit_code": 0})


class EngineSetLauncher(_Asked, EngineLauncher):
    """A number of the cluster's engines."""

    n = Integer(0).tag(to_dict=True)
    engine_set_id = Unicode().tag(to_dict=True)

    async def start(self, n):
        self.n = n
        ask("scale", by=n)
        return self.notify_start({"n": n})

    async def stop(self):
        ask("scale", by=-self.n)
        return self.notify_stop({"exit_code": 0})
