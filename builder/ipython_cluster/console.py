"""An IPython with the cluster behind it: ``rc`` the client, ``view`` all engines, ``lview`` load-balanced.

Start with ``python -m ipython_cluster.console [IPython's own arguments]`` in a cluster's environment.
"""

from ipython_cluster._start import with_notebooks, without_working_folder

without_working_folder()

import os  # noqa: E402
import sys  # noqa: E402

SETUP = (
    "import ipyparallel as ipp\n"
    "rc = ipp.Client()\n"
    "view, lview = (rc[:], rc.load_balanced_view()) if rc.ids else (None, None)\n"
)


def main():
    import IPython.terminal.interactiveshell  # noqa: F401  what is imported late would meet the notebooks' modules
    from IPython import start_ipython
    from traitlets.config import Config

    with_notebooks()
    config = Config()
    config.InteractiveShellApp.exec_lines = [SETUP]
    config.TerminalInteractiveShell.banner2 = (
        "cluster {}: rc is the client, view all engines, lview load-balanced\n".format(
            os.environ.get("IPYTHON_CLUSTER_LABEL", "")
        )
    )
    start_ipython(argv=sys.argv[1:], config=config)


if __name__ == "__main__":
    main()
