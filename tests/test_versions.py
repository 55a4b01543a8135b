"""Engines are forked, or start by themselves, with every version of ipyparallel and ipykernel that may be there."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ipyparallel
import pytest

from tests.conftest import Cli
from tests.stand import stand
from tests.workbench import console, notebook, outputs, pid_of, until

pytestmark = pytest.mark.slow

# Python, ipyparallel, ipykernel; the first line is the oldest of all three that are allowed, and empty is the newest.
VERSIONS = [
    ("3.9", "8.0.0", "6.19.0"),
    ("3.9", "", ""),
    ("3.10", "8.2.1", "6.31.0"),
    ("3.11", "8.8.0", "6.19.4"),
    ("3.12", "9.0.0", "6.19.4"),
    ("3.13", "9.0.2", "7.0.1"),
    ("3.13", "", ""),
]
TRIED = """
import os, time
print(sorted(rc.ids), rc[:].apply_sync(pow, 2, 5))
rc[:].push({'x': 6}, block=True)
task = rc[0].apply_async(lambda: 1 / 0)
try:
    task.get(timeout=60)
except Exception as error:
    print(error.ename)
task = rc[1].apply_async(os.kill, rc[1].apply_sync(os.getpid), 9)
try:
    task.get(timeout=60)
except Exception as error:
    print(error.ename)
rc.wait_for_engines(2, timeout=60, interactive=False)
print(rc[0].pull('x', block=True), rc.load_balanced_view().map_sync(lambda n: n * n, range(5)))
"""
ANSWER = ["[0, 1] [32, 32]", "ZeroDivisionError", "EngineError", "6 [0, 1, 4, 9, 16]"]


def pool(cli: Cli) -> dict[str, object]:
    """What the supervisor says of its pool."""
    roles = cli("status", "main", "--json", check=True).json["roles"]
    found: dict[str, object] = next(one for one in roles if one["role"] == "pool")
    return found


@pytest.mark.parametrize(("python", "parallel", "kernel"), VERSIONS)
def test_engines_are_forked_and_heal(
    python: str, parallel: str, kernel: str, cli: Cli, tmp_path: Path, python_of: Callable[[str], Path]
) -> None:
    folder = tmp_path / "notebooks"
    how = "print(open('/proc/self/cmdline').read().replace(chr(0), ' '))"
    notebook(folder / "main.ipynb", how, "1 / 0")
    lines = [
        f"{name}=={version}"
        for name, version in (("ipyparallel", parallel), ("ipykernel", kernel))
        if version
    ]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    cli("up", folder, "-n", "2", "--label", "main", "--python", str(python_of(python)), check=True)
    assert pool(cli)["state"] == "ready", cli("logs", "main", "pool").stdout
    # The same command line as the pool's: a fork.
    assert "ipython_cluster.pool" in Path(f"/proc/{pid_of(cli, 'main', 'engine')}/cmdline").read_text()
    assert console(cli, "main", TRIED).split("\n") == ANSWER
    # So are notebook kernels.
    until(lambda: "preloaded in" in cli("logs", "main", "viewer").stdout, "the viewer has a pool of kernels")
    cli("run", "main", "main.ipynb", "--allow-errors", "-o", tmp_path / "done.ipynb")
    assert "ipython_cluster.kernels" in outputs(tmp_path / "done.ipynb")[0]
    assert "ZeroDivisionError" in (tmp_path / "done.ipynb").read_text()
    code = "import ipyparallel, ipykernel; print(ipyparallel.__version__, ipykernel.__version__)"
    installed = console(cli, "main", code).split()
    assert all(
        not asked or asked == there for asked, there in zip((parallel, kernel), installed, strict=True)
    )


def test_a_version_from_the_future_is_not_forked(cli: Cli, tmp_path: Path) -> None:
    """The newest there is, under a number that nobody knows yet."""
    folder = tmp_path / "notebooks"
    package = folder / "future"
    shutil.copytree(Path(ipyparallel.__file__).parent, package / "ipyparallel")
    needs = [one for one in importlib.metadata.requires("ipyparallel") or [] if "extra ==" not in one]
    (package / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
        f"[project]\nname = 'ipyparallel'\nversion = '99.0'\ndependencies = {json.dumps(needs)}\n"
        "[tool.setuptools.packages.find]\ninclude = ['ipyparallel*']\n"
    )
    notebook(folder / "main.ipynb", "import colorsys")
    (folder / "requirements.txt").write_text("./future\n")
    cli("up", folder, "-n", "2", "--label", "main", check=True)
    until(lambda: pool(cli)["state"] == "off", "the pool says that it cannot")
    assert pool(cli)["reason"] == "the pool knows ipyparallel 8 to 9, and not 99.0"
    assert "ipython_cluster.engine" in Path(f"/proc/{pid_of(cli, 'main', 'engine')}/cmdline").read_text()
    assert console(cli, "main", TRIED).split("\n") == ANSWER


def test_what_cannot_be_made_before_the_fork_is_said(tmp_path: Path) -> None:
    """A version whose inside has changed and its number has not."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ipykernel.compiler'] = None\n")
    with stand(tmp_path / "stand") as there:
        (there.folder / "pool.json").write_text(json.dumps({"preload": [], "timeout": 30}))
        there.start("pool", env={"PYTHONPATH": str(tmp_path), "IPYTHON_CLUSTER_HOME": str(there.folder)})
        until(lambda: there.facts.get(("pool", 0), {}).get("refuses"), "the pool says that it cannot")
        said = there.facts["pool", 0]["refuses"]
        assert said.startswith("ModuleNotFoundError: import of ipykernel.compiler halted")
        assert there.processes["pool", 0].wait(30) == 0
        assert "Traceback" in there.log("pool").read_text()
