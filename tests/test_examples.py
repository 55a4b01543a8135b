"""Every example, from its folder to its picture; each checks its own result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, Cli

pytestmark = pytest.mark.slow
EXAMPLES = sorted((CHECKOUT / "examples").glob("*/*.ipynb"))


def test_there_are_examples() -> None:
    assert len({path.parent for path in EXAMPLES}) >= 3
    for path in EXAMPLES:
        assert (path.parent / "requirements.txt").is_file()
        assert (path.parent / "README.md").is_file()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_example(path: Path, cli: Cli, tmp_path: Path) -> None:
    checked = cli("check", path.parent, "--json", check=True).json
    assert checked["missing"] == [], "requirements.txt has all that the notebook imports"
    cli("up", path.parent, "-n", "3", "--label", "example", check=True)
    done = tmp_path / "done.ipynb"
    said = cli("run", "example", path.name, "-o", str(done), "--timeout", "200")
    assert said.rc == 0, said.stderr
    outputs = [o for cell in json.loads(done.read_text())["cells"] for o in cell.get("outputs", [])]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert "image/png" in shown, "it ends with a picture"
    if path.parent.name != "monte-carlo":  # there it is in the axes of another one
        assert "image/svg+xml" in shown, "it shows who did what"
