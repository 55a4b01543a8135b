"""What opening a notebook takes: the viewer's first page, and a new kernel's first cell.

First page: from the start of the viewer, as the supervisor starts it, until its page answers with HTTP 200
(redirects followed: the login), against `jupyter lab` with the same versions; once with the PATH as it is,
and once without a node on it, which `jupyter lab` asks for yarn's settings. First cell: from the request for
a new kernel to a running server until a cell that imports numpy, pandas, scipy.stats and matplotlib.pyplot
has run, against the kernel of `jupyter lab` in one environment with the same packages. Bars: the page in at
most 0.35 of the time, the cell in at most 0.4.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import common
import imports
import start

from ipython_builder import record, roles
from ipython_builder.record import Home
from ipython_builder.workspace import CellDone, Workspace

LIMIT = 60.0


class Lab(imports.Stock):
    """`jupyter lab`, typed in one environment that has all packages."""

    def __init__(self, work: Path, modules: dict[str, str]) -> None:
        super().__init__(work, 0, modules)
        self.packages = ("jupyterlab", *modules.values())

    @contextlib.contextmanager
    def server(self, env: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
        """A running one: its URL, its token, and the seconds that its page took."""
        self.starts += 1
        home = self.work / f"by-hand-{self.starts}"
        notebooks = home / "notebooks"
        notebooks.mkdir(parents=True)
        port, token = start.free_port(), secrets.token_hex(16)
        words = [
            *("jupyter", "lab", "--no-browser", "--allow-root"),
            *(f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
        ]
        began = time.monotonic()
        with start.started(words, {**env, "HOME": str(home)}, notebooks):
            yield f"http://127.0.0.1:{port}/", token, answering(port) - began


class Viewer(imports.Ours):
    """The viewer of a cluster without engines, and others like it that are started by hand."""

    def __init__(self, work: Path, modules: dict[str, str]) -> None:
        super().__init__(work, 0, modules)
        self.place = Home(self.security.parents[2])

    def up(self) -> tuple[str, str]:
        """Have the cluster, with its pool of kernels; the URL and the password of its viewer."""
        up = self.tool("up", self.folder, "-n", "0", "--label", "bench", "--json")
        made: dict[str, Any] = json.loads(common.run(up, env=self.env))
        deadline = time.monotonic() + LIMIT
        while "preloaded in" not in (self.place.logs / "viewer.log").read_text():
            if time.monotonic() > deadline:
                raise SystemExit("the viewer has no pool of kernels")
            time.sleep(0.05)
        return str(made["url"]), self.place.password.read_text().strip()

    def page(self, env: Mapping[str, str], number: int) -> float:
        """Seconds that the page of one more viewer takes."""
        made_of = record.load(self.place)
        assert made_of is not None
        folder = self.home / f"viewer-{number}"
        shutil.copytree(self.place.jupyter / "config", folder / "config")
        path = folder / "config" / "jupyter_server_config.json"
        settings = json.loads(path.read_text())
        port = settings["ServerApp"]["port"] = start.free_port()
        path.write_text(json.dumps(settings))
        ours = roles.environ(made_of, self.place, env) | {
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        }
        words = roles.ROLES["viewer"].argv(made_of, self.place, None)
        began = time.monotonic()
        with start.started(words, ours, folder / "config"):
            return answering(port) - began


def answering(port: int) -> float:
    """Wait for HTTP 200, redirects followed; the moment of it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            with opener.open(f"http://127.0.0.1:{port}/lab", timeout=LIMIT) as answer:
                if answer.status == 200:
                    return time.monotonic()
        except (urllib.error.URLError, OSError):
            pass  # not yet
        time.sleep(0.005)
    raise SystemExit(f"no page within {LIMIT:.0f} s")


def first_cell(url: str, password: str, modules: Mapping[str, str]) -> float:
    """Seconds from the request for a kernel until its first cell has run."""
    workspace = Workspace(url, password)
    source = "".join(f"import {name}\n" for name in modules)
    cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    moments: list[float] = []

    def done(cell: CellDone) -> None:
        moments.append(time.monotonic())
        if cell.failed:
            raise SystemExit(f"the first cell failed: {cell.failed}")

    began = time.monotonic()
    workspace.execute("first.ipynb", notebook, on_cell=done)
    return moments[0] - began


def without_node(env: Mapping[str, str]) -> dict[str, str]:
    """The same, with no folder on its PATH that has a node."""
    folders = [one for one in env["PATH"].split(":") if not Path(one, "node").exists()]
    return {**env, "PATH": ":".join(folders)}


def main() -> None:
    options = common.parser(__doc__).parse_args()
    modules = imports.QUICK if options.quick else imports.MODULES
    pages: dict[str, tuple[list[float], list[float]]] = {}
    with common.workplace(options.work) as work:
        peer, ours = Lab(work, modules), Viewer(work, modules)
        peer.install()
        ours.install()
        path = {"PATH": os.environ["PATH"]}
        try:
            url, password = ours.up()
            environments = {"": ({**peer.env}, {**ours.env, **path})}
            if shutil.which("node"):
                environments[", no node"] = without_node(peer.env), without_node({**ours.env, **path})
            count = 0
            for name, (theirs, mine) in environments.items():

                def lab(env: Mapping[str, str] = theirs) -> float:
                    with peer.server(env) as (_, _, seconds):
                        return seconds

                def viewer(env: Mapping[str, str] = mine) -> float:
                    nonlocal count
                    count += 1
                    return ours.page(env, count)

                if not options.quick:  # neither pays for a first time
                    lab()
                    viewer()
                pages[name] = common.take_turns(options.runs, lab, viewer)
            with peer.server(peer.env) as (theirs_url, token, _):
                cells = common.take_turns(
                    options.runs,
                    lambda: first_cell(theirs_url, token, modules),
                    lambda: first_cell(url, password, modules),
                )
        finally:
            ours.down()
    bar = "at most {} of the time"
    cases = [
        common.Case(f"first page{name}", *seconds, bar.format(0.35), lambda case: case.ratio >= 1 / 0.35)
        for name, seconds in pages.items()
    ]
    cases.append(common.Case("first cell", *cells, bar.format(0.4), lambda case: case.ratio >= 1 / 0.4))
    common.report("opening a notebook", "jupyter lab", cases, options)


if __name__ == "__main__":
    main()
