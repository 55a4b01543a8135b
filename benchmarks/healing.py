"""What a cluster does when its parts are killed: seconds until it is ready again, and what was kept.

One cluster; each kill is a SIGKILL. There is no peer: ipyparallel by itself starts nothing again. What was
kept is looked at from outside, through a client that was open before the kill and stays open.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.cookiejar
import json
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import start

from ipython_builder import control, processes, record, settings
from ipython_builder.errors import BuilderError

LABEL = "heal"
ENGINES = 4
LIMIT = 20.0  # seconds after which something does not come back
POLL = 0.01
HOLDS = 0.5  # seconds that it must stay ready: the controller tells only every 0.1 s who is registered
# What dies again is started again ever later, until it has been ready this long.
STEADY = 21.0
SCHEDULERS = ("task", "mux", "control", "iopub")  # as the client's connection file calls their ports

# Runs in the cluster's own environment: one JSON line in, one out.
CLIENT = """
import json, sys, time
import ipyparallel as ipp

def look():
    import os
    return os.getpid(), globals().get("kept")

def ask(pids, seconds):
    "Look at every engine, again until all are those that we are told of."
    deadline, told, begun = time.monotonic() + seconds, {}, time.monotonic()
    while time.monotonic() < deadline:
        told = {}
        try:
            tasks = {str(n): rc[n].apply_async(look) for n in rc.ids}
            tasks["any"] = rc.load_balanced_view().apply_async(look)
            until = time.monotonic() + 2
            told = {n: task.get(timeout=max(0.01, until - time.monotonic())) for n, task in tasks.items()}
            if {n: pid for n, (pid, _) in told.items() if n != "any"} == pids:
                break
        except Exception as error:
            print(repr(error), file=sys.stderr)
        time.sleep(0.02)
    return {"engines": {n: one for n, one in told.items() if n != "any"}, "seconds": time.monotonic() - begun}

def first_time_long(path):
    "What takes for ever, unless it has been begun before."
    import os, time
    if os.path.exists(path):
        return "again"
    open(path, "w").close()
    time.sleep(600)

rc = ipp.Client(timeout=60)
busy = None
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    do = json.loads(line)
    if do["do"] == "look":
        said = ask(do["pids"], do["seconds"])
    elif do["do"] == "push":
        for n in rc.ids:
            rc[n].push({"kept": "%s-%d" % (do["value"], n)}, block=True)
        said = "pushed"
    elif do["do"] == "work":
        if do["how"] == "direct":
            busy = rc[do["engine"]].apply_async(time.sleep, 600)
        else:
            targets = [do["engine"]]
            if do["how"] == "retried":  # elsewhere, where something else runs first
                targets.append((do["engine"] + 1) % len(rc.ids))
                rc.load_balanced_view(targets=targets[1:]).apply_async(time.sleep, 3)
            view = rc.load_balanced_view(targets=targets)
            view.retries = len(targets) - 1
            busy = view.apply_async(first_time_long, do["path"])
        time.sleep(0.5)
        said = "working"
    else:
        try:
            said = repr(busy.get(timeout=do["seconds"]))
        except Exception as error:
            said = getattr(error, "ename", type(error).__name__)
    print(json.dumps(said), flush=True)
