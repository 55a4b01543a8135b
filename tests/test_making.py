"""From a request to a record: what of the repository and of the command line ends up in it. Starts nothing."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ipython_builder import record, source
from ipython_builder.errors import BuilderError, RepositoryError
from ipython_builder.events import Reporter
from ipython_builder.platforms.base import Up
from ipython_builder.platforms.making import Maker
from ipython_builder.record import Record
from tests.conftest import LOOPBACK, Home
from tests.workbench import notebook

pytestmark = pytest.mark.slow


class Workshop:
    """A repository, and records that are made of it."""

    def __init__(self, home: Home, root: Path) -> None:
        self.maker = Maker(home.settings, Reporter(), [])
        self.home = record.Home(home.clusters / "main")
        self.root = root
        self.made: Record | None = None

    def up(self, **asked: object) -> Record:
        context = str(asked.pop("context_dir", ""))
        request = Up(source.parse(str(self.root), context_dir=context), engines=1, **asked)  # type: ignore[arg-type]
        if self.made is None:
            self.made = self.maker.new(self.home, request)
        else:
            self.made = self.maker.again(self.home, self.made, request)
        return self.made

    def settings(self, text: str) -> None:
        (self.root / ".ipython-builder.toml").write_text(text)


@pytest.fixture
def workshop(home: Home, tmp_path: Path) -> Workshop:
    notebook(tmp_path / "repo" / "one.ipynb", "from packaging import version, nothing\nimport os")
    return Workshop(home, tmp_path / "repo")


def test_what_notebooks_import_is_looked_up_in_the_environment(workshop: Workshop) -> None:
    first = workshop.up()
    assert first.preload == ("packaging", "packaging.version")
    assert (first.fork, first.preload_timeout) == (True, 30.0)
    notebook(workshop.root / "two.ipynb", "import psutil")
    workshop.settings("[pool]\npreload = ['tornado.web']\nexclude = ['packaging']\ntimeout = 7\n")
    second = workshop.up()
    assert second.preload == ("psutil", "tornado.web")
    assert second.preload_timeout == 7.0
    assert second.substance() == first.substance()


def test_whether_engines_are_forked(workshop: Workshop) -> None:
    assert workshop.up().fork
    assert not workshop.up(fork=False).fork
    assert not workshop.up().fork, "the cluster remembers what it was told"
    assert workshop.up(fork=True).fork
    workshop.settings("[pool]\nfork = false\n")
    assert workshop.up().fork, "who starts it has the last word"
    workshop.made = None
    assert not workshop.up().fork
    workshop.settings("")
    assert workshop.up().fork, "and who said nothing follows the repository"


def test_a_folder_in_the_repository_has_the_roots_settings(workshop: Workshop) -> None:
    notebook(workshop.root / "course" / "three.ipynb", "import psutil")
    workshop.settings("[pool]\npreload = ['tornado.web']\n")
    assert workshop.up(context_dir="course").preload == ("psutil", "tornado.web")


def test_a_port_in_use_is_found_before_anything_is_installed(workshop: Workshop) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        with pytest.raises(BuilderError, match="is in use"):
            workshop.up(port=taken.getsockname()[1])
    assert set(workshop.maker.reporter.seconds) == {"source"}


def test_a_fault_is_found_before_anything_is_installed(workshop: Workshop) -> None:
    (workshop.root / "helpers.py").touch()
    workshop.settings("[pool]\npreload = ['helpers']\n")
    with pytest.raises(RepositoryError, match="helpers"):
        workshop.up()
    assert not workshop.home.path.exists()
    assert set(workshop.maker.reporter.seconds) == {"source"}
