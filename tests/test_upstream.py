"""ipyparallel's own tests end on our cluster as they do on their own, but for what is explained."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.conftest import CHECKOUT, Home
from tests.upstream import suite

PAGE = CHECKOUT / "docs" / "reference" / "ipyparallel-suite.md"
# Direct and load-balanced views, results and dependencies, and clusters that are started by hand.
MODULES = ("test_asyncresult", "test_lbview", "test_dependency", "test_executor", "test_cluster")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_they_end_alike(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, CHECKOUT / "tests" / "upstream" / "suite.py", *MODULES],
        env=home.environ,
        cwd=home.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "test_asyncresult  41 passed" in done.stdout


def test_every_reason_is_of_a_difference_that_was_seen() -> None:
    explained = tomllib.loads(suite.EXPLAINED.read_text())
    page = PAGE.read_text()
    assert "not explained" not in page.partition("<!-- table -->")[2].partition("<!-- end -->")[0]
    for why in explained.values():
        assert why in page, why
    assert page.count("\n| `test_") >= len(explained)


def test_what_differs_is_found() -> None:
    theirs = {"a": "passed", "b": "failed", "c": "skipped"}
    ours = {"a": "failed", "b": "failed", "d": "passed"}
    assert suite.differing(theirs, ours) == ["a", "c", "d"]
    assert suite.reason_of({"test_*::x*": "why"}, "test_a::xy") == "why"
    assert suite.reason_of({"test_*::x*": "why"}, "test_a::y") is None