"""

Name = tuple[str, int]


class Client:
    """An open client of the cluster, in a process of its own."""

    def __init__(self, home: record.Home) -> None:
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "IPYTHON"))
        }
        self.process = subprocess.Popen(
            [home.thin / "bin" / "python", "-c", CLIENT],
            env=environ | {"IPYTHONDIR": str(home.ipython), "PYTHONNOUSERSITE": "1"},
            cwd=home.path,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.hear(120)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.said.put(line)

    def hear(self, seconds: float) -> Any:
        try:
            return json.loads(self.said.get(timeout=seconds))
        except queue.Empty:
            raise TimeoutError("the open client does not answer") from None

    def __call__(self, do: str, *, seconds: float = LIMIT, **more: Any) -> Any:
        """Have it do something.

        Raises:
            TimeoutError: it does not come to an end.
        """
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"do": do, "seconds": seconds} | more) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise TimeoutError("the open client has ended") from None
        return self.hear(seconds + 10)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Cluster:
    """The cluster, and what is seen of it from outside."""

    def __init__(self, work: Path) -> None:
        self.folder = work / "notebooks"
        self.folder.mkdir()
        state = work / "state"
        # No environment is measured: the caches that are there serve.
        self.env = common.environ() | {
            "XDG_STATE_HOME": str(state),
            "XDG_DATA_HOME": str(work / "data"),
            "IPYTHON_BUILDER_CACHE_DIR": str(settings.load().cache_dir),
        }
        self.home = record.Home(state / "ipython-builder" / "clusters" / LABEL)
        self.url = self.password = ""
        self.client: Client | None = None

    def tool(self, *words: str | Path) -> list[str]:
        return [str(word) for word in (sys.executable, "-P", "-m", "ipython_builder", *words)]

    def up(self) -> None:
        # A port far from where another cluster would look for one while our viewer is killed.
        words = ["-n", str(ENGINES), "--label", LABEL, "--port", str(start.free_port()), "--json"]
        made = json.loads(
            common.run(self.tool("up", self.folder, *words, "--progress", "none"), env=self.env)
        )
        self.url, self.password = made["url"], made["password"]

    @contextlib.contextmanager
    def typed(self) -> Iterator[None]:
        """The same typed again, while one looks on."""
        words = self.tool("up", self.folder, "--label", LABEL, "--json", "--progress", "none")
        up = subprocess.Popen(words, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield
            up.wait(LIMIT)
        except subprocess.TimeoutExpired:
            pass  # the row says that it was not ready in time
        finally:
            up.kill()
            up.wait()

    def open(self) -> Client:
        if self.client is None:
            self.client = Client(self.home)
        return self.client

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def down(self) -> None:
        """End everything, also what is half started."""
        self.close()
        subprocess.run(
            self.tool("down", "--discard", LABEL), env=self.env, cwd="/", capture_output=True, check=False
        )
        processes.sweep(self.home.path)

    def restart(self) -> None:
        self.down()
        self.up()

    def status(self, **how: bool) -> dict[str, Any]:
        return control.ask(self.home.socket, "status", timeout=5, **how)

    def roles(self) -> dict[Name, dict[str, Any]]:
        return {(one["role"], one["id"]): one for one in self.status()["roles"]}

    def pids(self) -> dict[Name, int]:
        return {name: one["pid"] for name, one in self.roles().items()}

    def ready(self) -> bool:
        return bool(self.status(brief=True)["state"] == "ready")

    def until_ready(self, changed: Callable[[dict[Name, int]], bool], began: float) -> float | None:
        """Seconds since `began` until all is well and what was killed is another one; None: not in time."""
        first = None
        while (now := time.monotonic()) - began < LIMIT + HOLDS:
            try:
                well = self.ready() and changed(self.pids())
            except BuilderError:
                well = False
            if not well:
                first = None
            elif first is None:
                first = time.monotonic()
            elif now - first > HOLDS:
                return first - began
            time.sleep(POLL)
        return None

    def remove_files(self) -> None:
        """All that the controller has written and read."""
        shutil.rmtree(self.home.ipython / "profile_default")

    def scheduler(self, port: str) -> int | None:
        """The child of the controller that listens at the port of this name."""
        said = json.loads((self.home.security / "ipcontroller-client.json").read_text())
        sockets = _listening(said[port])
        controller = self.pids()["controller", 0]
        for pid in processes.below({controller}) - {controller}:
            with contextlib.suppress(OSError):
                for one in os.scandir(f"/proc/{pid}/fd"):
                    if os.readlink(one.path) in sockets:
                        return pid
        return None

    def lets_in(self) -> bool:
        """Whether the password of before opens the page at the address of before."""
        try:
            jar = http.cookiejar.CookieJar()
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
            )
            opener.open(f"{self.url}login", timeout=10).close()
            token = next(cookie.value for cookie in jar if cookie.name == "_xsrf")
            form = urllib.parse.urlencode({"password": self.password, "_xsrf": token}).encode()
            opener.open(f"{self.url}login", form, timeout=10).close()
            with opener.open(f"{self.url}api/status", timeout=10) as answer:
                return bool(answer.status == 200)
        except (OSError, StopIteration):
            return False


def _listening(port: int) -> set[str]:
    """The sockets that listen at a port, as /proc names them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
    }


