"""Environments with the real uv and a real index: made once, whole or not at all, and each fault in clear words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipython_builder import environment, keys
from ipython_builder.environment import MARKER, Environment
from ipython_builder.errors import BuilderError, RepositoryError, Transient, Unavailable
from ipython_builder.events import Reporter
from ipython_builder.spec import Spec
from tests.conftest import Home, missing
from tests.packages import Kept, Made, python, refusing, sdist, served, sha256, simple_index, uv
from tests.workbench import git, wheel

pytestmark = pytest.mark.slow

SIX = "six==1.16.0"
# Of six 1.16.0, as the index has them.
SIX_HASHES = (
    "sha256:1e61c37477a1626458e36f7b1d82aa5c9b094fa4802892072e49de9c60c4c926",
    "sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254",
)
LOCKED_SIX = f"{SIX} --hash={SIX_HASHES[0]} --hash={SIX_HASHES[1]}\n"


def versions(env: Environment) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    )
    found: dict[str, str] = json.loads(python(env, code))
    return found


# -- the same, and not the same ------------------------------------------------------------------


def test_what_was_asked_for_and_what_a_cluster_needs_is_there(make: Made) -> None:
    env = make(f"{SIX}\nidna<4\n")
    assert versions(env)["six"] == "1.16.0"
    assert {"idna", "ipykernel", "ipyparallel", "pip", "ipython-cluster"} <= set(versions(env))
    assert python(env, "import six, idna, ipykernel, ipyparallel, ipython_cluster; print('ok')") == "ok"
    checked = subprocess.run(
        [uv(), "pip", "check", "--python", env.bin / "python"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert make.sink.phases == ["resolve", "install"] or make.sink.phases == ["resolve", "install", "compile"]


def test_the_same_request_needs_no_installer(make: Made) -> None:
    first = make(f"{SIX}\nidna==3.7\n")
    for same in (f"{SIX}\nidna==3.7\n", f"# a comment\nidna==3.7\n\n{SIX}\n", f"idna==3.7\n{SIX}\n{SIX}\n"):
        again = make(same)
        assert (again.key, again.path) == (first.key, first.path)
        assert make.sink.phases == []
    assert make.left == [first.key]


def test_the_same_request_needs_no_index(make: Made) -> None:
    env = make(SIX)
    offline = make.spec(SIX)
    # uv itself is not there for it: only what was noted is looked at.
    program = (
        "import sys, pickle; from ipython_builder import environment, installer; from ipython_builder.events import *\n"
        "installer.Installer.uv = property(lambda self: sys.exit('uv was asked'))\n"
        "spec, settings = pickle.load(sys.stdin.buffer)\n"
        "print(environment.ensure(spec, settings, Reporter()).key)"
    )
    import pickle

    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        input=pickle.dumps((offline, make.settings)),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == env.key


@pytest.mark.parametrize(
    "other",
    ["six==1.15.0\n", f"{SIX}\nidna==3.7\n", f"{SIX} ; python_version > '3'\n", f"--pre\n{SIX}\n",
     f"--no-binary idna\n{SIX}\n", LOCKED_SIX],
    ids=["version", "line", "marker", "pre", "option", "hash"],
)  # fmt: skip
def test_another_request_is_another_key(make: Made, other: str) -> None:
    python = environment.interpreters.find("", make.settings)
    one = keys.request(make.spec(SIX), make.settings, python)
    assert keys.request(make.spec(other), make.settings, python) != one
    assert keys.request(make.spec(SIX), make.settings, python) == one


def test_settings_that_decide_the_bytes_are_in_the_key(make: Made) -> None:
    python = environment.interpreters.find("", make.settings)
    asked = make.spec(SIX)
    one = keys.request(asked, make.settings, python)
    for changed in ({"index_url": "https://elsewhere/simple"}, {"extra_index_urls": ("https://b/simple",)}):
        assert keys.request(asked, make.settings.with_flags(**changed), python) != one
    for changed in ({"viewer_host": "::1"}, {"state_dir": Path("/s")}, {"ca_bundle": Path("/ca.pem")}):
        assert keys.request(asked, make.settings.with_flags(**changed), python) == one


def test_asking_the_index_again_changes_nothing_when_it_has_nothing_new(make: Made) -> None:
    env = make(SIX)
    assert make(SIX, upgrade=True).key == env.key
    assert make.sink.phases == ["resolve"]


PROJECT = """\
[build-system]
requires = ["flit_core>=3.11,<4"]
build-backend = "flit_core.buildapi"
[project]
name = "helpers"
version = "1.0"
description = "of a test"
"""


def test_a_local_package_is_its_content(make: Made) -> None:
    package = make.root / "helpers"
    (package / "helpers").mkdir(parents=True)
    (package / "pyproject.toml").write_text(PROJECT)
    module = package / "helpers" / "__init__.py"
    module.write_text("answer = 41\n")
    first = make("./helpers\n")
    assert python(first, "import helpers; print(helpers.answer)") == "41"
    # What builds and editors leave behind, and a later date, is not content.
    os.utime(module, (1, 1))
    (package / "build").mkdir()
    (package / "build" / "junk").write_text("x")
    (package / "helpers" / "__pycache__").mkdir()
    (package / "helpers" / "__pycache__" / "x.pyc").write_text("x")
    (package / ".git").mkdir()
    assert make("./helpers\n").key == first.key
    assert make.sink.phases == []
    module.write_text("answer = 42\n")
    second = make("./helpers\n")
    assert second.key != first.key
    assert python(second, "import helpers; print(helpers.answer)") == "42"
    assert python(first, "import helpers; print(helpers.answer)") == "41"
    # A folder called build inside the package is the package's.
    (package / "helpers" / "build").mkdir()
    (package / "helpers" / "build" / "__init__.py").write_text("deep = True\n")
    third = make("./helpers\n")
    assert python(third, "import helpers.build; print(helpers.build.deep)") == "True"


def test_building_a_package_leaves_nothing_in_its_folder(make: Made, tmp_path: Path) -> None:
    """setuptools writes build/ and *.egg-info beside what it builds."""
    (make.root / "pyproject.toml").write_text('[project]\nname = "lab"\nversion = "1"\nreadme = "READ.md"\n')
    (make.root / "READ.md").write_text("of the lab")
    (make.root / "lab.py").write_text("answer = 1\n")
    (make.root / "tools").mkdir()
    (make.root / "tools" / "tools.py").write_text("answer = 2\n")
    text = "from setuptools import setup\nsetup(name='tools', version=open('../VERSION').read(), py_modules=['tools'])"
    (make.root / "tools" / "setup.py").write_text(text)
    (make.root / "VERSION").write_text("7")
    git(make.root, "init", "-q")
    git(make.root, "add", "-A")
    git(make.root, "commit", "-qm", "one")
    made = make(".\n./tools\n")
    (make.root / "requirements.txt").unlink()
    assert git(make.root, "status", "--porcelain", "--ignored") == ""
    told = python(
        made,
        "import lab, tools; from importlib.metadata import distribution as d;"
        "print(lab.answer, tools.answer, d('tools').version, d('tools').read_text('direct_url.json'))",
    )
    assert told.startswith("1 2 7 ")
    assert json.loads(told.split(" ", 3)[3])["url"] == (make.root / "tools").as_uri()
    record = next(made.site_packages.glob("tools-7.dist-info")) / "RECORD"
    assert "direct_url.json,sha256=" in record.read_text()
    assert make(".\n./tools\n").key == made.key
    assert make.sink.phases == []
    # What a person's own `pip install -e` left is no content either.
    (make.root / "lab.egg-info").mkdir()
    (make.root / "lab.egg-info" / "PKG-INFO").write_text("x")
    assert make(".\n./tools\n").key == made.key


def test_a_build_that_fails_names_the_folder_that_it_is_of(make: Made) -> None:
    (make.root / "tools").mkdir()
    (make.root / "tools" / "setup.py").write_text("import sys; sys.exit('no compiler')")
    with pytest.raises(RepositoryError) as caught:
        make("./tools\n")
    assert "no compiler" in caught.value.message
    assert "ipython-builder-" not in caught.value.message
    assert not any("ipython-builder-" in event.message for event in make.sink.events)


def test_what_links_in_a_package_lead_to_is_content(make: Made) -> None:
    package = make.root / "helpers"
    (package / "helpers").mkdir(parents=True)
    (package / "pyproject.toml").write_text(PROJECT)
    (make.root / "shared").mkdir()
    (make.root / "shared" / "more.py").write_text("answer = 1\n")
    (make.root / "one.py").write_text("answer = 1\n")
    (package / "helpers" / "__init__.py").touch()
    (package / "helpers" / "one.py").symlink_to("../../one.py")
    (package / "helpers" / "shared").symlink_to("../../shared")
    (package / "helpers" / "round").symlink_to("..")
    before = keys.content(package)
    (make.root / "one.py").write_text("answer = 2\n")
    between = keys.content(package)
    (make.root / "shared" / "more.py").write_text("answer = 2\n")
    assert len({before, between, keys.content(package)}) == 3
    made = make("./helpers\n")
    assert python(made, "from helpers.one import answer; print(answer)") == "2"


def test_a_branch_in_a_constraint_is_looked_up_too(tmp_path: Path) -> None:
    line = "helpers @ git+https://host/helpers.git"
    assert keys.moves(Spec(tmp_path, constraints=(f"{line}@main",)))
    assert not keys.moves(Spec(tmp_path, constraints=(f"{line}@{'a' * 40}",)))


def test_a_branch_is_looked_up_each_time_and_a_commit_never(make: Made, tmp_path: Path) -> None:
    repository = tmp_path / "helpers.git"
    (repository / "helpers").mkdir(parents=True)
    (repository / "pyproject.toml").write_text(PROJECT)
    (repository / "helpers" / "__init__.py").write_text("answer = 41\n")
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    commit = git(repository, "rev-parse", "HEAD")
    branch, fixed = (f"helpers @ git+file://{repository}@{ref}\n" for ref in ("main", commit))
    first, pinned = make(branch), make(fixed)
    assert make(branch).key == first.key
    assert make.sink.phases == ["resolve"]
    assert make(fixed).key == pinned.key
    assert make.sink.phases == []
    (repository / "helpers" / "__init__.py").write_text("answer = 42\n")
    git(repository, "commit", "-qam", "two")
    second = make(branch)
    assert second.key != first.key
    assert python(second, "import helpers; print(helpers.answer)") == "42"
    assert make(fixed).key == pinned.key
    assert python(pinned, "import helpers; print(helpers.answer)") == "41"


def test_an_older_python_of_the_repositorys_wish(make: Made, python_of: Callable[[str], Path]) -> None:
    """The oldest that can be asked for: everything of ours imports there."""
    oldest = python_of("3.9")
    (make.root / ".python-version").write_text("3.9\n")
    env = make("six\n")
    assert env.python.version.startswith("3.9.")
    assert os.path.realpath(env.bin / "python") == str(oldest)
    modules = "engine, controller, kernel, launchers, console, viewer, channel"
    assert python(env, f"from ipython_cluster import {modules}; print('ok')") == "ok"


# -- whole or not at all -------------------------------------------------------------------------


def test_folders_are_read_only_and_belong_to_their_marker(make: Made) -> None:
    env = make(SIX)
    folders = [Path(folder) for folder, _, _ in os.walk(env.path)]
    assert len(folders) > 50
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o555}
    marker = json.loads((env.path / MARKER).read_text())
    assert marker["key"] == env.key
    assert marker["python"] == str(env.python.path)


def test_a_half_made_one_is_never_used(make: Made) -> None:
    env = make(SIX)
    env.path.chmod(0o755)
    (env.path / MARKER).unlink()
    (env.site_packages).chmod(0o755)
    (env.site_packages / "six.py").unlink()
    again = make(SIX)
    assert again.key == env.key
    assert "install" in make.sink.phases
    assert python(again, "import six; print(six.__version__)") == "1.16.0"


# An `ensure` in a process of its own, that says each phase as it begins.
ENSURE = """
import pickle, sys
from ipython_builder import environment
from ipython_builder.events import JsonSink, Reporter
spec, settings = pickle.load(sys.stdin.buffer)
print(environment.ensure(spec, settings, Reporter(JsonSink())).key)
"""


def ensure_elsewhere(make: Made, text: str) -> subprocess.Popen[bytes]:
    import pickle

    process = subprocess.Popen(
        [sys.executable, "-P", "-c", ENSURE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((make.spec(text), make.settings)))
    process.stdin.close()
    process.stdin = None
    return process


def test_who_is_killed_half_way_leaves_nothing_that_is_used(make: Made) -> None:
    process = ensure_elsewhere(make, SIX)
    assert process.stderr is not None
    for line in process.stderr:
        if b'"start", "phase": "install"' in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    env = make(SIX)
    assert python(env, "import six; print(six.__version__)") == "1.16.0"
    assert make.left == [env.key]


def test_two_at_once_make_one(make: Made) -> None:
    both = [ensure_elsewhere(make, SIX), ensure_elsewhere(make, SIX)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    events = [json.loads(line) for _, stderr in said for line in stderr.splitlines()]
    phases = [event["phase"] for event in events if event["kind"] == "start"]
    assert phases.count("resolve") == phases.count("install") == 1
    assert make.left == [said[0][0].decode().strip()]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("surely-no-such-distribution==1\n", RepositoryError, "surely-no-such-distribution was not found"),
        ("six==99.0\n", RepositoryError, "six==99.0"),
        ("six==1.16.0\nsix<1.15\n", RepositoryError, "six"),
        ("tornado==4.5.3\n", RepositoryError, "what a cluster needs"),
        ("traitlets==4.3.3\n", RepositoryError, "what a cluster needs"),
        (f"{SIX} --hash=sha256:{'0' * 64}\n", RepositoryError, "not the one that was locked"),
        (f"idna==3.7\n{SIX} --hash=sha256:{'0' * 64}\n", RepositoryError, "not the one that was locked"),
    ],
    ids=["no such", "no such version", "two lines", "tornado", "traitlets", "hash", "one hash of two"],
)
def test_a_fault_of_the_repository(make: Made, text: str, error: type[BuilderError], said: str) -> None:
    with pytest.raises(error) as caught:
        make(text)
    assert caught.value.exit_code == 3
    assert said in caught.value.message
    assert "requirements.txt" in caught.value.message
    assert caught.value.hint
    assert make.left == []


@pytest.mark.parametrize(("line", "name"), [("tornado==4.5.3", "tornado"), ("traitlets==4.3.3", "traitlets")])
def test_a_conflict_with_ours_names_both_sides(make: Made, line: str, name: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        make(f"{line}\n")
    message = caught.value.message
    assert line in message
    assert "ipyparallel" in message or "ipykernel" in message
    assert message.startswith(
        "requirements.txt and what a cluster needs (cloudpickle, ipykernel>=6.19, ipyparallel>=8, pip, threadpoolctl)"
    )
    assert caught.value.hint == "change the version in requirements.txt that is named above"
    assert name in message


def test_a_pin_of_the_repository_wins_over_ours(make: Made) -> None:
    env = make("ipykernel==6.29.5\nipyparallel==8.8.0\n")
    found = versions(env)
    assert (found["ipykernel"], found["ipyparallel"]) == ("6.29.5", "8.8.0")


def test_an_index_that_is_not_there(make: Made) -> None:
    settings = make.settings.with_flags(index_url="http://127.0.0.1:9/simple")
    with pytest.raises(Unavailable) as caught:
        make(SIX, settings=settings)
    assert caught.value.exit_code == 69
    assert "cannot be reached" in caught.value.message
    assert "--index-url" in (caught.value.hint or "")
    assert make.left == []


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses us"), (403, "refuses us"), (500, "cannot be reached")]
)
def test_an_index_that_refuses(make: Made, status: int, said: str) -> None:
    with refusing(status) as url, pytest.raises(Unavailable) as caught:
        make(SIX, settings=make.settings.with_flags(index_url=url))
    assert caught.value.exit_code == 69
    assert said in caught.value.message


def test_the_password_of_an_index_is_in_no_message(make: Made) -> None:
    with refusing(401) as url:
        settings = make.settings.with_flags(index_url=url.replace("://", "://me:hunter2@"))
        with pytest.raises(Unavailable) as caught:
            make(SIX, settings=settings)
    assert "hunter2" not in caught.value.message
    assert all("hunter2" not in event.message for event in make.sink.events)


def test_a_cache_that_is_a_file(make: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuilderError) as caught:
        make(SIX, settings=make.settings.with_flags(cache_dir=tmp_path / "file" / "cache"))
    assert caught.value.exit_code == 1
    assert str(tmp_path / "file") in caught.value.message
    assert "IPYTHON_BUILDER_CACHE_DIR" in (caught.value.hint or "")


def mounted(make: Made, options: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """`check` and `up` in a name space of their own, where the cache is a small or a read-only disk."""
    unshare = shutil.which("unshare")
    words = [unshare or "unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        missing("unshare --mount")
    cache = make.settings.cache_dir
    shell = (
        f"mount -t tmpfs -o {options} none {cache} && {script} exec {sys.executable} -P -m ipython_builder"
    )
    return subprocess.run(
        [*words, "/bin/sh", "-c", f'{shell} "$@"', "sh", "up", make.root, "--label", "small", "-n", "1"],
        env={name: value for name, value in os.environ.items() if name != "UV_CACHE_DIR"},
        capture_output=True,
        text=True,
    )


def test_a_disk_that_is_read_only(make: Made, own_cache: Home) -> None:
    make.spec(SIX)
    done = mounted(make, "ro")
    assert done.returncode == 1, done.stderr
    assert "Read-only file system" in done.stderr
    assert "IPYTHON_BUILDER_CACHE_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (own_cache.clusters / "small").exists()


def test_a_disk_that_is_full(make: Made, own_cache: Home) -> None:
    make.spec(SIX)
    done = mounted(make, "size=6m")
    assert done.returncode == 1, done.stderr
    assert "full" in done.stderr or "No space left on device" in done.stderr
    assert "IPYTHON_BUILDER_CACHE_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (own_cache.clusters / "small").exists()


# -- locks ---------------------------------------------------------------------------------------


def test_a_hashed_lock_is_installed_exactly(make: Made) -> None:
    traitlets = (
        "traitlets==5.14.0 --hash=sha256:f14949d23829023013c47df20b4a76ccd1a85effb786dc060f34de7948361b33"
    )
    env = make(LOCKED_SIX + traitlets + "\n")
    found = versions(env)
    # Ours takes what is locked, though it is not what it prefers.
    assert (found["six"], found["traitlets"]) == ("1.16.0", "5.14.0")
    assert {"ipykernel", "ipyparallel", "pip"} <= set(found)
    make(LOCKED_SIX + traitlets + "\n")
    assert make.sink.phases == []


def test_a_lock_stays_one_when_something_is_asked_for_beside_it(make: Made) -> None:
    env = make(LOCKED_SIX, "python-dateutil")
    found = versions(env)
    assert found["six"] == "1.16.0"
    assert "python-dateutil" in found
    with pytest.raises(RepositoryError, match="not the one that was locked"):
        make(f"{SIX} --hash=sha256:{'0' * 64}\n", "python-dateutil")


def test_a_lock_that_misses_what_it_needs_is_not_filled_up(make: Made) -> None:
    """--require-hashes: nothing without a hash comes with what has one."""
    dateutil = "python-dateutil==2.9.0.post0 --hash=sha256:a8b2bc7bffae282281c8140a97d3aa9c14da0b136dfe83f850eea9a5f7470427"
    with pytest.raises(RepositoryError) as caught:
        make(f"{dateutil}\n")
    assert "six" in caught.value.message
    assert make.left == []


def locked_project(make: Made) -> None:
    (make.root / "pyproject.toml").write_text(
        '[project]\nname = "study"\nversion = "1"\nrequires-python = ">=3.9"\n'
        'dependencies = ["python-dateutil==2.9.0.post0", "six<1.17"]\n'
    )
    words = [uv(), "lock", "-q", "--python", environment.interpreters.find("", make.settings).path]
    subprocess.run(words, cwd=make.root, check=True)


def test_uv_lock(make: Made) -> None:
    locked_project(make)
    assert make.spec_of_files().kind == "uv.lock"
    env = make(make.spec_of_files())
    assert (versions(env)["six"], versions(env)["python-dateutil"]) == ("1.16.0", "2.9.0.post0")
    assert make(make.spec_of_files()).key == env.key


def test_pylock(make: Made) -> None:
    locked_project(make)
    words = [uv(), "export", "-q", "--format", "pylock.toml", "--no-emit-project", "-o", "pylock.toml"]
    subprocess.run(words, cwd=make.root, check=True, capture_output=True)
    (make.root / "uv.lock").unlink()
    (make.root / "pyproject.toml").unlink()
    asked = make.spec_of_files("tabulate")
    assert asked.kind == "pylock.toml"
    env = make(asked)
    found = versions(env)
    assert (found["six"], found["python-dateutil"]) == ("1.16.0", "2.9.0.post0")
    assert "tabulate" in found  # what was asked for beside it
    bad = (make.root / "pylock.toml").read_text().replace(SIX_HASHES[1].partition(":")[2], "0" * 64)
    (make.root / "pylock.toml").write_text(bad.replace(SIX_HASHES[0].partition(":")[2], "0" * 64))
    with pytest.raises(RepositoryError, match="not the one that was locked"):
        make(make.spec_of_files())


# -- where packages come from --------------------------------------------------------------------


def test_find_links_and_prereleases(make: Made) -> None:
    folder = make.root / "wheels"
    folder.mkdir()
    wheel(folder, "ipbdemo", "1.0", ipbdemo="v = 1\n")
    wheel(folder, "ipbdemo", "2.0b1", ipbdemo="v = 2\n")
    text = "--find-links ./wheels\nipbdemo\n"
    env = make(text)
    assert versions(env)["ipbdemo"] == "1.0"
    assert versions(make(f"--pre\n{text}"))["ipbdemo"] == "2.0b1"
    # What lies in the folder is content too.
    wheel(folder, "ipbdemo", "1.1", ipbdemo="v = 1.1\n")
    assert versions(make(text))["ipbdemo"] == "1.1"


def test_the_best_version_of_all_indexes_as_pip_means_it(make: Made, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    one = simple_index(tmp_path / "one", wheel(tmp_path / "w", "ipbdemo", "1.0", ipbdemo="v = 1\n"))
    two = simple_index(tmp_path / "two", wheel(tmp_path / "w", "ipbdemo", "2.0", ipbdemo="v = 2\n"))
    with served(one) as first, served(two) as second:
        for urls in ((first, second), (second, first)):
            text = "".join(f"--extra-index-url {url}\n" for url in urls) + "ipbdemo\n"
            assert versions(make(text))["ipbdemo"] == "2.0"


def test_no_binary_builds(make: Made, tmp_path: Path) -> None:
    setup = "from setuptools import setup\nsetup(name='ipbdemo', version='1.0', py_modules=['ipbdemo'])\n"
    folder = make.root / "wheels"
    folder.mkdir()
    wheel(folder, "ipbdemo", "1.0", ipbdemo="built = False\n")
    sdist(folder, "ipbdemo", "1.0", setup)
    text = "--find-links ./wheels\nipbdemo\n"
    assert python(make(text), "import ipbdemo; print(ipbdemo.built)") == "False"
    assert python(make(f"--no-binary ipbdemo\n{text}"), "import ipbdemo; print(ipbdemo.version)") == "1.0"


def test_no_secret_of_the_caller_reaches_a_build(
    make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.json"
    setup = (
        "import json, os, sys\nfrom setuptools import setup\n"
        f"json.dump(dict(os.environ), open({str(seen)!r}, 'w'))\n"
        "setup(name='ipbspy', version='1.0', py_modules=['ipbspy'])\n"
    )
    path = sdist(make.root, "ipbspy", "1.0", setup)
    secrets = {"FOO_TOKEN": "hunter2", "AWS_SECRET_ACCESS_KEY": "hunter2", "IPYTHON_USER_PASSWORD": "hunter2"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    env = make(f"./{path.name}\n")
    assert versions(env)["ipbspy"] == "1.0"
    told = json.loads(seen.read_text())
    assert "PATH" in told
    assert "hunter2" not in json.dumps(told)
    assert not set(secrets) & set(told)


def test_a_build_that_fails_is_told_in_its_own_words(make: Made) -> None:
    path = sdist(make.root, "ipbbad", "1.0", "raise RuntimeError('no Fortran compiler here')\n")
    with pytest.raises(RepositoryError) as caught:
        make(f"./{path.name}\n")
    assert "no Fortran compiler here" in caught.value.message
    assert make.left == []


def test_a_local_wheel_with_its_hash(make: Made) -> None:
    path = wheel(make.root, "ipbdemo", "1.0", ipbdemo="v = 1\n")
    text = f"ipbdemo @ {path.as_uri()} --hash=sha256:{sha256(path)}\n"
    assert versions(make(text))["ipbdemo"] == "1.0"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RepositoryError):
        make(text)


# -- pruning -------------------------------------------------------------------------------------


def prune(make: Made) -> list[str]:
    return [path.name for path in environment.prune(make.settings, Reporter(Kept()))]


def test_prune_removes_what_nobody_claims(make: Made, tmp_path: Path) -> None:
    one, two, half = make(SIX), make("idna==3.7"), make("six==1.15.0")
    half.path.chmod(0o755)
    (half.path / MARKER).unlink()
    owner = tmp_path / "cluster"
    owner.mkdir()
    environment.claim(one, make.settings, owner)
    (owner / "cluster.json").write_text(json.dumps({"environment": one.key}))
    assert sorted(prune(make)) == sorted([two.key, half.key])
    assert make.left == [one.key]
    assert prune(make) == []
    assert python(one, "import six; print(six.__version__)") == "1.16.0"
    # What was removed is made again when it is asked for, although its request was resolved before.
    assert make("idna==3.7").key == two.key
    assert "install" in make.sink.phases


def test_a_claim_ends_with_its_owner(make: Made, tmp_path: Path) -> None:
    env = make(SIX)
    owner = tmp_path / "cluster"
    owner.mkdir()
    environment.claim(env, make.settings, owner)
    assert prune(make) == []  # its `up` has written no record yet
    owner.rmdir()
    assert prune(make) == [env.key]
    with pytest.raises(Transient):
        environment.claim(env, make.settings, owner)


def test_an_old_claim_of_a_cluster_that_has_moved_on_holds_nothing(make: Made, tmp_path: Path) -> None:
    env = make(SIX)
    owner = tmp_path / "cluster"
    owner.mkdir()
    environment.claim(env, make.settings, owner)
    (owner / "cluster.json").write_text(json.dumps({"environment": "f" * 24}))
    assert prune(make) == []  # it may be on its way to this one
    for claim in (make.settings.cache_dir / "environments" / "claims" / env.key).iterdir():
        os.utime(claim, (0, 0))
    assert prune(make) == [env.key]


def test_prune_leaves_no_list_of_claims_on_what_is_gone(make: Made, tmp_path: Path) -> None:
    made = make()
    owner = tmp_path / "owner"
    owner.mkdir()
    environment.claim(made, make.settings, owner)
    shutil.rmtree(owner)
    assert environment.prune(make.settings, Reporter()) == [made.path]
    assert list((make.settings.cache_dir / "environments" / "claims").iterdir()) == []


def test_prune_waits_for_who_is_making_one(make: Made) -> None:
    """An environment without its marker may be half made, or in the making: the lock tells which."""
    process = ensure_elsewhere(make, SIX)
    assert process.stderr is not None
    for line in process.stderr:
        if b'"start", "phase": "install"' in line:
            break
    removed = prune(make)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    key = stdout.decode().strip()
    # Whichever was first: never was half of it removed.
    assert (removed, make.left) in (([], [key]), ([key], []))


def test_prune_of_an_empty_cache(make: Made) -> None:
    assert prune(make) == []
