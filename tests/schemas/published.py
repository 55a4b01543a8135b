"""Files of Go modules in which APIs are published.

Each is downloaded once for all checkouts of a user, into the user's cache, by go itself, which compares the module
with the public checksum database; and the checksum is named here too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.daemons import locked
from tests.kubernetes.programs import ENVIRON, NotMade, find_go


class NotThere(Exception):
    """A file is not there and cannot be fetched; the message says what is missing."""


@dataclass(frozen=True)
class Module:
    """A Go module in one version."""

    name: str
    version: str
    checksum: str

    def file(self, inside: str, cached: str) -> Path:
        """The file at `inside` in the module, as `cached` in the cache; fetched where it is not there.

        Raises:
            NotThere: there is no Go, or it could not fetch it.
        """
        cache = Path(ENVIRON.get("XDG_CACHE_HOME") or Path(ENVIRON.get("HOME", "/root")) / ".cache")
        file = cache / "ipython-builder-tests" / cached.format(self.version)
        with locked(file.with_name(f"{file.name}.lock")):
            if not file.exists():
                with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as work:
                    shutil.copyfile(self._fetched(Path(work)) / inside, Path(work) / file.name)
                    (Path(work) / file.name).rename(file)
        return file

    def _fetched(self, work: Path) -> Path:
        """The folder of the module in Go's own cache."""
        wanted = f"{self.name}@{self.version}"
        try:
            go = find_go()
        except NotMade as error:
            raise NotThere(f"go, which fetches {self.name} ({error})") from None
        words = [go, "mod", "download", "-json", wanted]
        env = ENVIRON | {"GOFLAGS": "-mod=mod", "GOWORK": "off"}
        done = subprocess.run(words, cwd=work, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotThere(f"{wanted} ('go mod download' said:\n{done.stdout}{done.stderr[-2000:]})")
        said = json.loads(done.stdout)
        assert said["Sum"] == self.checksum, f"{wanted} is not what it was: {said['Sum']}"
        return Path(said["Dir"])