@dataclass
class Kill:
    """One kind of kill, and what came of each.

    Attributes:
        victims: the members that run number N kills.
        busy: what the engine is in the middle of: a ``direct`` task, one that was ``balanced``, or one that
            may be ``retried``.
        harm: what is done just before the kill.
        child: whether a child of the victim is killed in its place.
        seconds: of each run; None where it was not back in time.
        lost: what of each run was not as before.
    """

    name: str
    victims: Callable[[int], list[Name]]
    busy: str = ""
    harm: Callable[[Cluster], object] = lambda cluster: None
    child: bool = False
    seconds: list[float | None] = field(default_factory=list)
    lost: list[list[str]] = field(default_factory=list)
    kept: str = ""

    def within(self, summary: Callable[[list[float]], float]) -> str:
        known = [one for one in self.seconds if one is not None]
        return f"{summary(known):.2f} s" if known else ""

    def back(self) -> tuple[str, str]:
        """Median and worst, in words."""
        late = self.seconds.count(None)
        if not self.seconds:
            return "not tried", ""
        if not late:
            return self.within(statistics.median), self.within(max)
        never = f"not within {LIMIT:.0f} s"
        return self.within(statistics.median) or never, never + f" ({late} of {len(self.seconds)})"

    def result(self) -> str:
        lost = Counter(what for one in self.lost for what in one)
        said = [f"lost: {what} ({count} of {len(self.lost)})" for what, count in lost.items()]
        return "; ".join([*said, *([self.kept] if self.kept and not lost else [])])


def kinds(quick: bool) -> list[Kill]:
    """The kills in an order that lets most members be steady again before their next."""

    def one(role: str) -> Callable[[int], list[Name]]:
        return lambda run: [(role, 0)]

    def engine(shift: int, *others: str) -> Callable[[int], list[Name]]:
        return lambda run: [*((role, 0) for role in others), ("engine", (run + shift) % ENGINES)]

    idle = Kill("idle engine", engine(0))
    pool = Kill("pool", one("pool"))
    if quick:
        return [idle, pool]
    return [
        idle,
        Kill("engine in mid-task", engine(1), busy="direct"),
        Kill("controller", one("controller")),
        Kill("engine with a load-balanced task", engine(2), busy="balanced"),
        Kill("engine with one that has a retry left", engine(3), busy="retried"),
        Kill("viewer", one("viewer")),
        pool,
        Kill("supervisor, then `up`", one("supervisor")),
        Kill("controller, all its files removed", one("controller"), harm=Cluster.remove_files),
        Kill("engine and pool at once", engine(2, "pool")),
        Kill("a scheduler of the controller", one("controller"), child=True),
        Kill("controller, and an engine in mid-task", engine(1, "controller"), busy="balanced"),
        Kill("supervisor and engine at once, then `up`", engine(0, "supervisor")),
        Kill("controller, pool, engine and viewer at once", engine(3, "controller", "pool", "viewer")),
    ]


