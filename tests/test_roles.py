"""The roles without a supervisor, as they run between hosts: links that are derived, encrypted, and refused.

Controller, engines and clients are real processes of a real environment; what they have in common is only a
label, a key, a host and a port.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ipython_builder import cluster, environment, ports, spec
from ipython_builder.cluster import Link
from ipython_builder.environment import Environment
from ipython_builder.events import Reporter
from ipython_builder.record import write_private
from tests.conftest import Home
from tests.workbench import until

pytestmark = pytest.mark.slow

KEY = bytes(range(32))
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def env(home: Home, tmp_path: Path) -> Environment:
    folder = tmp_path / "empty"
    folder.mkdir()
    return environment.ensure(spec.read(folder), home.settings, Reporter())


@pytest.fixture
def start(env: Environment, home: Home, tmp_path: Path) -> Iterator[Start]:
    """Starts a Python of the environment that has a link's files, as a machine of its own would have them."""
    started = []

    def run(link: Link, *words: str) -> subprocess.Popen[str]:
        place = tmp_path / f"machine-{len(started)}"
        for name, text in cluster.connection_files(link).items():
            write_private(place / "profile_default" / "security" / name, text)
        process = subprocess.Popen(
            [env.bin / "python", *words],
            env=home.environ | {"IPYTHONDIR": str(place)},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


def ask(start: Start, link: Link, code: str) -> str:
    """What a client prints that has this link."""
    process = start(link, "-c", f"import ipyparallel as ipp\nrc = ipp.Client(timeout=10)\n{code}")
    return process.communicate()[0].strip()


@pytest.mark.parametrize("curve", [False, True], ids=["signed", "encrypted"])
def test_a_label_and_a_key_are_all_that_roles_share(start: Start, curve: bool) -> None:
    link = Link("x", KEY, first_port=ports.block([]), curve=curve)
    engines = [start(link, "-m", "ipython_cluster.engine", str(number)) for number in (0, 1)]
    start(link, "-m", "ipython_cluster.controller")  # who comes first waits
    code = (
        "rc.wait_for_engines(2, timeout=60, interactive=False)\nprint(rc.ids, rc[:].apply_sync(lambda: 42))"
    )
    assert ask(start, link, code).splitlines()[-1] == "[0, 1] [42, 42]"
    assert all(engine.poll() is None for engine in engines)


@pytest.mark.parametrize("curve", [False, True], ids=["signed", "encrypted"])
def test_another_key_is_refused(start: Start, curve: bool) -> None:
    link = Link("x", KEY, first_port=ports.block([]), curve=curve)
    start(link, "-m", "ipython_cluster.controller")
    start(link, "-m", "ipython_cluster.engine", "0")
    wait = "rc.wait_for_engines(1, timeout=60, interactive=False)\nprint(rc.ids)"
    assert ask(start, link, wait).splitlines()[-1] == "[0]"
    wrong = replace(link, key=bytes(32))
    start(wrong, "-m", "ipython_cluster.engine", "1")
    assert "TimeoutError" in ask(start, wrong, "print('in')")
    assert ask(start, link, "print(rc.ids)").splitlines()[-1] == "[0]"


def test_engines_of_a_dead_controller_follow_its_successor(start: Start) -> None:
    link = Link("x", KEY, first_port=ports.block([]), curve=True)
    controller = start(link, "-m", "ipython_cluster.controller")
    start(link, "-m", "ipython_cluster.engine", "7")
    wait = "rc.wait_for_engines(1, timeout=60, interactive=False)\n"
    first = ask(
        start, link, f"{wait}rc[7].push({{'x': 5}})\nimport os\nprint(rc.ids, rc[7].apply_sync(os.getpid))"
    )
    os.killpg(controller.pid, 9)
    controller.communicate()
    start(link, "-m", "ipython_cluster.controller")
    again = ask(
        start, link, f"{wait}import os\nprint(rc.ids, rc[7].apply_sync(os.getpid), rc[7].pull('x').get())"
    )
    assert again.splitlines()[-1] == f"{first.splitlines()[-1]} 5"


def test_an_engine_leaves_when_it_is_asked_to(start: Start) -> None:
    link = Link("x", KEY, first_port=ports.block([]))
    start(link, "-m", "ipython_cluster.controller")
    engine = start(link, "-m", "ipython_cluster.engine", "0")
    ask(start, link, "rc.wait_for_engines(1, timeout=60, interactive=False)")
    engine.terminate()
    until(lambda: engine.poll() is not None, "its end")
    said = engine.communicate()[0]
    assert engine.returncode == 0, said
