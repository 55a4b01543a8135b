"""Which Python is taken: real interpreters, and things that only look like one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from ipython_builder import interpreters
from ipython_builder.errors import RepositoryError, UsageError
from ipython_builder.settings import Settings
from tests.conftest import missing

PLAIN = Settings(cache_dir=Path("/c"), state_dir=Path("/s"), data_dir=Path("/d"))
RUNNING = "{}.{}".format(*sys.version_info)


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_running_python_is_taken_at_once() -> None:
    started = time.perf_counter()
    found = interpreters.find(f"=={RUNNING}.*", PLAIN, environ={})
    assert time.perf_counter() - started < 0.05
    assert found.version.startswith(f"{RUNNING}.")
    assert interpreters.find("", PLAIN, environ={}) == found


def test_the_running_python_is_the_one_behind_the_virtual_environment() -> None:
    found = interpreters.find("", PLAIN)
    assert not (found.path.parent.parent / "pyvenv.cfg").exists()
    assert found == interpreters.ask(Path(sys.executable))


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_another_version_is_found_and_is_what_it_says(version: str, python_of: Callable[[str], Path]) -> None:
    python_of(version)
    found = interpreters.find(f"=={version}.*", PLAIN)
    assert found.version.startswith(f"{version}.")
    assert found.minor == int(version.partition(".")[2])
    assert interpreters.ask(found.path) == found


def test_the_newest_that_satisfies_wins() -> None:
    older = [one for one in interpreters.installed() if one.minor < sys.version_info.minor]
    if not older:
        missing("a Python older than the running one")
    found = interpreters.find(f"<{RUNNING}", PLAIN)
    assert found.minor == max(one.minor for one in older)


def test_names_that_lie_are_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    _script(folder / "python3.38", f'exec {sys.executable} "$@"')
    _script(folder / "python3.37", "echo 3.37.0; echo cpython; echo /nowhere/python3.37")
    _script(folder / "python3.36", "echo 3.36.0; echo pypy; echo $0")
    _script(folder / "python3.35", "exit 1")
    _script(folder / "python3.34", "echo what is this")
    (folder / "python3.33").write_bytes(b"\x7fELF, but not really")
    (folder / "python3.33").chmod(0o755)
    (folder / "python3.32").mkdir()
    environ = {"PATH": str(folder), "HOME": str(tmp_path)}
    with pytest.raises(RepositoryError, match=r"asks for Python >=3\.32; this machine has .*3\."):
        interpreters.find(">=3.32", PLAIN, wanted_by="runtime.txt", environ=environ)


def test_a_shim_is_followed_to_the_interpreter(tmp_path: Path) -> None:
    shim = _script(tmp_path / "bin" / "python3", f'exec {sys.executable} "$@"')
    assert interpreters.ask(shim) == interpreters.find("", PLAIN)


def test_a_relative_entry_of_path_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path / "python3.30", f"touch {tmp_path}/was-executed")
    monkeypatch.chdir(tmp_path)
    interpreters.installed({"PATH": f".:{os.pathsep}", "HOME": str(tmp_path)})
    assert not (tmp_path / "was-executed").exists()


def test_what_was_asked_by_whom_and_what_there_is() -> None:
    with pytest.raises(RepositoryError) as caught:
        interpreters.find("==3.77.*", PLAIN, wanted_by="binder/runtime.txt")
    assert "binder/runtime.txt asks for Python ==3.77.*" in caught.value.message
    assert f"{RUNNING}." in caught.value.message
    assert "--python PATH" in (caught.value.hint or "")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("specifier", ["==2.7.*", "<3.9", "==3.8.*"])
def test_a_python_that_is_too_old_for_us(specifier: str) -> None:
    with pytest.raises(RepositoryError, match=r"only 3\.9 and newer can be used") as caught:
        interpreters.find(specifier, PLAIN, wanted_by="runtime.txt")
    assert caught.value.hint == "change runtime.txt"


def test_the_python_of_the_settings_is_preferred(python_of: Callable[[str], Path]) -> None:
    path = python_of("3.10")
    assert interpreters.find("", PLAIN.with_flags(python="3.10")).version.startswith("3.10.")
    assert interpreters.find(">=3.9", PLAIN.with_flags(python=str(path))).path == path
    assert not interpreters.find(">=3.11", PLAIN.with_flags(python="3.10")).version.startswith("3.10.")


@pytest.mark.parametrize("python", ["3.77", "/nowhere/python", "/bin/ls", "python"])
def test_the_python_of_the_settings_is_not_there(python: str) -> None:
    with pytest.raises(UsageError, match=r"is not on this machine|no Python that can be used"):
        interpreters.find("", PLAIN.with_flags(python=python))


def test_all_that_is_installed_can_be_used() -> None:
    found = interpreters.installed()
    assert found
    assert all(one.version in SpecifierSet(">=3.9") for one in found)
    assert len({one.path for one in found}) == len(found)
