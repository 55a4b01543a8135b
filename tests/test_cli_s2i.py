"""The scripts of a builder image, and the verbs behind them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from ipython_builder.cli import s2i
from tests.conftest import CHECKOUT, Cli

SCRIPTS = CHECKOUT / "s2i" / "bin"


@pytest.mark.parametrize("name", ["assemble", "run", "save-artifacts", "usage"])
def test_scripts_are_short_and_call_their_verb(name: str) -> None:
    path = SCRIPTS / name
    text = path.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert len(text.splitlines()) <= 20
    assert re.search(rf"^exec ipython-builder s2i {name} \"\$@\"$", text, re.MULTILINE)
    assert path.stat().st_mode & stat.S_IXUSR
    assert name in s2i.VERBS


def test_the_group_lists_its_verbs_and_imports_none(cli: Cli) -> None:
    said = cli("s2i", "--help", check=True).stdout
    for name, text in s2i.VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}", said, re.MULTILINE)
    assert cli("s2i", "asemble").rc == 2


def test_usage_explains_the_image(cli: Cli) -> None:
    said = cli("s2i", "usage", check=True)
    assert said.stderr == ""
    for words in ("s2i build", "podman run", "IPYTHON_CONTAINER_TYPE", "requirements.txt", "sbom.cdx.json"):
        assert words in said.stdout
    assert max(map(len, said.stdout.splitlines())) <= 110


def test_a_tar_is_not_shown_on_a_terminal(cli: Cli) -> None:
    import pty
    import subprocess

    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*cli.argv, "s2i", "save-artifacts"], env=cli.home.environ, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert b"a tar is no text for a terminal" in done.stderr


def test_where_there_is_nothing_to_save_there_is_an_empty_tar(cli: Cli, tmp_path: Path) -> None:
    import io
    import subprocess
    import tarfile

    words = [*cli.argv, "s2i", "save-artifacts", "--root", str(tmp_path)]
    done = subprocess.run(words, env=cli.home.environ, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == []
