"""The viewer: JupyterLab (or the repository's Notebook), without what its first page does not need.

Start with ``python -m ipython_cluster.viewer jupyterlab``; everything else comes from ``JUPYTER_CONFIG_DIR``.
Nothing on disk is changed, and what a version has not, or has otherwise, is left as it is.
"""

from ipython_cluster._start import without_working_folder

without_working_folder()

import importlib  # noqa: E402
import runpy  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

# Server extensions that the first page does not ask: they come right after it.
LATER = ("ipyparallel", "ipython_cluster.provisioner", "jupyter_lsp", "notebook_shim")
LATER_SECONDS = 1.0  # in which a page may have been asked for
# What jsonschema takes as absent then: they check what no schema of the viewer has, international addresses
# and durations, and need half a second, since one compiles grammars at its import.
ABSENT = ("isoduration", "rfc3987_syntax")


def main():
    module = sys.argv[1] if len(sys.argv) > 1 else "jupyterlab"
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
    try:
        server = importlib.import_module("jupyter_server.serverapp")
    except ImportError:
        pass  # a Notebook from before there was a Jupyter Server
    else:
        without_pages_for_a_browser(server.ServerApp)
        extensions_after_the_first_page(server.ServerApp)
    if module == "jupyterlab":
        without_node()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def without_node():
    """JupyterLab asks yarn for its settings at every start, if there is a node: 0.3 s, for builds alone."""
    commands: Any = importlib.import_module("jupyterlab.commands")
    if hasattr(commands, "_yarn_config"):
        commands._yarn_config = lambda logger: {"yarn config": {}, "npm config": {}}


def without_pages_for_a_browser(server):
    """They forward a browser that a server opens, and ours opens none: no reason to end on a full disk."""
    server.write_browser_open_files = lambda self: None


def extensions_after_the_first_page(server):
    """Keep the extensions in `LATER` for the time after the first page was asked for, or could have been."""
    find, start = server.find_server_extensions, server.start_ioloop

    def find_server_extensions(self):
        find(self)
        self.later = [name for name in LATER if self.jpserver_extensions.get(name)]
        self.jpserver_extensions = {
            name: enabled for name, enabled in self.jpserver_extensions.items() if name not in LATER
        }

    def start_ioloop(self):
        self.io_loop.call_later(LATER_SECONDS, load, self)
        log = self.web_app.log_request

        def log_request(handler):
            log(handler)
            if handler.get_status() == 200:  # not what sends to the login page
                self.io_loop.add_callback(load, self)

        self.web_app.log_request = log_request
        start(self)

    async def load(self):
        names, self.later = self.later, ()
        if not names:
            return
        del self.web_app.log_request  # once is enough
        manager = self.extension_manager
        there = set(manager.extensions)
        for name in names:
            if manager.add_extension(name, enabled=True):
                manager.link_extension(name)
        for name in manager.sorted_extensions:  # some bring others
            if name not in there:
                manager.load_extension(name)
                if hasattr(manager, "start_extension"):
                    await manager.start_extension(name)

    server.find_server_extensions, server.start_ioloop = find_server_extensions, start_ioloop


if __name__ == "__main__":
    main()
