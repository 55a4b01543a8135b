"""Notebook kernels from a pool, for every Jupyter: a kernel provisioner, and a server extension.

A kernel's specification asks for it::

    "metadata": {"kernel_provisioner": {"provisioner_name": "ipython-cluster-pool",
                                        "config": {"preload": ["numpy", "pandas"]}}}

A server that has many kernels makes a pool (see `kernel_pools`) when the first one was started the ordinary
way, or, as its extension ``ipython_cluster.provisioner``, before that. Whatever cannot come from a pool (none
is ready, other variables, arguments of its own, something was installed since) starts as before.
"""

import asyncio
import os
import string
import sys

from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Float, List, Unicode
from traitlets.log import get_logger

from ipython_cluster import kernel_pools

NAME = "ipython-cluster-pool"
STARTS = ("ipython_cluster.kernel", "ipykernel_launcher", "ipykernel")  # of kernels that can be forked
BESIDE = ("matplotlibrc", ".numba_config.yaml")  # read at an import, in the folder of that moment
AFTER_SECONDS = 1.0  # from the server's first answer: a page is loaded meanwhile


class PoolProvisioner(LocalProvisioner):
    """Kernels of this machine, forked from a pool where that can be; otherwise as `LocalProvisioner`."""

    preload = List(Unicode(), help="Modules that a kernel has imported before it starts.").tag(config=True)
    timeout = Float(30.0, help="Seconds that the import of one of them may take.").tag(config=True)

    def __init__(self, **kwargs):
        for name in kwargs.keys() - set(self.trait_names()):
            log = getattr(kwargs.get("parent"), "log", get_logger())
            log.warning("%s has no setting %r, only preload and timeout", NAME, name)
            del kwargs[name]
        super().__init__(**kwargs)

    async def launch_kernel(self, cmd, **kwargs):
        wanted = Wanted(cmd, kwargs, self.preload, self.timeout)
        if wanted.reason:
            self.log.debug("a kernel is started without a pool: %s", wanted.reason)
            return await super().launch_kernel(cmd, **kwargs)
        pool, process = kernel_pools.found(wanted), None
        if pool is not None:
            process = await asyncio.get_running_loop().run_in_executor(None, pool.fork, wanted)
        elif isinstance(getattr(self.parent, "parent", None), MultiKernelManager):
            # Only a server has a next one; and this one shall not have to share the processors.
            asyncio.get_running_loop().call_later(AFTER_SECONDS, kernel_pools.have, wanted)
        if process is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = process
        self.pid = self.pgid = process.pid
        self.cwd = wanted.cwd
        return self.connection_info


class Wanted:
    """A kernel that shall be started, as its command and its variables say.

    Attributes:
        reason: why no pool can have it, in words; None if one can.
        key: what kernels of the same pool have in common.
    """

    def __init__(self, command, kwargs, preload, timeout):
        self.argv = [str(word) for word in command]
        if self.argv[0] in ("python", "python3", "python{}.{}".format(*sys.version_info)):
            self.argv[0] = sys.executable  # as jupyter_client has it
        self.env = dict(os.environ if kwargs.get("env") is None else kwargs["env"])
        self.cwd = str(kwargs.get("cwd") or os.getcwd())
        self.preload, self.timeout = tuple(preload), timeout
        others = {name for name, value in kwargs.items() if value is not None}
        others -= {"env", "cwd", "extra_arguments", "kernel_id"}
        self.reason = None
        if "-m" not in self.argv[1:-1] or self.argv[self.argv.index("-m") + 1] not in STARTS:
            self.reason = "it is not started as an ipykernel"
        elif self.argv[self.argv.index("-m") + 2 : -1] != ["-f"]:
            self.reason = "it has arguments of its own"
        elif others:
            self.reason = "it wants " + ", ".join(sorted(others))
        elif not os.path.isdir(self.cwd):
            self.reason = "its folder is not there"
        elif not os.path.basename(self.argv[0]).startswith("python"):
            self.reason = "it is started by way of another program"
        elif not all(map(os.path.isabs, (self.env.get("PYTHONPATH") or "/").split(":"))):
            self.reason = "its modules are looked for in its own folder"
        elif any(os.path.exists(os.path.join(self.cwd, name)) for name in BESIDE):
            self.reason = "there are settings of packages in its folder"
        start = self.argv[: self.argv.index("-m")] if not self.reason else self.argv
        self.start = tuple(start)
        self.variables = {name: value for name, value in self.env.items() if not name.startswith("JPY_")}
        self.key = self.start, self.preload, timeout, frozenset(self.variables.items())


# -- the extension ---------------------------------------------------------------------------------------


def _jupyter_server_extension_points():
    return [{"module": __name__}]


def _load_jupyter_server_extension(app):
    app.io_loop.call_later(AFTER_SECONDS, warm, app.kernel_spec_manager)


def warm(manager):
    """Make the pools for all kernels of this Jupyter that want one."""
    for name in manager.find_kernel_specs():
        try:
            spec = manager.get_kernel_spec(name)
        except Exception as error:
            get_logger().debug("no pool for %s: %s", name, error)
            continue
        stanza = spec.metadata.get("kernel_provisioner", {})
        if stanza.get("provisioner_name") != NAME:
            continue
        config = stanza.get("config", {})
        env = {name: string.Template(value).safe_substitute(os.environ) for name, value in spec.env.items()}
        env = {**os.environ, **env}
        wanted = Wanted(spec.argv, {"env": env}, config.get("preload", ()), config.get("timeout", 30.0))
        if not wanted.reason:
            kernel_pools.have(wanted)
