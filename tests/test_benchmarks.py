"""Benchmarks still run, and print what they measured. What they measured is nobody's test."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.conftest import CHECKOUT, Home
from tests.engine import Engine
from tests.engines import Images

CASES = {
    "arrays": {
        *(
            f"{what}, {way}"
            for what in ("there", "back")
            for way in ("DirectView.push", "BroadcastView", "dask")
        )
    },
    "cli": {"first words"},
    "engines": {"2 engines, time", "2 engines, CPU", "2 engines, memory"},
    "imports": {"first import, 2 engines"},
    "environment": {"cold", "warm", "present"},
    "maps": {
        *(f"200 tiny, {way}" for way in ("LoadBalancedView.map", "dask", "joblib", "concurrent.futures")),
        *(f"12 uneven, {way}" for way in ("LoadBalancedView.map", "dask", "joblib", "concurrent.futures")),
        "12 uneven, the ideal",
    },
    "notebook": {"first page", "first cell", *({"first page, no node"} if shutil.which("node") else ())},
    "start": {"page answers", "engines registered", "page and 2 engines"},
}


def run(home: Home, name: str, *options: str, env: Mapping[str, str] | None = None) -> str:
    """What its smallest job prints."""
    return script(home, name, "--runs", "1", "--quick", *options, env=env)


def script(home: Home, name: str, *options: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, CHECKOUT / "benchmarks" / f"{name}.py", *options],
        env=home.environ | dict(env or {}),
        cwd=home.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def table(said: str) -> set[str]:
    """The cases that were printed, each with figures that can be."""
    unit = r"(?:s|MiB|MB|kB)"
    row = re.compile(rf"^(\S.*?)  +([\d.]+) {unit}  +([\d.]+) {unit}  +([\d.]+)(?:  .*)?$", re.MULTILINE)
    rows = {case: [float(figure) for figure in figures] for case, *figures in row.findall(said)}
    for theirs, ours, ratio in rows.values():
        assert theirs > 0
        assert ours > 0
        assert math.isfinite(ratio)
    return set(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_runs_and_prints_its_table(name: str, home: Home) -> None:
    said = run(home, name)
    assert "MISSED" not in said
    assert table(said) == CASES[name], said
    assert "MISSED" not in said


@pytest.mark.timeout(1800)
def test_images_are_built_and_started(
    home: Home, podman: Engine, builder_image: Images, request: pytest.FixtureRequest
) -> None:
    s2i = bool(os.environ.get("S2I") or shutil.which("s2i"))
    env = podman.env | (request.getfixturevalue("docker").env if s2i else {})
    said = run(home, "images", "--builder", builder_image.builder, env=env)
    expected = {"clean build", "notebook changed", "pushed", "image", "first page"}
    expected |= {f"{name}, viewer's JupyterLab" for name in ("image", "first page")}
    if s2i:
        expected |= {"the same, by s2i", "the same, s2i alone"}
    else:
        assert "left out: s2i" in said
    assert table(said) == expected, said
    left = podman.images("--format", "{{.Repository}}")
    assert not [name for name in left if name.startswith("localhost/ipython-builder-benchmark-")]


@pytest.mark.slow
def test_killed_parts_come_back(home: Home) -> None:
    page = home.path / "page.md"
    page.write_text("above\n\n<!-- table -->\nold\n<!-- end -->\nbelow\n")
    said = run(home, "healing", "--markdown", str(page))
    found = re.findall(r"^(\S.*?)  +([\d.]+) s  +([\d.]+) s  (.*)$", said, re.MULTILINE)
    assert [name for name, *_ in found] == ["idle engine", "pool"], said
    for _, median, worst, kept in found:
        assert 0 < float(median) <= float(worst)
        assert "lost" not in kept
        assert "open client, values in " in kept
    text = page.read_text()
    assert text.startswith("above\n\n<!-- table -->\n20")
    assert "old" not in text
    assert re.search(r"^\| pool \| [\d.]+ s \| [\d.]+ s \| .* \|\n<!-- end -->\nbelow$", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_everything_loses_nothing(home: Home) -> None:
    said = script(home, "soak", "1")
    assert "  lost   nothing\n" in said
    words = " ".join(said.partition("  did")[2].partition("  lost")[0].split())
    did = set(re.findall(r"[\d,]+ ([a-z ]+)", words))
    assert {"maps", "arrays", "tasks", "notebooks", "scales", "killed engines"} <= did
    kinds = {
        "client",
        "controller",
        "engine",
        "pool",
        "pool of kernels",
        "schedulers",
        "supervisor",
        "viewer",
    }
    assert set(re.findall(r"^  (\w+(?: of \w+)?) .* → ", said, re.MULTILINE)) == kinds, said


def test_results_as_json(home: Home) -> None:
    said = json.loads(run(home, "cli", "--json"))
    assert said["runs"] == 1
    (case,) = said["cases"]
    assert case["peer_median"] > 0
    assert case["our_median"] > 0
    assert (case["bar"], case["met"]) == (None, None), "of a job this small nothing was promised"


def test_each_benchmark_is_in_the_readme() -> None:
    text = (CHECKOUT / "benchmarks" / "README.md").read_text()
    assert set(re.findall(r"`python benchmarks/(\w+)\.py(?: MINUTES)?`", text)) == {
        *CASES,
        "healing",
        "images",
        "soak",
    }
