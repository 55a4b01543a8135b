"""Whatever is done to a cluster, and in whatever order, it comes to the state asked for: real processes.

The same few sequences every time; ``IPYTHON_BUILDER_EXAMPLES=50`` tries that many others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from ipython_builder import processes
from tests.conftest import Cli, Home
from tests.workbench import console, notebook, until

pytestmark = pytest.mark.slow

MORE = int(os.environ.get("IPYTHON_BUILDER_EXAMPLES") or 0)
VICTIMS = ("engine", "controller", "pool", "viewer", "supervisor")
COUNTS = st.integers(0, 4)
STEPS = st.one_of(
    st.tuples(st.just("up"), COUNTS),
    st.tuples(st.just("scale"), COUNTS),
    st.tuples(st.just("kill"), st.sets(st.sampled_from(VICTIMS), min_size=1, max_size=3).map(sorted)),
    st.tuples(st.just("kill"), st.sets(st.sampled_from(VICTIMS[:-1]), min_size=1, max_size=3).map(sorted)),
    st.tuples(st.just("disturbed"), st.tuples(COUNTS, st.sampled_from(VICTIMS[:-1]))),
    st.tuples(st.just("down"), st.none()),
)


class Cluster:
    """What was asked for, beside what there is."""

    def __init__(self, cli: Cli, home: Path, folder: Path) -> None:
        self.cli = cli
        self.home = home
        self.folder = folder
        self.engines: int | None = None  # None: no cluster
        self.supervised = False

    def up(self, count: int) -> None:
        words = [] if self.engines is not None else ["-n", str(count)]
        self.cli("up", self.folder, "--label", "main", *words, check=True)
        self.engines = count if self.engines is None else self.engines
        self.supervised = True

    def scale(self, count: int) -> None:
        said = self.cli("scale", "main", str(count))
        if self.supervised:
            assert said.rc == 0, said.stderr
            self.engines = count
        else:
            assert said.rc != 0
            assert "ipython-builder" in said.stderr  # the next step

    def disturbed(self, how: tuple[int, str]) -> None:
        """Scale, and kill something in the middle of it."""
        count, victim = how
        if not self.supervised:
            return
        found = [one["pid"] for one in self.roles() if one["role"] == victim and one["pid"]]
        words = [sys.executable, "-m", "ipython_builder", "scale", "main", str(count)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as scale:
            until(lambda: self.asked() == count or scale.poll() is not None, "it is asked for")
            for pid in found[:1]:
                processes.end(pid, signal.SIGKILL)
            scale.wait()
        assert self.asked() == count
        self.engines = count

    def asked(self) -> int:
        return int(self.cli("status", "main", "--json").json["engines"]["requested"])

    def kill(self, victims: list[str]) -> None:
        if self.engines is None:
            return
        for name in victims:
            found = [one["pid"] for one in self.roles() if one["role"] == name and one["pid"]]
            for pid in found[:1]:
                processes.end(pid, signal.SIGKILL)
            if name == "supervisor":
                self.supervised = False

    def down(self, _: None = None) -> None:
        said = self.cli("down", "main")
        assert (said.rc == 0) == (self.engines is not None), said.stderr
        self.engines, self.supervised = None, False
        assert processes.of(self.home) == []
        assert not self.home.exists()

    def roles(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cli("status", "main", "--json").json["roles"]
        return found

    def right(self) -> bool:
        """Whether all is there, once."""
        status = self.cli("status", "main", "--json").json
        ids = [(one["role"], one["id"]) for one in status["roles"]]
        numbers = [name for name, _ in ids]
        return (
            status["state"] == "ready"
            and len(set(ids)) == len(ids)
            and numbers.count("engine") == self.engines == status["engines"]["registered"]
            and all(numbers.count(name) == 1 for name in VICTIMS[1:])
        )


@settings(
    max_examples=MORE or 4,
    derandomize=not MORE,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(STEPS, min_size=4, max_size=8))
def check(cli: Cli, home: Home, folder: Path, steps: list[tuple[str, Any]]) -> None:
    cluster = Cluster(cli, home.clusters / "main", folder)
    cluster.up(2)
    for verb, argument in steps:
        note(f"{verb} {argument}")
        event(verb)
        getattr(cluster, verb)(argument)
    if cluster.engines is not None:
        if not cluster.supervised:
            cluster.up(0)
        # What was killed often is started again later, so this may take a while.
        until(cluster.right, f"{cluster.engines} engines after {steps}", 180)
        pids = {one["pid"] for one in cluster.roles() if one["role"] == "engine"}
        asked = "print(sorted(rc[:].apply_sync(__import__('os').getpid)) if rc.ids else [])"
        assert console(cli, "main", asked) == str(sorted(pids))
        cluster.down()


def test_the_state_asked_for_is_reached(cli: Cli, home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    notebook(folder / "main.ipynb", "import json")
    check(cli, home, folder)
