"""The documents: what they tell people to type works, links lead somewhere, the reference is the program's."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest

from ipython_builder import errors, settings
from ipython_builder.spec import _SPEAKERS, config
from tests.conftest import CHECKOUT, Home, require

DOCS = CHECKOUT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted(
    path
    for path in [*CHECKOUT.glob("*.md"), *DOCS.rglob("*.md"), *CHECKOUT.glob("benchmarks/*.md")]
    if path.is_file()
)
# A block that a reader's shell and this test run; others are marked by nothing, and only read.
RUN = re.compile(r"<!-- run -->\n```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What the page says is printed somewhere on the way.
PRINTS = re.compile(r"<!-- prints -->\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def names(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_commands_work_in_their_order(page: str, home: Home, tmp_path: Path) -> None:
    """As one person would type them, in one shell, in a copy of what was cloned, each of them successful."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    found = RUN.findall(text)
    assert found, f"{page} has no block that is marked <!-- run -->"
    place = tmp_path / "ipython-builder"
    shutil.copytree(CHECKOUT / "examples", place / "examples", ignore=shutil.ignore_patterns(".ipynb_*"))
    tools = tmp_path / "bin"
    tools.mkdir()
    tool = tools / "ipython-builder"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m ipython_builder "$@"\n')
    tool.chmod(0o755)
    done = subprocess.run(
        [require("bash"), "-euo", "pipefail", "-x", "-c", "\n".join(found)],
        cwd=place,
        env=home.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for promised in PRINTS.findall(text):
        assert promised in done.stdout
    assert not list(home.clusters.glob("[!.]*")), "at its end the page has the reader stop everything"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{names(page)} links to {target}"
        assert there.is_relative_to(CHECKOUT), f"{names(page)} links out of the checkout: {target}"
        if anchor:
            assert anchor in anchors(there), f"{names(page)} links to {target}; there are {anchors(there)}"


def anchors(page: Path) -> list[str]:
    """The anchors of a page's headings, made as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, waiting = set(), [CHECKOUT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        found = re.findall(r"\]\(([^)\s#]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        waiting += [(page.parent / one).resolve() for one in found if "://" not in one]
    assert [names(page) for page in PAGES if page not in seen] == []


def test_command_line_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    written = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert written == generate.page(), "run: python docs/generate.py"


def test_every_exit_code_is_described() -> None:
    text = (REFERENCE / "exit-codes.md").read_text()
    described = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    tree = [errors.BuilderError, *errors.BuilderError.__subclasses__()]
    assert described == {0, 130} | {error.exit_code for error in tree}


def test_every_setting_is_described() -> None:
    text = (REFERENCE / "environment-variables.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| `([A-Z_]+)`", text, flags=re.MULTILINE))
    assert rows == {f.name: f"IPYTHON_BUILDER_{f.name.upper()}" for f in fields(settings.Settings)}


def test_files_speak_in_the_order_that_is_described() -> None:
    text = (REFERENCE / "repository-files.md").read_text()
    rows = re.findall(r"^\| \d \| (.*?) \|", text, flags=re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert described == [name for name, _, _ in _SPEAKERS]


def test_every_key_of_the_configuration_is_described() -> None:
    text = (REFERENCE / "repository-files.md").read_text()
    section = text.partition("## .ipython-builder.toml")[2].partition("\n## ")[0]
    section, _, pool = section.partition("\n### ")
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, flags=re.MULTILINE)) == set(config._KEYS)
    assert set(re.findall(r"^\| `([\w-]+)` \|", pool, flags=re.MULTILINE)) == set(config._POOL_KEYS)


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.png")), ids=names)
def test_pictures_are_small(path: Path) -> None:
    assert path.stat().st_size < 250_000


def test_every_module_has_its_place_in_the_shape() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    drawn = text.partition("`builder/ipython_builder/`:")[2].partition("`builder/ipython_cluster/`")[0]
    shape = set(re.findall(r"\w+", drawn))
    there = {path.stem for path in (CHECKOUT / "builder" / "ipython_builder").glob("[a-z]*")}
    assert there - {"locks", "py"} <= shape
