"""A real repository of 2013, unchanged: no requirements file, a ``python2`` kernel, ``IPython.parallel``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.workbench import outputs

pytestmark = pytest.mark.slow

NEEDS = ("numpy", "scipy", "matplotlib", "sympy")
# Cells of lectures 2 to 5 that are not Python 3 (print statements), or that name what numpy, scipy, matplotlib
# and sympy have removed since; found by running them. Everything else must run.
OLD = {
    "Lecture-2-Numpy.ipynb": set(),
    "Lecture-3-Scipy.ipynb": set(),
    "Lecture-4-Matplotlib.ipynb": set(),
    "Lecture-5-Sympy.ipynb": set(),
}


@pytest.fixture
def bundle(shared_repos: Path) -> Path:
    path = shared_repos / "scientific-python-lectures.bundle"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def test_lectures(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    missing = {one["module"] for one in cli("check", bundle, "--json", check=True).json["missing"]}
    assert missing >= set(NEEDS), "check tells what to supply"
    supplied = [word for name in NEEDS for word in ("--with", name)]
    cli("up", bundle, "--label", "lectures", "-n", "4", *supplied, check=True)

    done = tmp_path / "done.ipynb"
    # From cell 41 on it is MPI and Python 2.
    said = cli("run", "lectures", "Lecture-6B-HPC.ipynb", "--cells", "1-40", "-o", str(done))
    assert said.rc == 0, said.stderr
    assert "[0, 1, 2, 3]" in outputs(done)

    for name, old in OLD.items():
        said = cli("run", "lectures", name, "--allow-errors", "--timeout", "120", "-o", str(done))
        cells = json.loads(done.read_text())["cells"]
        failed = {
            position
            for position, cell in enumerate(cells, 1)
            if any(output["output_type"] == "error" for output in cell.get("outputs", []))
        }
        assert failed == old, said.stderr
