"""What of a cluster lives in the repository's own environment.

Standard library and ipyparallel (8 or newer) only, on any Python from 3.9: engines, the controller, the
kernel's start, the launchers through which ipyparallel's own tools see the cluster, and the old name
``IPython.parallel``.
"""

__version__ = "0.1.0"
