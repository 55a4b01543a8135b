"""Lets ``ipyparallel.Client`` outlive its controller and share large arrays.

Nothing is imported or changed until it is imported.

A ``.pth`` file imports this at every start of Python.
"""

import sys

CLIENT = "ipyparallel.client.client"


class Finder:
    """Finds ipyparallel's client where it is, and adds to it what ``reconnect`` and ``sharing`` have."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != CLIENT:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                from ipython_cluster import reconnect, sharing

                reconnect.extend(module)
                sharing.extend(module)

            vars(spec.loader)["exec_module"] = exec_module  # this loader is this module's alone
        return spec


sys.meta_path.insert(0, Finder)
