"""An image's file system below a folder: a builder made once, copied for each test, and what S2I does with it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from ipython_builder.build import bales
from ipython_builder.places import Places
from tests.conftest import CACHE, Cli, Said

CLOSED = "http://127.0.0.1:9/simple"  # an index that nobody answers at
NOTEBOOK: dict[str, Any] = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def notebook(*cells: str) -> str:
    """A notebook with these code cells."""
    made = [{"cell_type": "code", "id": f"c{number}", "metadata": {}, "source": source, "outputs": [],
             "execution_count": None} for number, source in enumerate(cells)]  # fmt: skip
    return json.dumps(NOTEBOOK | {"cells": made})


class Image:
    """The root of a container: a copy of a builder's, and the scripts run in it."""

    def __init__(self, root: Path, cli: Cli, builder: Path | None = None, *, cached: bool = True) -> None:
        self.root, self.cli, self.places = root, cli, Places(root)
        if builder:
            subprocess.run(["cp", "-a", builder, root], check=True)
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        if cached:
            self.mount_cache()

    def mount_cache(self) -> None:
        cache = self.root / "var/cache/ipython-builder"
        cache.parent.mkdir(parents=True)
        cache.symlink_to(CACHE)

    def upload(self, **files: str) -> None:
        """A repository as S2I puts it there; `__` in a name is a slash, `_0` a dot, `_1` a dash."""
        for name, text in files.items():
            path = self.places.upload / name.replace("__", "/").replace("_0", ".").replace("_1", "-")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)

    def s2i(
        self, verb: str, *words: str, index: str | None = None, env: dict[str, str] | None = None
    ) -> Said:
        given = {"UV_DEFAULT_INDEX": index, "UV_HTTP_RETRIES": "0"} if index else {}
        return self.cli("s2i", verb, "--root", self.root, *words, env=given | (env or {}))

    def assemble(self, *words: str, index: str | None = None, env: dict[str, str] | None = None) -> Said:
        """`s2i assemble`, which must end well."""
        said = self.s2i("assemble", *words, index=index, env=env)
        assert said.rc == 0, said.stderr
        return said

    def save(self, tar: Path) -> list[str]:
        """Write the artifacts to a file; the names in it."""
        with tar.open("wb") as file:
            words = [*self.cli.argv, "s2i", "save-artifacts", "--root", str(self.root)]
            done = subprocess.run(words, env=self.cli.home.environ, stdout=file, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b"")
        inner = io.BytesIO()
        with tarfile.open(tar) as archive:
            names = archive.getnames()
            for name in names:
                if name.startswith(bales.PREFIX) and (part := archive.extractfile(name)):
                    inner.write(part.read())
        if not inner.tell():
            return names
        inner.seek(0)
        with tarfile.open(fileobj=inner) as packed:
            return [name for name in names if not name.startswith(bales.PREFIX)] + packed.getnames()

    def unpack(self, tar: Path) -> None:
        """What S2I does with artifacts; under its own umask, as it does on the way."""
        before = os.umask(0o022)
        try:
            with tarfile.open(tar) as archive:
                archive.extractall(self.places.artifacts, filter="data")
        finally:
            os.umask(before)

    def open_bales(self) -> None:
        """The artifacts as files, so that a test can change them; they are taken that way too."""
        assert bales.unpack(self.places.artifacts, self.places.artifacts)

    @property
    def packages(self) -> Path:
        return next((self.places.app_root / "lib").glob("python3.*/site-packages"))

    def python(self, code: str) -> str:
        words = [self.places.app_root / "bin" / "python", "-B", "-I", "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def marks(self) -> dict[str, tuple[int, int]]:
        """Every file of the environment -> what changes when it is written again."""
        found = {}
        for folder, _, names in os.walk(self.places.app_root):
            for name in names:
                path = Path(folder, name)
                status = path.lstat()
                found[str(path.relative_to(self.places.app_root))] = (status.st_ino, status.st_mtime_ns)
        return found

    def copy(self, root: Path) -> Image:
        shutil.rmtree(root, ignore_errors=True)
        return Image(root, self.cli, self.root, cached=False)
