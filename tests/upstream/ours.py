"""A pytest plugin: ipyparallel's own tests meet a cluster of ours where they would start their own.

Load it with ``-p``, in the environment of the repository whose cluster it is. ``SUITE`` says as JSON what the
command of ipython-builder is (``tool``), which folder and label to start (``folder``, ``label``), and where the
cluster's files then lie (``home``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import ipyparallel
import ipyparallel.tests as suite
from IPython.paths import get_ipython_dir

SAID = json.loads(os.environ["SUITE"])
PROFILE = "iptest"
SECONDS = 60  # for engines to register, on a machine that does other things too


class Engine:
    """What a test asks of an engine it has started: whether it still runs. Ours are started again."""

    def poll(self) -> None:
        return None


class Cluster:
    """One of ours at a time: each module of the suite has its own."""

    engines = 0

    @staticmethod
    def tool(*words: str) -> None:
        # IPYTHONDIR is that of the tests, and for them alone.
        env = {name: value for name, value in os.environ.items() if name != "IPYTHONDIR"}
        done = subprocess.run(
            [*SAID["tool"], *words],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        suite.error.RemoteError = suite.RemoteErrorWithTB
        self.engines = 1
        self.tool("up", SAID["folder"], "--label", SAID["label"], "-n", "1", *SAID["options"])
        security = Path(get_ipython_dir()) / f"profile_{PROFILE}" / "security"
        shutil.copytree(Path(SAID["home"]) / "ipython" / "profile_default" / "security", security)

    def add(self, n: int = 1, profile: str = PROFILE, total: bool = False) -> list[Engine]:
        assert profile == PROFILE
        with ipyparallel.Client(profile=profile) as client:
            # An engine that a test has killed is about to be back: it counts.
            client.wait_for_engines(self.engines, timeout=SECONDS)
            new = max(n - self.engines, 0) if total else n
            if new:
                self.engines += new
                self.tool("scale", SAID["label"], str(self.engines))
                client.wait_for_engines(self.engines, timeout=SECONDS)
        return [Engine() for _ in range(new)]

    def stop(self) -> None:
        self.tool("down", SAID["label"])


cluster = Cluster()
suite.setup = cluster.start
suite.add_engines = cluster.add
suite.teardown = cluster.stop
