"""A cluster that works while it is killed and scaled: what grew, and what was lost.

`python benchmarks/soak.py [MINUTES]`. In the first half engines, pool, controller and viewer are killed, in
the second one engines only; in both the number of engines changes, and notebooks are run. A client that was
open before maps, sends arrays, and has load-balanced tasks, and looks at every result. What grew is looked at
twice in peace, with the same number of engines: between the halves and at the end. There is no peer. The exit
code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import healing

from ipython_builder import control, processes
from ipython_builder.errors import BuilderError
from ipython_builder.workspace import Workspace

WORKER = Path(__file__).with_name("soaker.py")
STEADY = 25.0  # seconds between two kills of the same: what dies again sooner is started later on purpose
PATIENCE = 90.0  # seconds after which something does not come
FEW, MANY = 2, 6  # engines
ROLES = ("controller", "pool", "viewer")


@dataclass
class Looked:
    """What a kind of process has: how many there are, bytes of memory (PSS), descriptors, threads."""

    count: int = 0
    memory: int = 0
    descriptors: int = 0
    threads: int = 0

    def add(self, pid: int, memory: int) -> None:
        self.count += 1
        self.memory += memory
        self.descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        self.threads += len(os.listdir(f"/proc/{pid}/task"))

    def __str__(self) -> str:
        words = f"{self.count} × " if self.count != 1 else ""
        return f"{words}{self.memory / 1e6:.0f} MB, {self.descriptors} descriptors, {self.threads} threads"


class Worker:
    """The open client."""

    def __init__(self, cluster: healing.Cluster) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "IPYTHON"))}
        self.process = subprocess.Popen(
            [cluster.home.thin / "bin" / "python", WORKER],
            env=environ | {"IPYTHONDIR": str(cluster.home.ipython), "PYTHONNOUSERSITE": "1"},
            cwd=cluster.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.said.get(timeout=PATIENCE)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.said.put(line)
        self.said.put("")

    def begin(self, seconds: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def done(self, patience: float) -> dict[str, int] | None:
        """What it did, or None while it works."""
        try:
            line = self.said.get(timeout=patience)
        except queue.Empty:
            return None
        found: dict[str, int] = json.loads(line) if line else {"lost: the client has ended": 1}
        return found


class Soak:
    """The cluster, what is done to it, and what became of that."""

    def __init__(self, cluster: healing.Cluster) -> None:
        self.cluster = cluster
        self.counts: Counter[str] = Counter()
        self.draw = random.Random(2)
        self.killed: dict[object, float] = {}
        self.worker = Worker(cluster)

    def half(self, seconds: float, roles: tuple[str, ...]) -> None:
        """Work, with something done to the cluster every second or two."""
        self.worker.begin(seconds)
        ends = time.monotonic() + seconds + 2 * PATIENCE
        deeds: list[Callable[[], None]] = [self.kill_engine, self.kill_engine, self.scale, self.run_notebook]
        while (done := self.worker.done(self.draw.uniform(1.0, 2.0))) is None:
            if time.monotonic() > ends:
                self.counts["lost: the client hangs"] += 1
                break
            deed = self.draw.choice([*deeds, *([lambda: self.kill_one_of(roles)] * 2 if roles else [])])
            try:
                deed()
            except BuilderError as error:
                self.counts[f"lost: {error.message}"] += 1
        self.counts.update(done or {})

    # -- deeds -------------------------------------------------------------------------------------

    def kill(self, name: object, pid: int | None, word: str) -> None:
        if pid and time.monotonic() - self.killed.get(name, float("-inf")) > STEADY:
            self.killed[name] = time.monotonic()
            processes.end(pid, signal.SIGKILL)
            self.counts[word] += 1

    def kill_engine(self) -> None:
        engines = {name: pid for name, pid in self.cluster.pids().items() if name[0] == "engine"}
        name = self.draw.choice(sorted(engines))
        self.kill(name, engines[name], "killed engines")

    def kill_one_of(self, roles: tuple[str, ...]) -> None:
        name = (self.draw.choice(roles), 0)
        self.kill(name, self.cluster.pids().get(name), f"killed {name[0]}s")

    def scale(self) -> None:
        """Ask for another number of engines; whether they came is looked at in `rest`."""
        control.ask(self.cluster.home.socket, "scale", count=self.draw.randint(FEW, MANY), timeout=PATIENCE)
        self.counts["scales"] += 1

    def run_notebook(self) -> None:
        """A notebook with a kernel of its own; a viewer that was just killed is waited for."""
        cell = {"cell_type": "code", "source": "print(6 * 7)", "metadata": {}, "outputs": []}
        notebook: dict[str, Any] = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                failed = Workspace(self.cluster.url, self.cluster.password).execute("soak.ipynb", notebook)
            except BuilderError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                continue
            self.counts["notebooks"] += 1
            if failed or cell["outputs"][0]["text"] != "42\n":
                self.counts[f"lost: a notebook said {failed}"] += 1
            return

    # -- looking -----------------------------------------------------------------------------------

    def rest(self) -> dict[str, Looked]:
        """Have all as it was in the beginning, and look."""
        common.run(self.cluster.tool("scale", healing.LABEL, str(healing.ENGINES)), env=self.cluster.env)
        deadline = time.monotonic() + PATIENCE
        while not self.cluster.ready():
            if time.monotonic() > deadline:
                self.counts["lost: not all is there again"] += 1
                break
            time.sleep(0.05)
        self.run_notebook()  # the viewer's pool of kernels is there
        self.worker.begin(2.0)  # engines that came meanwhile have met what they will meet
        done = self.worker.done(2 * PATIENCE) or {"lost: the client hangs": 1}
        self.counts.update({what: count for what, count in done.items() if what.startswith("lost")})
        time.sleep(2.0)
        return self.look()

    def look(self) -> dict[str, Looked]:
        """What there is of each kind of process."""
        kinds = {pid: role for (role, _), pid in self.cluster.pids().items()}
        kinds[self.worker.process.pid] = "client"
        pids = {*processes.of(self.cluster.home.path), *kinds}
        memory = processes.memory(pids)
        found: dict[str, Looked] = {}
        for pid in sorted(memory):
            kind = kinds.get(pid) or _kind(pid)
            try:
                found.setdefault(kind, Looked()).add(pid, memory[pid])
            except OSError:
                continue  # it has just ended
        return found


def _kind(pid: int) -> str:
    """What a process is that the supervisor has not started itself."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return "gone"
    module = words[words.index("-m") + 1] if "-m" in words else words[0]
    return {"ipython_cluster.controller": "schedulers", "ipython_cluster.kernels": "pool of kernels"}.get(
        module, module
    )


