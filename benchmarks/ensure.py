"""Make the environment that a folder asks for, as `up` would, and print where it is.

This is our side of `environment.py`: a whole process, as `pip install` is one. It is no benchmark itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ipython_builder import environment, settings, spec
from ipython_builder.events import Reporter


def main() -> None:
    print(environment.ensure(spec.read(Path(sys.argv[1])), settings.load(), Reporter()).path)


if __name__ == "__main__":
    main()
