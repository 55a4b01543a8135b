"""A cluster's own environment over a shared one, with the real pip."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ipython_builder import environment, thin
from ipython_builder.environment import Environment
from tests.conftest import CACHE
from tests.packages import Made, python
from tests.workbench import wheel

pytestmark = pytest.mark.slow


def pip(path: Path, *words: str | Path) -> str:
    """What pip says in a thin environment, which it is not to reach an index from."""
    done = subprocess.run(
        [path / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))},
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def shared(make: Made) -> Environment:
    """An environment with six, tabulate and a package whose .pth file matters."""
    folder = make.root / "wheels"
    folder.mkdir()
    wheel(folder, "ipbdemo", "1.0", ipbdemo="v = 1\n")
    return make("--find-links ./wheels\nsix==1.16.0\ntabulate\nipbdemo\n")


def state(env: Environment) -> list[tuple[str, int]]:
    """Everything in an environment and when it was changed; Python may write no bytecode there either."""
    return sorted((str(path), path.lstat().st_mtime_ns) for path in env.path.rglob("*"))


def test_it_is_the_shared_one_until_something_is_installed(shared: Environment, tmp_path: Path) -> None:
    before = state(shared)
    thin.make(shared, tmp_path / "env")
    code = "import sys, six; print(sys.prefix, six.__file__)"
    assert python(tmp_path / "env", code) == f"{tmp_path}/env {shared.site_packages}/six.py"
    assert "Requirement already satisfied: six" in pip(tmp_path / "env", "install", "--no-index", "six")
    assert python(tmp_path / "env", "import IPython.parallel as p; print(p.Client.__name__)") == "Client"
    assert state(shared) == before


def test_what_is_installed_lands_in_it_and_not_below(shared: Environment, tmp_path: Path) -> None:
    before = state(shared)
    path = tmp_path / "env"
    thin.make(shared, path)
    new = wheel(tmp_path, "ipbnew", "1.0", ipbnew="v = 'new'\n")
    pip(path, "install", "--no-index", new)
    assert python(path, "import ipbnew; print(ipbnew.__file__)").startswith(f"{path}/")
    assert state(shared) == before


def test_an_upgrade_shadows_and_leaves_the_lower_one_alone(shared: Environment, tmp_path: Path) -> None:
    before = state(shared)
    path = tmp_path / "env"
    thin.make(shared, path)
    pip(path, "install", "--no-index", wheel(tmp_path, "ipbdemo", "2.0", ipbdemo="v = 2\n"))
    code = "import ipbdemo, importlib.metadata as m; print(ipbdemo.v, m.version('ipbdemo'))"
    assert python(path, code) == "2 2.0"
    assert python(shared, code) == "1 1.0"
    # Taken off again, what is below comes back.
    pip(path, "uninstall", "-y", "ipbdemo")
    assert python(path, code) == "1 1.0"
    assert state(shared) == before


def test_two_do_not_see_each_other(shared: Environment, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "env", tmp_path / "two" / "env"
    thin.make(shared, one)
    thin.make(shared, two)
    pip(one, "install", "--no-index", wheel(tmp_path, "ipbnew", "1.0", ipbnew="v = 1\n"))
    assert python(one, "import ipbnew; print(ipbnew.v)") == "1"
    assert "ModuleNotFoundError" in python(two, "import ipbnew", check=False)
    assert "ipbnew" not in pip(two, "list")


def test_scripts_run_in_it(shared: Environment, tmp_path: Path) -> None:
    path = tmp_path / "env"
    thin.make(shared, path)
    for name in ("pip", "ipython", "ipengine", "tabulate"):
        script = path / "bin" / name
        assert os.access(script, os.X_OK)
        assert str(shared.path) not in script.read_text()
    said = subprocess.run(
        [path / "bin" / "pip", "--version"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert "pip" in said.stdout
    pip(path, "install", "--no-index", wheel(tmp_path, "ipbnew", "1.0", ipbnew="v = 1\n"))
    ipython = subprocess.run(
        [path / "bin" / "ipython", "-c", "import sys, ipbnew; print(sys.prefix)"],
        capture_output=True, text=True, check=True, cwd="/", env=os.environ | {"IPYTHONDIR": str(tmp_path / "i")},
    )  # fmt: skip
    assert ipython.stdout.strip().endswith(str(path))


@pytest.mark.parametrize("name", ["a folder of mine", "it's mine", "x" * 200])
def test_a_path_that_no_first_line_of_a_script_can_hold(make: Made, tmp_path: Path, name: str) -> None:
    """A `#!` line takes no space and no more than 127 bytes everywhere; the scripts must work all the same."""
    with tempfile.TemporaryDirectory(prefix="s") as short:
        (Path(short) / "bytecode").symlink_to(CACHE / "bytecode")
        shared = make("six==1.16.0\n", settings=make.settings.with_flags(cache_dir=Path(short)))
        assert (shared.bin / "pip").read_text().startswith(f"#!{shared.path}/bin/python")
        path = tmp_path / name / "env"
        thin.make(shared, path)
        done = subprocess.run([path / "bin" / "pip", "--version"], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr
        assert python(path, "import six, sys; print(six.__version__, sys.prefix)") == f"1.16.0 {path}"
        environment.remove(shared.path)


def test_put_over_another_environment_it_keeps_what_was_installed(
    shared: Environment, make: Made, tmp_path: Path
) -> None:
    path = tmp_path / "env"
    thin.make(shared, path)
    pip(path, "install", "--no-index", wheel(tmp_path, "ipbnew", "1.0", ipbnew="v = 1\n"))
    (path / "bin" / "mine").write_text("#!/bin/sh\necho mine\n")
    other = make("six==1.15.0\n")
    thin.make(other, path)
    assert python(path, "import six, ipbnew; print(six.__version__, ipbnew.v)") == "1.15.0 1"
    assert "ModuleNotFoundError" in python(path, "import tabulate", check=False)
    # A script of what is no longer below is gone, a script of the user's is not.
    assert not (path / "bin" / "tabulate").exists()
    assert (path / "bin" / "mine").exists()
    assert str(shared.path) not in (path / "bin" / "pip").read_text()
    thin.make(shared, path)
    assert (path / "bin" / "tabulate").exists()


def test_a_script_that_the_user_upgraded_stays_the_users(shared: Environment, tmp_path: Path) -> None:
    path = tmp_path / "env"
    thin.make(shared, path)
    (path / "bin" / "tabulate").write_text("#!/bin/sh\necho newer\n")
    thin.make(shared, path)
    assert (path / "bin" / "tabulate").read_text() == "#!/bin/sh\necho newer\n"


def test_for_another_python_it_is_made_anew(
    shared: Environment, make: Made, tmp_path: Path, python_of: Callable[[str], Path]
) -> None:
    version = "3.11" if sys.version_info[:2] != (3, 11) else "3.12"
    python_of(version)
    path = tmp_path / "env"
    thin.make(shared, path)
    pip(path, "install", "--no-index", wheel(tmp_path, "ipbnew", "1.0", ipbnew="v = 1\n"))
    (make.root / ".python-version").write_text(f"{version}\n")
    other = make("six==1.16.0\n")
    thin.make(other, path)
    assert python(path, "import sys; print('%d.%d' % sys.version_info[:2])") == version
    assert "ModuleNotFoundError" in python(path, "import ipbnew", check=False)
    assert [folder.name for folder in (path / "lib").iterdir()] == [f"python{version}"]


def test_it_is_no_environment_that_could_be_pruned(shared: Environment, make: Made, tmp_path: Path) -> None:
    thin.make(shared, tmp_path / "env")
    environment.remove(tmp_path / "env")
    assert python(shared, "import six; print(six.__version__)") == "1.16.0"
