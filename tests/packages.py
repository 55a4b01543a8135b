"""Packages that the tests make, and indexes that serve them: real files, real HTTP on loopback."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ipython_builder import environment, spec
from ipython_builder.environment import Environment
from ipython_builder.events import Event, Reporter
from ipython_builder.settings import Settings
from ipython_builder.spec import Spec
from tests.conftest import Home


class Kept:
    """A sink that keeps what it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    @property
    def phases(self) -> list[str]:
        """The phases that began, in order."""
        return [event.phase for event in self.events if event.kind == "start"]


class Made:
    """Makes environments from the text of a requirements file, and says what was done for it."""

    def __init__(self, home: Home, root: Path) -> None:
        self.home = home
        self.settings = home.settings
        self.root = root
        self.sink = Kept()
        root.mkdir(exist_ok=True)

    def spec(self, text: str = "", *extra: str, file: str = "requirements.txt") -> Spec:
        (self.root / file).write_text(text)
        return spec.read(self.root, extra=extra)

    def spec_of_files(self, *extra: str) -> Spec:
        """What the files say that are there."""
        return spec.read(self.root, extra=extra)

    def __call__(
        self, text: str | Spec = "", *extra: str, upgrade: bool = False, settings: Settings | None = None
    ) -> Environment:
        asked = self.spec(text, *extra) if isinstance(text, str) else text
        self.sink = Kept()
        return environment.ensure(asked, settings or self.settings, Reporter(self.sink), upgrade=upgrade)

    @property
    def left(self) -> list[str]:
        """The environments that are there, whole or not."""
        root = self.settings.cache_dir / "environments"
        known = ("requests", "claims")
        return sorted(path.name for path in root.iterdir() if path.name not in known) if root.is_dir() else []


def uv() -> str:
    """The uv that the tool uses."""
    from uv import find_uv_bin

    return find_uv_bin()


def python(where: Environment | Path, code: str, check: bool = True) -> str:
    """What a program prints in an environment, or says when it fails and shall not be checked."""
    folder = where if isinstance(where, Path) else where.path
    done = subprocess.run(
        [folder / "bin" / "python", "-I", "-c", code], capture_output=True, text=True, cwd="/"
    )
    if check:
        assert done.returncode == 0, done.stderr
    return (done.stdout or done.stderr).strip()


def sdist(folder: Path, name: str, version: str, setup: str) -> Path:
    """A source distribution of the old kind, whose setup.py is run to build it."""
    path = folder / f"{name}-{version}.tar.gz"
    files = {
        "setup.py": setup,
        f"{name}.py": f"version = {version!r}\n",
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for member, text in files.items():
            info = tarfile.TarInfo(f"{name}-{version}/{member}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def simple_index(folder: Path, *files: Path) -> Path:
    """A folder that is a package index when it is served: pages of links, as PEP 503 says."""
    for file in files:
        name = file.name.partition("-")[0].replace("_", "-")
        (folder / "files").mkdir(parents=True, exist_ok=True)
        (folder / "files" / file.name).write_bytes(file.read_bytes())
        page = folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        before = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
        page.write_text(f'{before}<a href="/files/{file.name}#sha256={sha256(file)}">{file.name}</a>\n')
    return folder


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of an index that serves `folder`."""
    with _serving(partial(_Files, directory=str(folder))) as url:
        yield f"{url}/simple"


@contextmanager
def refusing(status: int) -> Iterator[str]:
    """The URL of an index that answers everything with one status."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            return

    with _serving(Refusal) as url:
        yield f"{url}/simple"


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler] | partial[SimpleHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
