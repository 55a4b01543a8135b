"""The viewer: JupyterLab (or the repository's Notebook), without what its first page does not need.

Start with ``python -m ipython_cluster.viewer jupyterlab``; everything else comes from ``JUPYTER_CONFIG_DIR``.
"""

from ipython_cluster._start import without_working_folder

without_working_folder()

import importlib  # noqa: E402
import runpy  # noqa: E402
import sys  # noqa: E402


def main():
    module = sys.argv[1] if len(sys.argv) > 1 else "jupyterlab"
    # jsonschema takes it as absent then; importing it compiles grammars for half a second, to check
    # internationalised addresses that no schema of the viewer has.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    without_pages_for_a_browser()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def without_pages_for_a_browser():
    """They forward a browser that a server opens, and ours opens none: no reason to end on a full disk."""
    try:
        server = importlib.import_module("jupyter_server.serverapp")
    except ImportError:
        return  # a Notebook from before there was a Jupyter Server
    server.ServerApp.write_browser_open_files = lambda self: None


if __name__ == "__main__":
    main()