class Healing:
    """Kills, one after the other."""

    def __init__(self, cluster: Cluster, quick: bool) -> None:
        self.cluster = cluster
        self.quick = quick
        self.count = 0

    def settle(self, victims: list[Name]) -> None:
        """Wait until all is well, and what is to be killed has run long enough."""
        if self.cluster.until_ready(lambda _: True, time.monotonic()) is None:
            self.cluster.restart()
        if not self.quick:
            roles = [one for name, one in self.cluster.roles().items() if name in victims]
            since = [one["since"] for one in roles if one["restarts"]]
            time.sleep(max(0.0, max(since, default=0.0) + STEADY - time.time()))

    def once(self, kill: Kill, run: int) -> None:
        """Kill, wait, look."""
        self.count += 1
        victims = kill.victims(run)
        self.settle([] if kill.child else [name for name in victims if name != ("supervisor", 0)])
        client = self.cluster.open()
        before = self.cluster.pids()
        value = f"v{self.count}"
        try:
            client("push", value=value)
            number = next((number for role, number in victims if role == "engine"), None)
            if kill.busy:
                path = str(self.cluster.folder / f".begun-{self.count}")
                client("work", engine=number, how=kill.busy, path=path)
        except TimeoutError as error:
            sys.exit(f"before the kill of {kill.name}: {error}")
        port = SCHEDULERS[run % len(SCHEDULERS)]
        child = self.cluster.scheduler(port) if kill.child else None
        if kill.child and child is None:
            kill.lost.append(["it is no process of its own"])
            return

        def changed(now: dict[Name, int]) -> bool:
            if child is not None:
                return self.cluster.scheduler(port) not in (None, child)
            return all(now.get(name) not in (None, before[name]) for name in victims)

        kill.harm(self.cluster)
        for pid in [child] if child is not None else [before[name] for name in victims]:
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        if ("supervisor", 0) in victims:
            while processes.alive(before["supervisor", 0]):
                time.sleep(POLL)
            began = time.monotonic()
            with self.cluster.typed():
                seconds = self.cluster.until_ready(changed, began)
        else:
            seconds = self.cluster.until_ready(changed, began)
        kill.seconds.append(seconds)
        if seconds is None:
            self.cluster.restart()
            return
        lost, kill.kept = self.look(client, kill, before, victims, value)
        kill.lost.append(lost)

    def look(
        self, client: Client, kill: Kill, before: dict[Name, int], victims: list[Name], value: str
    ) -> tuple[list[str], str]:
        """What is not as it was, and what is, in words."""
        lost: list[str] = []
        kept: list[str] = []
        if ("viewer", 0) in victims:
            kept.append("not the kernels of open notebooks")

        def check(holds: bool, what: str) -> None:
            (kept if holds else lost).append(what)

        now = self.cluster.pids()
        pids = {str(number): pid for (role, number), pid in now.items() if role == "engine"}
        spared = [number for role, number in before if role == "engine" and (role, number) not in victims]
        others = [name for name in before if name not in victims]
        told: dict[str, Any] = {}
        try:
            seen = client("look", pids=pids)
            told = seen["engines"]
            slow = seen["seconds"]
            if kill.busy:
                said = client("result")
                if kill.busy == "retried":
                    check(said == "'again'", f"its task ran again, with {said}")
                else:
                    check(said == "EngineError", f"its task failed with {said}")
        except TimeoutError:
            slow = 0.0
        if {number: one[0] for number, one in told.items()} == pids:
            kept.append("open client" + (f" (after {slow:.0f} s more)" if slow > 2 else ""))
        else:
            lost.append("connection of the open client")
            self.cluster.close()
        values = all(told.get(str(n), [0, None])[1] == f"{value}-{n}" for n in spared)
        check(values, f"values in {'all' if len(spared) == ENGINES else 'the other'} {len(spared)} engines")
        check(set(told) == {str(number) for number in range(ENGINES)}, "engine ids")
        check(all(now.get(name) == before[name] for name in others), "all other processes")
        check(self.cluster.lets_in(), "URL and password")
        return lost, ", ".join(kept)


@contextlib.contextmanager
def running(work: Path) -> Iterator[Cluster]:
    """The cluster; at the end nothing of it runs."""
    cluster = Cluster(work)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


HEAD = ("killed", "back within (median)", "worst", "kept")


def rows(kills: list[Kill]) -> list[tuple[str, str, str, str]]:
    return [(kill.name, *kill.back(), kill.result()) for kill in kills]


def title(runs: int) -> str:
    return f"{ENGINES} engines; {runs} kills of each; {common.machine()}"


def table(kills: list[Kill]) -> str:
    """What came out, for a terminal."""
    lines = [HEAD, *rows(kills)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]}" for line in lines
    )


def markdown(kills: list[Kill]) -> str:
    lines = [HEAD, ("---", "---:", "---:", "---"), *rows(kills)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(page: Path, kills: list[Kill], runs: int) -> None:
    """Put the table into a page, between its two marks."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = page.read_text(encoding="utf-8")
    head, mark, rest = text.partition("<!-- table -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    if not (mark and end):
        sys.exit(f"{page} has no place for the table, between <!-- table --> and <!-- end -->")
    page.write_text(f"{head}{mark}{today}; {title(runs)}.\n\n{markdown(kills)}{end}{tail}", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also put the table into FILE, between its two marks"
    )
    return parser.parse_args()


def main() -> None:
    options = parse()
    kills = kinds(options.quick)
    with common.workplace(options.work) as work, running(work) as cluster:
        healing = Healing(cluster, options.quick)
        for run in range(options.runs):
            for kill in kills:
                healing.once(kill, run)
                if not options.json:
                    print(f"{kill.name}: {kill.seconds[-1:]} {kill.lost[-1:]}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({
            "benchmark": "healing",
            "machine": common.machine(),
            "runs": options.runs,
            "cases": [
                {"case": kill.name, "seconds": kill.seconds, "lost": kill.lost, "kept": kill.kept}
                for kill in kills
            ],
        }, indent=2))  # fmt: skip
    else:
        print(title(options.runs))
        print(table(kills))
    if options.markdown:
        write(options.markdown, kills, options.runs)


if __name__ == "__main__":
    main()