def tell(name: str, items: list[str]) -> None:
    """Print a list in lines that are not too long."""
    print(textwrap.fill(", ".join(items), 100, initial_indent=f"  {name:7}", subsequent_indent=" " * 9))


def left_by(home: Path) -> list[str]:
    """What there still is of a cluster that was taken down."""
    found = [f"process {pid}" for pid in processes.of(home)]
    return found + ([f"folder {home}"] if home.exists() else [])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("minutes", nargs="?", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the cluster goes")
    options = parser.parse_args()
    with common.workplace(options.work) as work:
        cluster = healing.Cluster(work)
        (cluster.folder / "requirements.txt").write_text("numpy\n")
        try:
            cluster.up()
            soak = Soak(cluster)
            try:
                soak.half(options.minutes * 30, ROLES)
                before = soak.rest()
                soak.half(options.minutes * 30, ())
                after = soak.rest()
            finally:
                soak.worker.process.kill()
                soak.worker.process.wait()
        finally:
            cluster.down()
        soak.counts.update({f"lost: left behind: {what}": 1 for what in left_by(cluster.home.path)})
    lost = {what[6:]: count for what, count in soak.counts.items() if what.startswith("lost: ")}
    done = {what: count for what, count in sorted(soak.counts.items()) if not what.startswith("lost: ")}
    if options.json:
        grew = {kind: [vars(before.get(kind, Looked())), vars(after[kind])] for kind in after}
        print(json.dumps({"minutes": options.minutes, "done": done, "lost": lost, "grew": grew}, indent=2))
    else:
        print(f"{options.minutes:g} minutes with {FEW} to {MANY} engines; {common.machine()}")
        tell("did", [f"{count:,} {what}" for what, count in done.items()])
        tell("lost", [f"{what} ({count} times)" for what, count in lost.items()] or ["nothing"])
        for kind in sorted({*before, *after}):
            then, now = before.get(kind, Looked(0)), after.get(kind, Looked(0))
            print(f"  {kind:15}  {then}  →  {now}")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
