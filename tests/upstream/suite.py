"""Run ipyparallel's own tests twice, on the cluster they start and on one of ours, and list every difference.

    python tests/upstream/suite.py [--markdown docs/reference/ipyparallel-suite.md] [MODULE ...]

MODULE is one of the suite's, such as ``test_view``; all of them when left out. The tests are those that the
locked version of ipyparallel brings along (they are the same bytes as in its source distribution). What differs
is run again on both sides, since some of these tests do not pass every time. ``explained.toml`` beside this
file says why each remaining difference is as it is; one without an explanation, and an explanation without a
difference, make the exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPLAINED = HERE / "explained.toml"
TOOL = [sys.executable, "-P", "-m", "ipython_builder"]
# What the suite itself needs, by its metadata's extra "test", without what only its coverage needs.
NEEDED = ("pytest", "pytest-asyncio", "testpath", "ipython[test]", "numpy", "pandas", "joblib")
LABEL = "suite"
KEPT = ("IPYTHON_BUILDER_CACHE_DIR",)
AGAIN = 3  # runs of what differed
MODULE_SECONDS = 900  # only ends a run that would never end

Outcomes = dict[str, str]  # test -> passed, failed or skipped


class Side:
    """One of the two: a Python with the suite in it, and the options that choose the cluster."""

    def __init__(self, name: str, python: Path, work: Path, env: dict[str, str], *options: str) -> None:
        self.name = name
        self.python = python
        self.work = work / name
        self.env = env
        self.options = options
        self.work.mkdir()
        # As its own pyproject.toml has it, but a warning of a newer library is no failure.
        (self.work / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")

    def run(self, tests: list[str]) -> Outcomes:
        """Run these, such as ``test_view`` or ``test_view::TestView::test_push``."""
        found: Outcomes = {}
        for module, chosen in _by_module(tests).items():
            found |= self._module(module, chosen)
        return found

    def _module(self, module: str, chosen: list[str]) -> Outcomes:
        print(f"{self.name:<6} {module}", end="  ", flush=True)
        report = self.work / "report.xml"
        report.unlink(missing_ok=True)
        words = [str(self.python), "-m", "pytest", "-c", "pytest.ini", f"--rootdir={self._folder()}"]
        words += ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        where = str(self._folder() / f"{module}.py")
        names = [f"{where}::{one}" for one in chosen] or [where]
        with open(self.work / f"{module}.log", "a") as log:
            try:
                subprocess.run(
                    [*words, *self.options, *names],
                    cwd=self.work, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    timeout=MODULE_SECONDS, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                print("did not end", end="  ")
        found = _outcomes(report)
        print(
            " ".join(f"{count} {outcome}" for outcome, count in sorted(Counter(found.values()).items())),
            flush=True,
        )
        return found

    def _folder(self) -> Path:
        where = "import importlib.util as u; print(u.find_spec('ipyparallel').submodule_search_locations[0])"
        said = subprocess.run(
            [self.python, "-c", where], env=self.env, check=True, capture_output=True, text=True
        )
        return Path(said.stdout.strip()) / "tests"

    def version(self) -> str:
        """Of ipyparallel."""
        words = [self.python, "-c", "import ipyparallel; print(ipyparallel.__version__)"]
        return subprocess.run(words, env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def modules(self) -> list[str]:
        return sorted(path.stem for path in self._folder().glob("test_*.py"))


def _by_module(tests: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for test in tests:
        module, _, name = test.partition("::")
        found.setdefault(module, []).extend([name] if name else [])
    return found


def _outcomes(report: Path) -> Outcomes:
    if not report.exists():
        return {}
    found = {}
    for case in xml.parse(report).iter("testcase"):
        parts = (case.get("classname") or "").split(".")
        module = next((at for at, part in enumerate(parts) if part.startswith("test_")), None)
        if module is None:  # a module that could not be imported has no class, and its own name
            parts, module = [(case.get("name") or "").rpartition(".")[2]], 0
        name = "::".join([*parts[module:], case.get("name") or ""])
        bad = case.find("failure") is not None or case.find("error") is not None
        found[name] = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
    return found


def differing(stock: Outcomes, ours: Outcomes) -> list[str]:
    """The tests that did not end alike; one that is missing on a side did not end there."""
    return sorted(name for name in stock.keys() | ours.keys() if stock.get(name) != ours.get(name))


def _times(runs: list[Outcomes], name: str) -> str:
    counted = Counter(run.get(name, "not run") for run in runs)
    return ", ".join(f"{outcome} {count} of {len(runs)}" for outcome, count in counted.most_common())


def prepare(work: Path, *options: str) -> tuple[Side, Side]:
    """Two environments of the same versions: the one `up` makes, and one without anything of ours."""
    folder = work / "repository"
    folder.mkdir()
    (folder / "requirements.txt").write_text("\n".join(NEEDED) + "\n")
    dropped = ("IPYTHON", "IPP_", "JUPYTER", "PYTHON")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped) or name in KEPT}
    env |= {"XDG_STATE_HOME": str(work / "state"), "XDG_DATA_HOME": str(work / "data")}

    def done(*words: str | Path) -> str:
        return subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    done(*TOOL, "up", folder, "--label", LABEL, "-n", "0", *options)
    home = next((work / "state").glob(f"*/clusters/{LABEL}"))
    # The cluster's own environment goes with it; the shared one below it stays.
    where = "import importlib.util as u; print(u.find_spec('ipyparallel').origin)"
    ours = Path(done(home / "kept/env/bin/python", "-c", where)).parents[4] / "bin/python"
    pins = [
        line
        for line in done(ours, "-m", "pip", "freeze", "--all").splitlines()
        if "ipython-cluster" not in line
    ]
    done(*TOOL, "down", LABEL)
    (work / "pins.txt").write_text("\n".join(pins) + "\n")
    uv = Path(sys.executable).parent / "uv"
    done(uv, "venv", "--quiet", "--python", ours, work / "plain")
    done(uv, "pip", "install", "--quiet", "--python", work / "plain", "--requirement", work / "pins.txt")
    plugin = {"tool": TOOL, "folder": str(folder), "label": LABEL, "home": str(home), "options": options}
    return (
        Side("stock", work / "plain/bin/python", work, env),
        Side("ours", ours, work, env | {"SUITE": json.dumps(plugin), "PYTHONPATH": str(HERE)}, "-p", "ours"),
    )


def compare(
    stock: Side, ours: Side, modules: list[str]
) -> tuple[Counter[str], Counter[str], dict[str, tuple[str, str]]]:
    """How the tests of these modules ended on both sides, and what differs: test -> (stock, ours) in words."""
    runs = [stock.run(modules)], [ours.run(modules)]
    again = differing(runs[0][0], runs[1][0])
    if again:
        for _ in range(AGAIN):
            runs[0].append(stock.run(again))
            runs[1].append(ours.run(again))
    differences = {}
    for name in again:
        theirs, mine = _times(runs[0], name), _times(runs[1], name)
        if theirs != mine:
            differences[name] = theirs, mine
    return Counter(runs[0][0].values()), Counter(runs[1][0].values()), differences


def reason_of(explained: dict[str, str], name: str) -> str | None:
    """Why this test differs, by the first pattern that names it."""
    return next((why for pattern, why in explained.items() if fnmatch.fnmatchcase(name, pattern)), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as test_view; all when left out")
    parser.add_argument("--markdown", type=Path, help="put the result into this page, between its two marks")
    parser.add_argument("--no-fork", action="store_true", help="without the pool, to see what it changes")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="an empty folder, which is kept with all logs"
    )
    options = parser.parse_args()
    explained: dict[str, str] = tomllib.loads(EXPLAINED.read_text()) if EXPLAINED.exists() else {}
    with contextlib.ExitStack() as stack:
        folder = options.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="ipyparallel-suite-"))
        stock, ours = prepare(Path(folder), *(["--no-fork"] if options.no_fork else []))
        theirs, mine, differences = compare(stock, ours, options.modules or stock.modules())
        version = stock.version()
        unexplained = [name for name in differences if reason_of(explained, name) is None]
        for name in unexplained:
            print(
                f"\nnot explained: {name}\n  stock: {differences[name][0]}\n  ours:  {differences[name][1]}"
            )
            log = ours.work / f"{name.partition('::')[0]}.log"
            print(log.read_text()[-20_000:])
    idle = []
    if not options.modules:
        idle = [one for one in explained if not any(fnmatch.fnmatchcase(name, one) for name in differences)]
    for pattern in idle:
        print(f"explained and not different: {pattern}")
    lines = table(version, theirs, mine, differences, explained)
    print("\n" + "\n".join(lines))
    if options.markdown:
        put(options.markdown, lines)
    sys.exit(1 if unexplained else 0)


def table(
    version: str,
    theirs: Counter[str],
    mine: Counter[str],
    differences: dict[str, tuple[str, str]],
    explained: dict[str, str],
) -> list[str]:
    """The page's part that is made."""
    lines = [f"ipyparallel {version}:", "", "| | passed | skipped | failed |", "|---|---|---|---|"]
    for name, counted in (("as it is", theirs), ("on a cluster of ours", mine)):
        lines.append(f"| {name} | {counted['passed']} | {counted['skipped']} | {counted['failed']} |")
    lines += ["", "| test | as it is | on a cluster of ours | why |", "|---|---|---|---|"]
    for name, (stock, ours) in differences.items():
        lines.append(f"| `{name}` | {stock} | {ours} | {reason_of(explained, name) or '**not explained**'} |")
    return lines if differences else [*lines[:-3], "", "No test ends otherwise."]


def put(page: Path, lines: list[str]) -> None:
    """Put the lines between the page's two marks."""
    before, _, rest = page.read_text().partition("<!-- table -->\n")
    _, _, after = rest.partition("<!-- end -->")
    page.write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end -->" + after)


if __name__ == "__main__":
    main()
