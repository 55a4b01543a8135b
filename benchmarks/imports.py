"""The first import of a notebook's libraries on eight engines, against those of `ipcluster start`.

The time is that of one call which imports numpy, pandas, scipy.stats and matplotlib.pyplot on all engines,
from a client in their environment that has already spoken to each. The engines are new in every run. Ours
have imported what the notebook beside them names before they were forked. Bar: at most 0.05 of the time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import common
import engines
import start

from ipython_builder import processes

MODULES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy.stats": "scipy",
    "matplotlib.pyplot": "matplotlib",
}  # module -> what is installed for it
QUICK = {"tabulate": "tabulate"}
PROBE = """
import os, sys, time
import ipyparallel as ipp

def load(names):
    import importlib
    for name in names:
        importlib.import_module(name)

file, count, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
while not os.path.exists(file):
    time.sleep(0.05)
client = ipp.Client(file, timeout=120)
client.wait_for_engines(count, timeout=300)
client[:].apply_sync(load, ["json"])
began = time.monotonic()
client[:].apply_sync(load, names)
print(time.monotonic() - began)
"""


class Stock(start.ByHand):
    """`ipcluster start` in an ordinary virtual environment with the libraries."""

    def __init__(self, work: Path, count: int, modules: dict[str, str]) -> None:
        super().__init__(work, count)
        self.modules = modules
        self.packages = ("ipyparallel", *modules.values())

    def start(self) -> float:
        self.starts += 1
        home = self.work / f"by-hand-{self.starts}"
        notebooks = home / "notebooks"
        notebooks.mkdir(parents=True)
        env = self.env | {"HOME": str(home), "IPYTHONDIR": str(home / "ipython")}
        connection = home / "ipython" / "profile_default" / "security" / "ipcontroller-client.json"
        words = ["ipcluster", "start", "-n", str(self.count)]
        with engines.swept(home), start.started(words, env | {processes.MARK: str(home)}, notebooks):
            return probe(self.venv / "bin" / "python", connection, self.count, self.modules, env)


class Ours(start.Ours):
    """`ipython-builder up` in a folder whose notebook imports the libraries."""

    def __init__(self, work: Path, count: int, modules: dict[str, str]) -> None:
        super().__init__(work, count)
        self.modules = modules
        (self.folder / "requirements.txt").write_text("".join(f"{line}\n" for line in modules.values()))
        cell = {
            "cell_type": "code", "execution_count": None, "id": "imports", "metadata": {}, "outputs": [],
            "source": "".join(f"import {name}\n" for name in modules),
        }  # fmt: skip
        notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / "analysis.ipynb").write_text(json.dumps(notebook))

    def start(self) -> float:
        up = self.tool("up", self.folder, "-n", str(self.count), "--label", "bench", "--json")
        with engines.swept(self.security.parents[2]):
            try:
                made: dict[str, Any] = json.loads(engines.interruptible(up, self.env))
                python = Path(made["environment"]["path"], "bin", "python")
                connection = self.security / "ipcontroller-client.json"
                return probe(python, connection, self.count, self.modules, self.env)
            finally:
                self.down()


def probe(python: Path, connection: Path, count: int, modules: dict[str, str], env: dict[str, str]) -> float:
    """Seconds that the first import takes on all engines."""
    words: list[str | os.PathLike[str]] = [python, "-c", PROBE, connection, str(count), *modules]
    return float(common.run(words, env=env))


def main() -> None:
    parser = common.parser(__doc__)
    options = parser.parse_args()
    count, modules = (2, QUICK) if options.quick else (8, MODULES)
    with common.workplace(options.work) as work:
        peer, ours = Stock(work, count, modules), Ours(work, count, modules)
        peer.install()
        ours.install()
        if not options.quick:  # neither pays for a first time
            peer.start()
            ours.start()
        seconds = common.take_turns(options.runs, peer.start, ours.start)
    case = common.Case(
        f"first import, {count} engines", *seconds, "at most 0.05 of the time", lambda case: case.ratio >= 20
    )
    common.report(", ".join(modules), "ipcluster start", [case], options)


if __name__ == "__main__":
    main()
