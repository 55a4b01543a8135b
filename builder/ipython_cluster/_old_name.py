"""``IPython.parallel``, the name until 2015, as a name of ipyparallel: old notebooks run unchanged.

A ``.pth`` file imports this at every start of Python: nothing but ``sys`` is imported until the name is asked
for.
A file inside IPython's own folder would be lost when somebody upgrades IPython in a notebook.
"""

import sys

OLD = "IPython.parallel"


class Finder:
    """Finds ``IPython.parallel`` and what is below it."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != OLD and not name.startswith(OLD + "."):
            return None
        from importlib.machinery import ModuleSpec

        # is_package, so that `import IPython.parallel.error` looks here for `error` too
        return ModuleSpec(name, Loader(), is_package=True)  # type: ignore[arg-type]


class Loader:
    """Gives the new module under the old name."""

    def create_module(self, spec):
        from importlib import import_module

        module = import_module("ipyparallel" + spec.name[len(OLD) :])
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module):
        # It has been executed under its own name; the import system has just put our spec on it.
        module.__spec__ = self.own_spec


# Last, so that an IPython which still has the name of its own (before 8) keeps it.
sys.meta_path.append(Finder)
