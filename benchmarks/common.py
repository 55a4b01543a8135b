"""What the benchmarks share: turns, medians, one table or one JSON object.

Each benchmark runs the peer and us in turn (A B A B ...), so that a busy moment of the machine meets both,
and compares medians. Preparing and checking are never timed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ipython_builder import scrub, settings

Run = Callable[[], float]
Words = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: what is compared.
        peer, ours: what each run took, in `unit`.
        bar: what was promised, in words; empty where nothing was.
        keeps: whether a case keeps the promise.
        unit: of what is compared.
    """

    name: str
    peer: list[float]
    ours: list[float]
    bar: str = ""
    keeps: Callable[[Case], bool] | None = None
    unit: str = "s"

    @property
    def met(self) -> bool | None:
        """Whether the promise was kept; None where there is none."""
        return self.keeps(self) if self.keeps else None

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.peer), statistics.median(self.ours)

    @property
    def ratio(self) -> float:
        """How many times as much the peer takes."""
        peer, ours = self.medians
        return peer / ours


def parser(description: str | None, *, runs: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0], formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument(
        "--runs", type=int, default=runs, metavar="N", help=f"runs of each side (default {runs})"
    )
    made.add_argument("--quick", action="store_true", help="the smallest job that exercises everything")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    made.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where caches and environments go (default: a temporary folder)",
    )
    return made


def take_turns(runs: int, peer: Run, ours: Run) -> tuple[list[float], list[float]]:
    """Run both `runs` times, one after the other."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for side, run in zip(seconds, (peer, ours), strict=True):
            os.sync()  # what the other side wrote is not this one's to wait for
            side.append(run())
    return seconds


def timed(argv: Words, *, env: Mapping[str, str], cwd: Path | None = None) -> float:
    """Seconds that a command took."""
    started = time.perf_counter()
    run(argv, env=env, cwd=cwd)
    return time.perf_counter() - started


def run(argv: Words, *, env: Mapping[str, str], cwd: Path | None = None) -> str:
    """Run a command and return its stdout; one that fails ends the benchmark with its words."""
    done = subprocess.run(
        [os.fspath(word) for word in argv],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, argv))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def environ() -> dict[str, str]:
    """What both sides run in: how to reach an index, and nothing else of the caller's."""
    ours = {"IPYTHON_BUILDER_PYTHON": base_python()}
    return {**scrub.installer_environ(settings.load()), **ours}


def base_python() -> str:
    """The Python that both sides use: the one that runs this, outside its virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@contextlib.contextmanager
def workplace(chosen: Path | None) -> Iterator[Path]:
    """A folder for all that is made, one file system for caches and environments; removed at the end."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="ipython-builder-benchmark-", dir=chosen))
    # Whoever ends a benchmark half-way finds nothing of it either.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Delete a folder, read-only environments in it included."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def report(title: str, peer: str, cases: Sequence[Case], options: argparse.Namespace, **more: Any) -> None:
    """Print what came out; of the smallest job no promise was made."""
    if options.quick:
        cases = [replace(case, bar="", keeps=None) for case in cases]
    if options.json:
        print(json.dumps(_object(title, peer, cases, options, more), indent=2))
        return
    print(f"{title}; {options.runs} runs of each side; {machine()}")
    rows = [("case", peer, "ipython-builder", "ratio", "bar")]
    for case in cases:
        theirs, ours = case.medians
        verdict = "" if case.met is None else ": met" if case.met else ": MISSED"
        figures = f"{theirs:.3f} {case.unit}", f"{ours:.3f} {case.unit}"
        rows.append((case.name, *figures, f"{case.ratio:.2f}", case.bar + verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, 4) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    for name, value in more.items():
        print(f"{name.replace('_', ' ')}: {value}")


def machine() -> str:
    """Cores, memory, system and Python, in a few words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def _object(
    title: str, peer: str, cases: Sequence[Case], options: argparse.Namespace, more: dict[str, Any]
) -> dict[str, Any]:
    return {
        "benchmark": title,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "runs": options.runs,
        "peer": peer,
        "cases": [
            {
                "case": case.name,
                "unit": case.unit,
                "peer_runs": case.peer,
                "our_runs": case.ours,
                "peer_median": case.medians[0],
                "our_median": case.medians[1],
                "ratio": case.ratio,
                "bar": case.bar or None,
                "met": case.met,
            }
            for case in cases
        ],
        **more,
    }
