"""A real repository of 2013, unchanged: no requirements file, a ``python2`` kernel, ``IPython.parallel``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli, Home
from tests.workbench import outputs

pytestmark = pytest.mark.slow

NEEDS = ("numpy", "scipy", "matplotlib", "sympy")
LECTURES = ("Lecture-2-Numpy", "Lecture-3-Scipy", "Lecture-4-Matplotlib", "Lecture-5-Sympy")
# Why a cell of 2013 cannot run today, whoever runs it; anything else would be ours.
REASONS = (
    "No module named 'version_information'",  # an extension of its author's, for Python 2
    "latex could not be found",
    "unknown file extension: .mp4",  # matplotlib has no ffmpeg here
    "has no attribute 'all_backends'",  # what matplotlib has removed since
    "'Qt4Agg' is not a valid value",
)
# `from scipy import *` no longer gives numpy's names, so one cell of this lecture takes many with it.
CASCADES = {"Lecture-3-Scipy": "NameError"}


@pytest.fixture
def bundle(shared_repos: Path) -> Path:
    path = shared_repos / "scientific-python-lectures.bundle"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def test_lectures(bundle: Path, cli: Cli, home: Home, tmp_path: Path) -> None:
    missing = {one["module"] for one in cli("check", bundle, "--json", check=True).json["missing"]}
    assert missing >= set(NEEDS), "check tells what to supply"
    supplied = [word for name in NEEDS for word in ("--with", name)]
    cli("up", bundle, "--label", "lectures", "-n", "4", *supplied, check=True)

    done = tmp_path / "done.ipynb"
    # From cell 41 on it is MPI and Python 2.
    said = cli("run", "lectures", "Lecture-6B-HPC.ipynb", "--cells", "1-40", "-o", str(done))
    assert said.rc == 0, said.stderr
    assert "[0, 1, 2, 3]" in outputs(done)

    workspace = home.settings.data_dir / "workspaces" / "lectures"
    for name in LECTURES:
        cli("run", "lectures", f"{name}.ipynb", "--allow-errors", "--timeout", "120", "-o", str(done))
        before = json.loads((workspace / f"{name}.ipynb").read_text())
        cells = [cell for cell in json.loads(done.read_text())["cells"] if cell["cell_type"] == "code"]
        was = [cell for cell in before["cells"] if cell["cell_type"] == "code"]
        unexplained = []
        ran = 0
        for cell, old in zip(cells, was, strict=True):
            errors = [o for o in cell["outputs"] if o["output_type"] == "error"]
            ran += not errors
            for error in errors:
                words = f"{error['ename']}: {error['evalue']}"
                meant = any(o["output_type"] == "error" for o in old["outputs"])  # shown on purpose
                known = [*REASONS, "SyntaxError", *filter(None, [CASCADES.get(name)])]
                if not meant and not any(reason in words for reason in known):
                    unexplained.append(f"{''.join(cell['source'])[:80]} -> {words}")
        assert not unexplained, name
        assert ran > (0.9 if name not in CASCADES else 0.3) * len(cells), name
